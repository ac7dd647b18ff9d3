"""The command from end to end, on a tiny Llama and a few rows. Oracle: a run that was never stopped; the files."""

import json
from contextlib import contextmanager

import pytest
from checkpoints import contents, save_tiny_llama

from octoscale.paper import reproduce as module
from octoscale.paper import tasks
from octoscale.paper.reproduce import reproduce
from octoscale.paper.settings import Reproduction
from octoscale.system.errors import UserError

pytest.importorskip("lm_eval")

QUESTIONS = [
    {"query": f"Letter {letter}", "choices": ["yes", "no, never"], "gold": n % 2} for n, letter in enumerate("abcdef")
]
LABELED = "sentence\tlabel\n" + "".join(f"a {word} film\t{number % 2}\n" for number, word in enumerate("abcdefgh"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, and data for piqa and sst2."""
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_llama(folder / "llama")
    (folder / "data").mkdir()
    (folder / "data" / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    for name in ("sst2", "sst2-train"):
        (folder / "data" / f"{name}.tsv").write_text(LABELED)
    return folder


def words(inputs, what, **changes):
    given = {
        "models": (str(inputs / "llama"),),
        "include": inputs / "data",
        "tasks": "sst2",
        "bias": "0:1",
        "train_bias": "0,1",
        "steps": 2,
        "batch": 2,
        "window": 16,
        "tokens": 1024,
        "seeds": "0,1",
    }
    return Reproduction(what=what, **given | changes)


class Counted:
    """Bars that count the cells which are made, and stop before one of them."""

    def __init__(self, stop_at=None):
        self.labels, self.stop_at = [], stop_at

    @contextmanager
    def __call__(self, cell):
        if len(self.labels) == self.stop_at:
            raise KeyboardInterrupt
        self.labels.append(cell.label)
        yield None


def results(folder):
    """What a reader cites: all but the cells, the dates, and the seconds."""
    apart = ("cells/", "made.json", "seconds.csv", ".octoscale.lock")
    return {name: data for name, data in contents(folder).items() if not name.startswith(apart)}


def test_what_was_stopped_goes_on_and_ends_with_the_same_bytes(inputs, tmp_path):
    whole, stopped = Counted(), Counted(stop_at=4)
    settings = words(inputs, "table2,table3,table5,fig5,fig7,fig10")
    assert reproduce(settings, tmp_path / "whole", bars=whole) == settings.wanted
    with pytest.raises(KeyboardInterrupt):
        reproduce(settings, tmp_path / "stopped", bars=stopped)
    again = Counted()
    reproduce(settings, tmp_path / "stopped", bars=again)
    assert stopped.labels + again.labels == whole.labels
    assert len(set(whole.labels)) == len(whole.labels)
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    names = {"table2", "table3", "table5"}
    expected = {f"{name}.{end}" for name in names for end in ("md", "csv", "json")}
    assert results(tmp_path / "whole").keys() == expected | {"fig5.json", "fig7.json", "fig10.json"}
    rows = json.loads((tmp_path / "whole" / "table2.json").read_text())["rows"]
    assert [(row["task"], row["seed"], row["items"]) for row in rows] == [("sst2", 0, 8), ("sst2", 1, 8)]


def test_a_cell_that_was_cut_short_is_made_again(inputs, tmp_path):
    """A kill leaves a run without its result: here the result is deleted."""
    settings = words(inputs, "table4", tasks="piqa")
    reproduce(settings, tmp_path / "run")
    before = results(tmp_path / "run")
    (result,) = (path for path in (tmp_path / "run" / "cells").glob("ask-*.json") if "amax" in path.name)
    result.unlink()
    again = Counted()
    reproduce(settings, tmp_path / "run", bars=again)
    assert [label.rpartition(" ")[2] for label in again.labels] == ["amax"]
    assert results(tmp_path / "run") == before


def test_other_words_are_measured_beside_those_that_are_there(inputs, tmp_path):
    reproduce(words(inputs, "table4", tasks="piqa", limit=4), tmp_path / "run")
    again = Counted()
    reproduce(words(inputs, "table4,fig6", tasks="piqa", limit=5), tmp_path / "run", bars=again)
    assert len(again.labels) == 3
    (row,) = json.loads((tmp_path / "run" / "table4.json").read_text())["rows"]
    assert row["items"] == 5
    made = json.loads((tmp_path / "run" / "made.json").read_text())
    assert (made["table4"]["words"]["limit"], [*made]) == (5, ["table4", "fig6", "left_out"])
    seconds = (tmp_path / "run" / "seconds.csv").read_text().splitlines()
    assert seconds[0] == "cell,seconds"
    assert len(seconds) == 6


def test_the_figures_numbers_are_those_of_the_runs(inputs, tmp_path):
    """Oracle: a tiny Llama has two layers, four kinds, two roles in inference and three in training."""
    reproduce(words(inputs, "fig6,fig7", tasks="sst2"), tmp_path)
    (inference,) = json.loads((tmp_path / "fig6.json").read_text())["panels"]
    assert {(one["role"], one["kind"]) for one in inference["series"]} == {
        (role, kind) for role in ("weight", "input") for kind in ("attn_qkv", "attn_out", "ffn_in", "ffn_out")
    }
    assert all(one["layer"] == [0, 1] for one in inference["series"])
    (training,) = json.loads((tmp_path / "fig7.json").read_text())["panels"]
    assert len(training["series"]) == 3 * 4 * 2
    assert all(one["step"] == [0, 1] for one in training["series"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"what": "fig8"}, "fig8 shows model 2 by size, and there are 1: give more --model"),
        ({"what": "table5", "tasks": "piqa"}, "table5 fine-tunes for classes: --tasks sst2, say, not piqa"),
        ({"what": "table4", "tasks": "sst2"}, "table4 asks through lm-eval: --tasks piqa, say, not sst2"),
        ({"what": "table5", "tasks": "sst2,piqa"}, "table5 cannot ask piqa: leave it out"),
        ({"what": "table4", "tasks": "piqaa"}, "unknown task 'piqaa': near names: .*piqa"),
        ({"what": "fig6", "models": ("nowhere",), "tasks": ""}, "unknown model 'nowhere'"),
        ({"what": "table4", "tasks": "piqa", "formats": "x"}, "unknown format set 'x'"),
    ],
)
def test_what_cannot_be_met_is_refused_before_anything_is_written(inputs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        reproduce(words(inputs, **{"what": "table4", **changes}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_had_say_which_file_to_put_where(inputs, tmp_path, monkeypatch):
    def without_hub(source, **_):
        raise UserError(f"cannot load the data set {source}")

    monkeypatch.setattr(tasks, "read_labeled", without_hub)
    message = "cannot load the data set mnli; without the hub, put the texts into a folder as mnli-train.tsv"
    with pytest.raises(UserError, match=message):
        reproduce(words(inputs, "table5", tasks="mnli"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_leaves_out_what_cannot_be_made_and_says_so(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAKERS", {name: lambda lab: None for name in module._MAKERS})
    noted = []
    monkeypatch.setattr(module, "write", lambda found, folder: None)
    monkeypatch.setattr(module, "_note", lambda lab, name, missing: noted.append(missing))
    names = reproduce(words(inputs, "all"), tmp_path)
    assert names == ["table2", "table3", "table5", "table6", "fig5", "fig6", "fig7", "fig10"]
    assert noted[0].keys() == {"table4", "fig8", "fig9"}


def test_a_folder_of_something_else_is_left_alone(inputs, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files that are not of a reproduction"):
        reproduce(words(inputs, "fig6", tasks=""), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_another_machines_results_are_refused(inputs, tmp_path):
    reproduce(words(inputs, "fig6", tasks=""), tmp_path)
    identity = tmp_path / "cells" / "identity.json"
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"threads": 99}))
    with pytest.raises(UserError, match="were made with threads 99, not"):
        reproduce(words(inputs, "fig6", tasks=""), tmp_path)


@pytest.mark.slow
def test_all_of_it_on_tiny_models(inputs, tmp_path, run):
    """Oracle: the files, one of each; nothing is measured when the same command runs again."""
    models = [save_tiny_llama(tmp_path / name) for name in ("small", "smaller", "smallest")]
    given = [word for model in models for word in ("--model", model)]
    command = ["reproduce", "all", *given, "--tasks", "sst2,piqa", "--include", inputs / "data", "--limit", "20"]
    command += ["--bias=-1:1", "--train-bias=0:1", "--steps", "2", "--window", "16", "--tokens", "64", "--out", "run"]
    code, _, err = run(*command)
    assert code == 0
    assert err.count("train ") == 3 * 4
    files = results(tmp_path / "run")
    figures = ["fig5", "fig6", "fig6-2", "fig6-3", "fig7", "fig8", "fig9", "fig10"]
    tables = ["table2", "table3", "table4", "table5", "table6"]
    expected = {f"{name}.{end}" for name in tables for end in ("md", "csv", "json")}
    expected |= {f"{name}.{end}" for name in figures for end in ("png", "svg")}
    expected |= {f"{name}.json" for name in figures if "-" not in name} | {"README.md", "index.html"}
    assert files.keys() == expected
    code, _, err = run(*command)
    assert code == 0
    assert "train " not in err
    assert "ask " not in err
    assert results(tmp_path / "run") == files


def test_tables_of_a_tensor_cores_sums_say_so(inputs, tmp_path):
    """Oracle: the scalings that were recorded; the same command without its word has other cells, and no such note."""
    pytest.importorskip("octoscale.kernels.native", reason="the C++ core was not built")
    made = {}
    for accumulate in ("", "hopper"):
        labels = Counted()
        settings = words(inputs, "table3,fig6", bias="0", seeds="0", accumulate=accumulate)
        reproduce(settings, tmp_path / "run", bars=labels)
        content = json.loads((tmp_path / "run" / "table3.json").read_text())
        made[accumulate] = labels.labels, content, json.loads((tmp_path / "run" / "fig6.json").read_text())
    labels = {name: found for name, (found, *_) in made.items()}
    assert [
        label.replace(":accumulate=hopper", "").replace(",accumulate=hopper", "") for label in labels["hopper"]
    ] == [label for label in labels[""] if " amax" in label or "cscale" in label]
    assert all("accumulate=hopper" in label for label in labels["hopper"])
    note = "FP8 products are summed as by wgmma of FP8 on an H100, as cuBLASLt 12.8 calls it."
    for table, figure in [made["hopper"][1:]]:
        assert note in table["notes"]
        assert note in figure["notes"]
    assert all(note not in content["notes"] for content in made[""][1:])
