"""Sweeps. Oracles: a sweep of every bias, and one that nothing stopped."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from checkpoints import byte_tokenizer, contents, note
from models import tiny_llama
from stopping import stopped_after

from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import read_scales
from octoscale.validation import kept
from octoscale.validation.run import run_validation
from octoscale.validation.run_sweep import run_sweep
from octoscale.validation.settings import Sweep, Validation


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model whose weights are large enough that FP8 can break it, a text, and questions."""
    folder = tmp_path_factory.mktemp("inputs")
    model = tiny_llama(vocab_size=256, bos_token_id=None, eos_token_id=None, max_position_embeddings=64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter *= 8
    model.save_pretrained(folder / "llama")
    byte_tokenizer().save_pretrained(folder / "llama")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 30)
    lines = [json.dumps({"query": f"{word} is", "choices": ["it", "not"], "gold": len(word) % 2}) for word in WORDS]
    (folder / "task.jsonl").write_text("\n".join(lines))
    return folder


WORDS = [f"word{'x' * n}" for n in range(8)]


def sweep(inputs, **changes):
    words = {"bias": "-14:14", "tokens": 256, "window": 32, "dtype": "fp32", **changes}
    return Sweep(model=str(inputs / "llama"), text=str(inputs / "text.txt"), **words)


def summary_of(folder):
    """All of a summary but the times."""
    content = RunFolder(folder).read_json(Path(folder) / "summary.json")
    content.pop("seconds")
    return content


@pytest.fixture(scope="module")
def bisected(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bisected") / "run"
    run_sweep(sweep(inputs), folder)
    return folder


@pytest.fixture(scope="module")
def complete(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("complete") / "run"
    run_sweep(sweep(inputs, every_bias=True), folder)
    return folder


RANGE = ("low", "high", "by_estimate", "undecided", "criterion", "noise")


def test_bisection_finds_the_range_that_all_biases_show(bisected, complete):
    few, all_of_them = (summary_of(folder)["cscale_range"] for folder in (bisected, complete))
    assert {name: few[name] for name in RANGE} == {name: all_of_them[name] for name in RANGE}
    assert few["low"] is not None
    assert (all_of_them["measured"], all_of_them["asked"]) == (29, 29)
    assert few["measured"] < 20
    counted = f". {few['measured'] + 2} evaluations: fp32, amax and {few['measured']} of 29 biases"
    assert few["text"].endswith(counted)
    assert all(few["judged"][bias] == all_of_them["judged"][bias] for bias in few["judged"])


def test_the_search_begins_where_nothing_saturates(bisected):
    rows = read_scales(bisected)
    start = json.loads(next((bisected / "cells").glob("start-*")).read_text())["value"]
    assert start == rows.filter(scaling="amax")["scale_bias"].min()
    assert rows.filter(scaling=f"cscale:{start}")["saturated"].sum() == 0


def test_the_summary_has_the_constants_in_order(bisected, complete):
    for folder in (bisected, complete):
        biases = [int(bias) for bias in summary_of(folder)["perplexity"]["cscale"]]
        assert biases == sorted(biases)


@pytest.mark.parametrize("windows", [1, 8, 9, 15, 20, 60])
def test_a_sweep_that_was_stopped_goes_on_to_the_same_summary(windows, inputs, bisected, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep(inputs), tmp_path / "run", progress=stopped_after(windows))
    done = []
    run_sweep(sweep(inputs), tmp_path / "run", go_on=True, progress=lambda name, *_: done.append(name))
    assert json.dumps(summary_of(tmp_path / "run")) == json.dumps(summary_of(bisected))
    assert len(done) == len(RunFolder(bisected).read_metrics()) - (windows - 1) // 8 * 8
    readers = (
        lambda run: read_scales(run).rows(),
        lambda run: RunFolder(run).read_metrics(),
        lambda run: RunFolder(run).notes.read_text(),
    )
    for read in readers:
        assert read(tmp_path / "run") == read(bisected)


def test_a_sweep_that_is_done_measures_nothing_again(inputs, bisected, monkeypatch):
    before = (bisected / "summary.json").read_bytes()
    monkeypatch.setattr(kept, "score_one", None)
    run_sweep(sweep(inputs), bisected, go_on=True)
    assert (bisected / "summary.json").read_bytes() == before


def test_a_sweep_goes_on_over_more_biases(inputs, tmp_path):
    run_sweep(sweep(inputs, bias="-1:1", every_bias=True), tmp_path / "run")
    done = []
    wider = sweep(inputs, bias="-2:2", every_bias=True)
    run_sweep(wider, tmp_path / "run", go_on=True, progress=lambda name, *_: done.append(name))
    assert set(done) == {"cscale:-2", "cscale:2"}
    assert list(summary_of(tmp_path / "run")["perplexity"]["cscale"]) == ["-2", "-1", "0", "1", "2"]
    assert RunFolder(tmp_path / "run").read_json(tmp_path / "run" / "run.json")["plan"]["bias"] == "-2:2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 128}, "tokens 256, not 128"),
        ({"every": 3}, "every 16, not 3"),
        ({"skip": ("down_proj",)}, r"skip \[\], not \['down_proj'\]"),
        ({"dtype": "bf16"}, "dtype fp32, not bf16"),
    ],
)
def test_a_sweep_of_something_else_is_not_gone_on_with(change, message, inputs, bisected):
    before = {path: path.read_bytes() for path in bisected.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        run_sweep(sweep(inputs, **change), bisected, go_on=True)
    assert {path: path.read_bytes() for path in bisected.rglob("*") if path.is_file()} == before


def test_a_run_that_is_there_is_refused_unless_it_is_to_be_replaced(inputs, tmp_path):
    one = sweep(inputs, bias="0", tokens=64)
    run_sweep(one, tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a run"):
        run_sweep(one, tmp_path / "run")
    run_sweep(sweep(inputs, bias="1", tokens=64), tmp_path / "run", overwrite=True)
    assert list(summary_of(tmp_path / "run")["perplexity"]["cscale"]) == ["1"]


def test_a_run_of_another_kind_is_not_gone_on_with(inputs, tmp_path):
    one = sweep(inputs, bias="0", tokens=64)
    shared = {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.name in WORDS_OF_BOTH}
    run_validation(Validation(**shared, scalings=("fp32",)), tmp_path / "run", overwrite=False)
    with pytest.raises(ValueError, match="holds a run without results to go on from"):
        run_sweep(one, tmp_path / "run", go_on=True)


WORDS_OF_BOTH = {field.name for field in dataclasses.fields(Validation)}


@pytest.mark.parametrize(
    "left", ["summary.json", "advice.json", "metrics.jsonl", "checkpoints/checkpoint-2/x", "scales/x"]
)
def test_a_run_without_cells_that_holds_anything_is_not_replaced(left, inputs, tmp_path):
    """A training that was stopped, say."""
    run = RunFolder.create(tmp_path / "run", {"plan": {}})
    note(run.path, left)
    before = contents(run.path)
    with pytest.raises(ValueError, match="holds a run without results to go on from"):
        run_sweep(sweep(inputs, bias="0", tokens=64), run.path, go_on=True)
    assert contents(run.path) == before


@pytest.mark.parametrize("left", ["nothing", "a header", "an emptied run"])
def test_going_on_with_nothing_begins(left, inputs, tmp_path):
    if left != "nothing":
        RunFolder.create(tmp_path / "run", {} if left == "an emptied run" else {"plan": {}})
    run_sweep(sweep(inputs, bias="0", tokens=64), tmp_path / "run", go_on=True)
    assert set(summary_of(tmp_path / "run")["perplexity"]) == {"fp32", "amax", "cscale"}


def test_pairs_of_biases_make_a_map(inputs, tmp_path):
    """Equal biases of both roles do what one constant does."""
    run_sweep(sweep(inputs, bias="-7,0,3", roles="weight,input"), tmp_path / "map")
    run_sweep(sweep(inputs, bias="-7,0,3", every_bias=True), tmp_path / "line")
    pairs, line = summary_of(tmp_path / "map"), summary_of(tmp_path / "line")
    cells = {(cell["weight"], cell["input"]): cell for cell in pairs["bias_map"]["cells"]}
    assert len(cells) == 9
    for bias in (-7, 0, 3):
        one = line["cscale_range"]["judged"][str(bias)]
        assert {name: cells[bias, bias][name] for name in ("verdict", "estimate", "low", "high")} == {
            name: one[name] for name in ("verdict", "estimate", "low", "high")
        }
    assert cells[-7, 3]["estimate"] != cells[3, -7]["estimate"]


def test_with_a_task_items_decide(inputs, tmp_path):
    run_sweep(sweep(inputs, tokens=32, task=inputs / "task.jsonl", bias="-14:14"), tmp_path / "run")
    found = summary_of(tmp_path / "run")["cscale_range"]
    assert found["criterion"].startswith("accuracy at least 99.5% of fp32's")
    assert found["noise"] == "95% intervals over 8 items"
    assert found["low"] is None  # so few items decide nothing
    assert "items would decide" in found["text"] or not found["undecided"]


def test_where_no_bias_passes_and_the_best_is_an_end_it_is_said(inputs, tmp_path):
    run_sweep(sweep(inputs, bias="-9:-7", tokens=64), tmp_path / "run")
    found = summary_of(tmp_path / "run")
    best = min(found["perplexity"]["cscale"].items(), key=lambda item: item[1])[0]
    assert f"the best, {best}, is an end of --bias -9:-7: look beyond it" in found["cscale_range"]["text"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"tokens": 32}, "one window has no interval.*: raise --tokens, or lower --window"),
        ({"limit": 1}, "one item has no interval.*: ask a longer task, or raise --limit"),
    ],
)
def test_one_item_is_refused_before_anything_is_written(words, message, inputs, tmp_path):
    task = {"task": inputs / "task.jsonl"} if "limit" in words else {}
    with pytest.raises(ValueError, match=message):
        run_sweep(sweep(inputs, **words, **task), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_whose_amax_is_not_finite_has_no_range(inputs, tmp_path):
    """A weight that is NaN: nothing is searched, and it is said why."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(inputs / "llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    model.save_pretrained(tmp_path / "broken")
    byte_tokenizer().save_pretrained(tmp_path / "broken")
    broken = dataclasses.replace(sweep(inputs), model=str(tmp_path / "broken"))
    run_sweep(broken, tmp_path / "run")
    found = summary_of(tmp_path / "run")
    assert found["cscale_range"]["text"].startswith("no bias passes (there is no finite perplexity of amax)")
    assert set(found["perplexity"]) == {"fp32", "amax"}
    run_sweep(dataclasses.replace(broken, roles="weight,input"), tmp_path / "map")
    found = summary_of(tmp_path / "map")
    assert found["bias_map"]["text"].startswith("no pair passes (there is no finite perplexity of amax)")
    assert set(found["perplexity"]) == {"fp32", "amax"}
