"""What can be read of a damaged run is shown, what is damaged is named. Oracle: what was damaged by hand."""

import json
import os

import pytest
from written_runs import SUMMARY, frame, row, small_run, write_run

from octoscale.report.contents import read_run
from octoscale.report.figures import of_run as figures
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import replace_part
from octoscale.system.whole_file import write_json

TRAINING = {"model": "m", "scaling": "amax", "steps": 2, "tokens": 64, "seconds": 1.0, "training_loss": 2.0}
LOSSES = [{"phase": "train", "scaling": "amax", "step": step, "loss": 2.0} for step in range(3)]
PAIR = {"weight": 3, "input": -1, "verdict": "passes", "worse": 0.1}
PAIRS = {"roles": ["weight", "input"], "what": "accuracy", "against": "bf16", "text": "", "cells": [PAIR]}
WRONG_PAIRS = (
    {"weight": 1.5},
    {"input": 10**9},
    {"input": None},
    {"verdict": "x"},
    {"worse": "x"},
    {"worse": float("inf")},
)


@pytest.fixture
def whole(tmp_path):
    made = write_run(tmp_path / "whole", small_run(), SUMMARY | {"seconds": {"amax": 1.0}})
    for measured in LOSSES:
        made.append_metrics(measured)
    return made


def test_a_whole_run_is_read_as_it_is(whole):
    contents = read_run(whole.path)
    assert contents.damaged == []
    assert contents.summary == whole.read_json(whole.summary)
    assert contents.metrics == contents.training_rows == LOSSES
    assert contents.scales.height == len(small_run())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("model", "text", "formats") for value in (1, None, [], {})),
        *((name, value) for name in ("tokens", "window", "steps") for value in ("1", -1, 1.5, True, 10**30, None)),
        *((name, value) for name in ("perplexity", "seconds") for value in ("x", None, [1], True)),
        *(("validation_loss", value) for value in (1.0, {}, {"before": 1.0}, {"before": "x", "after": 1.0})),
        *(("failures", value) for value in ("x", ["amax"], {"amax": 1})),
        *(("cscale_range", value) for value in ("x", {}, {"text": 1})),
        *(
            ("bias_map", PAIRS | wrong)
            for wrong in ({"text": 1}, {"cells": 1}, {"roles": 3}, {"what": "x"}, {"against": 1})
        ),
        *(("bias_map", PAIRS | {"cells": [PAIR | wrong]}) for wrong in WRONG_PAIRS),
    ],
)
def test_a_field_that_is_damaged_is_left_out_and_named(name, value, whole):
    whole.summary.write_text(json.dumps(SUMMARY | {name: value}))
    contents = read_run(whole.path)
    assert name not in contents.summary
    (line,) = contents.damaged
    assert f"summary.json: {name} is " in line


@pytest.mark.parametrize("value", ["17", 0, -1.0, True, [], {"x": 1}, 10**30, float("nan"), float("inf")])
@pytest.mark.parametrize("scaling", ["bf16", "cscale:-1", "cscale:x", "cscale:99999"])
def test_a_score_that_is_damaged_leaves_the_others(scaling, value, whole):
    rule, _, bias = scaling.partition(":")
    scores = SUMMARY["perplexity"] | (
        {"cscale": SUMMARY["perplexity"]["cscale"] | {bias: value}} if bias else {rule: value}
    )
    whole.summary.write_text(json.dumps(SUMMARY | {"perplexity": scores}))
    contents = read_run(whole.path)
    (line,) = contents.damaged
    assert f"perplexity: {scaling} is " in line
    assert contents.summary["perplexity"]["amax"] == 18.0
    assert contents.summary["perplexity"]["cscale"]["0"] == 17.9


@pytest.mark.parametrize(
    "wrong",
    [
        *({"layer": layer} for layer in (-1, 2**31 - 1)),
        *({"kind": "x", "layer": 0}, {"role": "x"}, {"format": "x"}, {"step": -1}, {"step": 2**62}),
        *({"numel": -1}, {"saturated": 101}, {"flushed": -1}, {"scale_bias": 2**31 - 1}, {"amax": None}),
        *({"exponents": [1]}, {"exponents": [None] * 256}, {"scaling": "cscale:" + "9" * 5000}, {"phase": None}),
    ],
    ids=str,
)
def test_a_row_that_no_cast_wrote_is_left_out(wrong, whole):
    replace_part(whole.scales / "part-000001.parquet", frame(row(**wrong)))
    contents = read_run(whole.path)
    assert contents.scales.height == len(small_run())
    (line,) = contents.damaged
    assert "1 of 31 rows hold what no cast can see" in line


@pytest.mark.parametrize(
    "line", ["x", "7", "null", '{"phase": "train", "step": "1"}', '{"phase": "train"}', "[" * 100000]
)
def test_a_line_that_is_no_measurement_is_left_out(line, whole):
    whole.metrics.write_text(line + "\n" + whole.metrics.read_text() + '{"cut sho')
    contents = read_run(whole.path)
    assert contents.metrics == LOSSES
    assert contents.damaged == [f"{whole.metrics}: line 1 is no measurement"]


def no_file(path, kind):
    path.unlink()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path.name)}[kind]()


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "scales/part-000000.parquet"])
def test_what_is_no_file_is_named_and_never_waited_for(name, kind, whole):
    no_file(whole.path / name, kind)
    (line,) = read_run(whole.path).damaged
    assert name in line


def test_the_report_shows_the_rest_and_names_what_is_damaged(whole, run):
    whole.summary.write_text(json.dumps(SUMMARY | {"tokens": "\x1b[2J"}))
    code, out, err = run("report", whole.path)
    assert code == 0
    assert "17.5000" in out
    assert err == f"octoscale: damaged, and left out: {whole.summary}: tokens is '\\x1b[2J'\n"
    printed = json.loads(run("report", whole.path, "--json")[1])
    assert len(printed["damaged"]) == 1
    with pytest.warns(UserWarning, match="left out: .*tokens is"):
        figures.draw(whole.path)


def test_a_run_of_which_nothing_can_be_read_is_an_error(tmp_path, run):
    made = write_run(tmp_path / "lost")
    made.header.write_text("{")
    code, out, err = run("report", made.path)
    assert (code, out) == (2, "")
    assert err.startswith(f"octoscale: error: nothing of {made.path} can be read: {made.header} is damaged")


def test_a_figure_that_fails_comes_after_the_table(whole, run, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "clipping_figure", full)
    code, out, err = run("report", whole.path)
    assert code == 2
    assert "17.5000" in out
    assert f" figures: {whole.path}" in out
    assert err.startswith("octoscale: error: the figure clipping could not be drawn: ")
    printed = json.loads(run("report", whole.path, "--json")[1])
    assert printed["perplexity"]["bf16"] == 17.5
    assert list(printed["not_drawn"]) == ["clipping"]
    monkeypatch.setattr(figures, "clipping_figure", lambda *_, **__: 1 / 0)
    code, out, err = run("report", whole.path)
    assert code == 1
    assert "17.5000" in out
    assert "ZeroDivisionError" in err


def test_trainings_are_compared_without_those_that_cannot_be_read(tmp_path, run):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        made = RunFolder.create(path, {"plan": {"scaling": path.name}})
        write_json(made.summary, TRAINING | {"validation_loss": {"before": 3.0, "after": 2.0}})
        for measured in LOSSES:
            made.append_metrics(measured)
    (paths[1] / "metrics.jsonl").write_text("x\n")
    (paths[2] / "summary.json").write_text("{")
    code, out, err = run("report", *paths)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["a", "c"]
    assert err.count("damaged, and left out") == 2


def test_names_with_dollars_are_no_formulas(tmp_path):
    name = "$\\frac$ a $\\x$"
    rows = [row(scaling=name, exponents=small_run()[0]["exponents"]) | {"module": name}]
    made = write_run(tmp_path / "run", rows, SUMMARY | {"model": name, "perplexity": {name: 1.0, "cscale": {"1": 2.0}}})
    assert len(figures.draw(made.path)) == 4
