"""What the documents say of measurements is what docs/results holds. Oracle: its files, and the script of the docs."""

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from octoscale.paper.write import markdown
from octoscale.report.data.paired_losses import excesses

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
FOLDERS = sorted(path for path in RESULTS.iterdir() if path.is_dir())
FILES = sorted(path for path in RESULTS.rglob("*") if path.suffix in {".json", ".md", ".csv", ".html", ".toml"})


@pytest.fixture
def make(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.delitem(sys.modules, "make", raising=False)
    import make

    return make


@pytest.mark.parametrize("name", ["README.md", "docs/speed.md", "docs/results/README.md", "docs/PARITY.md"])
def test_the_blocks_of_a_document_are_what_the_files_say(make, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- made:" in text
    assert make.with_blocks(text) == text


def test_the_marks_of_the_documents_are_those_that_the_script_knows(make):
    """In each document, each of its marks once, with its end; no block is made that none shows."""
    for name, blocks in make.DOCUMENTS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        marks = re.findall(r"^<!-- (made: (\w+), by .*|end) -->$", text, re.MULTILINE)
        assert [block or mark for mark, block in marks] == [word for block in blocks for word in (block, "end")]
        assert text.count("<!-- made:") == len(blocks)
    assert {block for blocks in make.DOCUMENTS.values() for block in blocks} == make.MAKERS.keys()


def test_each_bench_that_was_measured_is_shown_and_each_ratio_is_there(make):
    measured = {path.stem: json.loads(path.read_text("utf-8"))["ratios"] for path in (RESULTS / "bench").glob("*.json")}
    assert measured.keys() <= {name for *_, name, _, _ in make.SPEEDS}
    for _, _, name, key, _ in make.SPEEDS:
        assert name not in measured or measured[name][key] is not None


def test_fp8_costs_no_more_as_work_grows():
    """What docs/MANY_RANKS.md and the LOG say of it: of the largest layer no more than of the smallest, of two ranks
    than of one; within what turns differ by."""
    path = RESULTS / "bench" / "growth.json"
    if not path.is_file():
        pytest.skip("it is not measured yet")
    report = json.loads(path.read_text("utf-8"))
    ratios = [report["ratios"][f"time_over_bf16, {what}"] for what in report["seconds"]]
    spread = [report["quartiles of the turns' ratios"][what] for what in report["seconds"]]
    assert list(report["seconds"]) == [f"a layer of gpt-{size}" for size in ("111m", "590m", "1.3b")] + [
        "1 rank",
        "2 ranks",
    ]
    assert ratios[2] <= max(ratios[0], spread[0]["upper"])
    assert ratios[4] <= max(ratios[3], spread[3]["upper"])


def test_the_picture_of_growth_is_beside_its_numbers(make, tmp_path):
    """Drawn with what the command prints, where it is; nothing is drawn where it is not."""
    assert make.draw_growth(tmp_path) == []
    names = [*(f"a layer of gpt-{size}" for size in ("111m", "590m", "1.3b")), "1 rank", "2 ranks"]
    report = {
        "what": "a decoder layer",
        "machine": {"cpu": "a CPU", "threads": 2},
        "ratios": {f"time_over_bf16, {name}": 1.0 for name in names},
        "quartiles of the turns' ratios": {name: {"lower": 0.9, "upper": 1.1} for name in names},
    }
    (tmp_path / "growth.json").write_text(json.dumps(report))
    assert make.draw_growth(tmp_path) == [tmp_path / "growth.png", tmp_path / "growth.svg"]
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_is_taken_without_its_measurements(make, tmp_path, monkeypatch):
    """Oracle: the folder that it was made of, here put back beside what was left out of it."""
    run = tmp_path / "run"
    shutil.copytree(RESULTS / "llama", run)
    (run / "cells").mkdir()
    (run / "cells" / "one.json").write_text("{}")
    (run / ".octoscale.lock").touch()
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(make, "RESULTS", tmp_path / "results")
    make.take("llama", run)
    taken, kept = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "results" / "llama", RESULTS / "llama")
    )
    assert taken == kept


def test_a_number_that_was_changed_by_hand_is_seen(make):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- made: demo.*?<!-- end -->", text, re.DOTALL)
    assert block is not None
    digit = re.search(r"\d\.\d", block[0])
    assert digit is not None
    other = block[0].replace(digit[0], digit[0].replace(".", ".9"), 1)
    assert make.with_blocks(text.replace(block[0], other)) == text


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_each_result_says_its_command_machine_versions_and_date(folder):
    made, run = folder / "made.json", folder / "run.json"
    if made.exists():
        entries = json.loads(made.read_text(encoding="utf-8"))
        entries.pop("left_out", None)  # of a reproduction
        command = "octoscale arena " if (folder / "arena.json").exists() else "octoscale reproduce "
        for entry in entries.values():
            assert entry["command"].startswith(command)
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
            assert {"cpu", "reason", "threads", "octoscale", "torch", "transformers"} <= entry["machine"].keys()
    elif run.exists():
        header = json.loads(run.read_text(encoding="utf-8"))
        assert {"command", "started", "versions", "cpu", "reason", "threads"} <= header.keys()
    else:
        reports = [json.loads(path.read_text(encoding="utf-8"))["machine"] for path in folder.glob("*.json")]
        assert reports
        assert all({"cpu", "reason", "threads", "octoscale", "torch", "date"} <= machine.keys() for machine in reports)


@pytest.mark.parametrize(
    "path", sorted(RESULTS.rglob("table*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_table_in_markdown_is_that_of_its_json(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == markdown(content)
    assert markdown(content).replace("### ", "## ", 1) in (path.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RESULTS)))
def test_no_result_names_a_place_of_the_machine_that_measured_it(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|mnt|opt)\b", text) == []


def failed():
    """The words on what failed, or contradicts the paper, on one line."""
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    return " ".join(text.partition("## What failed")[2].partition("\n## ")[0].split())


def test_what_is_said_of_figure_6_follows_from_its_numbers():
    (panel,) = json.loads((RESULTS / "llama" / "fig6.json").read_text(encoding="utf-8"))["panels"]
    modes = {role: {s["kind"]: s["mode"] for s in panel["series"] if s["role"] == role} for role in ("input", "weight")}
    layers = [dict(zip(modes["input"], values, strict=True)) for values in zip(*modes["input"].values(), strict=True)]
    text = failed()
    for kind, least_or_most, words in (
        ("ffn_out", min, "`ffn_out` is lowest in all {} layers (in {} of them with another kind)"),
        ("ffn_in", max, "`ffn_in` is highest in {} (in {} with another)"),
    ):
        there = [layer for layer in layers if layer[kind] == least_or_most(layer.values())]
        shared = [layer for layer in there if Counter(layer.values())[layer[kind]] > 1]
        assert words.format(len(there), len(shared)) in text
    spans = {kind: (min(values), max(values)) for kind, values in modes["input"].items()}
    assert "the activations' modes go from {} to {}".format(*_span(modes["input"])) in text
    assert "varies most, from {} to {}".format(*spans["ffn_out"]) in text
    assert max(spans, key=lambda kind: spans[kind][1] - spans[kind][0]) == "ffn_out"
    assert (
        "`attn_out` goes from {} to {}, `attn_qkv` from {} to {}".format(*spans["attn_out"], *spans["attn_qkv"]) in text
    )
    assert "weights are higher and narrower: {} to {},".format(*_span(modes["weight"])) in text
    means = {kind: sum(values) / len(values) for kind, values in modes["weight"].items()}
    assert min(means, key=lambda kind: means[kind]) != "attn_qkv"
    assert sum(means.values()) / len(means) > sum(map(sum, modes["input"].values())) / sum(map(len, layers))


def _span(modes):
    values = [value for of_kind in modes.values() for value in of_kind]
    return min(values), max(values)


def test_what_is_said_of_tables_and_figure_5_follows_from_their_numbers():
    text = failed()
    for row in json.loads((RESULTS / "llama" / "table4.json").read_text(encoding="utf-8"))["rows"]:
        assert f"{row['ratio']:.2f} %" in text
        assert row["low"] < -0.005 * row["high"] < row["high_end"]
    for panel in json.loads((RESULTS / "ranges" / "fig5.json").read_text(encoding="utf-8"))["panels"]:
        high, amax = panel["lines"]
        mark, points = 0.995 * high["score"], {point["bias"]: point for point in panel["points"]}
        task = {"piqa": "PIQA", "arc_easy": "ARC-Easy"}[panel["task"]]
        above = {bias: point for bias, point in points.items() if point["score"] > amax["score"]}
        scores = ", ".join(f"{point['score']:.2f}" for point in above.values())
        assert f"({amax['score']:.2f})" in text
        assert f"{_listed(above)} ({scores})" in text
        assert all(point["low"] <= amax["high"] and amax["low"] <= point["high"] for point in above.values())
        assert (
            f"{task} {'passes ' if task == 'PIQA' else ''}at "
            + _listed(bias for bias, point in points.items() if point["score"] >= mark)
            in text
        )
        assert _listed(bias for bias, point in points.items() if point["high"] < mark) in text
        assert not any(point["low"] >= mark for point in points.values())


def test_what_is_said_of_finer_scales_follows_from_their_numbers():
    rows = json.loads((RESULTS / "arena" / "arena.json").read_text(encoding="utf-8"))["rows"]
    gaps = {row["scaling"]: row["gap"] for row in rows if row["gap"] is not None}
    finer = [gaps[name] for name in ("amax:row", "amax:block", "amax:mx,round=up")]
    one = f"lose {min(finer):.1f} to {max(finer):.1f} % of perplexity, as one scale a tensor does ({gaps['amax']:.1f})"
    assert one in failed()
    assert f"as the OCP standard has it, loses {gaps['amax:mx']:.1f} %" in failed()


def test_what_is_said_of_the_trained_arenas_follows_from_their_numbers():
    tuned, scratch = (
        [row for row in json.loads((RESULTS / name / "arena.json").read_text(encoding="utf-8"))["rows"] if row["gap"]]
        for name in ("arena-tuned", "arena-scratch")
    )
    better = [-row["gap"] for row in tuned]
    assert all(row["verdict"] == "better than bf16" for row in tuned)
    assert f"better than bf16**, by {min(better):.3f} to {max(better):.3f} nats" in failed()
    assert all(row["verdict"].startswith("cannot be told") for row in scratch)
    gaps, widest = [row["gap"] for row in scratch], max((row["high"] - row["low"]) / 2 for row in scratch)
    said = f"gaps of {min(gaps):.3f} to {max(gaps):.3f} nats, intervals of up to {widest:.2f} on either side"
    assert said in failed()


def test_what_is_said_of_the_gpt_follows_from_its_numbers():
    rows = json.loads((RESULTS / "gpt" / "table2.json").read_text(encoding="utf-8"))["rows"]
    scores = {task: [row["high"] for row in rows if row["task"] == task] for task in ("sst2", "mnli")}
    spans = [
        f"{min(found):.0f} to {max(found):.0f} % on {name}"
        for found, name in zip(scores.values(), ("SST-2", "MNLI"), strict=True)
    ]
    assert " and ".join(spans) in failed()


def _listed(biases):
    *first, last = map(str, biases)
    return f"{', '.join(first)} and {last}"


def test_what_is_said_of_sums_follows_from_their_numbers():
    """Of docs/PARITY.md: errors at a length, in the words of its list."""
    text = " ".join((ROOT / "docs" / "PARITY.md").read_text(encoding="utf-8").split())
    found = json.loads((RESULTS / "parity" / "parity.json").read_text(encoding="utf-8"))
    families = {family["operands"]: family for family in found["lengths"]}
    ways = ("hopper", "hopper, promoted")

    def at(family, length, sums="hopper", what="error"):
        place, series = families[family]["lengths"].index(length), families[family]["series"]
        values = families[family][sums] if sums == "casts" else next(row for row in series if row["sums"] == sums)[what]
        return f"{100 * values[place]:.3g}"

    for family, words in (("normal", "wrong by {} %, and by {} % at most"), ("uniform", "by {} %, and {} % at most")):
        assert words.format(at(family, 4096), at(family, 4096, what="largest")) in text
    shifted, centered, last = "attention, V of mean 1", "attention", 16384
    assert f"wrong by {at(shifted, last)} % over a context of 16,384" in text
    assert f"casts to FP8 cost {float(at(shifted, last, 'casts')):.2g} %" in text
    assert f"V of mean 0 by {at(centered, last)} %, beside {at(centered, last, 'casts')} % for the casts" in text
    shares = {way: [row["of_casts"][way] for row in found["layers"] if row["result"] == "output"] for way in ways}
    worst = max(found["layers"], key=lambda row: row["of_casts"]["hopper"])
    assert worst["module"] == "model.layers.9.mlp.down_proj"
    middle, most = (100 * pick(shares["hopper"]) for pick in (median, max))
    assert f"by {middle:.3g} % of the casts' error in the median layer, and by {most:.3g} % in the worst" in text
    assert f"promoted, by {100 * max(shares['hopper, promoted']):.3g} % at most" in text
    lines = (RESULTS / "parity" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    scores = json.loads((RESULTS / "parity" / "summary.json").read_text(encoding="utf-8"))["perplexity"]
    pair = excesses("amax", scores, [json.loads(line) for line in lines])["amax:accumulate=hopper"]
    said = f"difference is {pair.estimate:+.2%}, with an interval of {pair.low:+.2%} to {pair.high:+.2%}"
    assert said.replace("%", " %") in text
    normal, uniform, zero, one = (at(family, last, "hopper, promoted") for family in families)
    assert f"{normal} % (normal), {uniform} % (uniform), {zero} % and {one} % (P V) at 16,384" in text
