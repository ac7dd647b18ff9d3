"""Figures of trainings. Oracle: small tables worked out by hand; of drawing, that it is the same each time."""

import json
import math
import sys

import matplotlib
import polars as pl
import pytest

from octoscale.cli import main as cli
from octoscale.report.contents import read_run
from octoscale.report.data.training import (
    LossCurve,
    distinct_labels,
    excess_by_step,
    loss_curves,
    mean_width,
    reference_curve,
    running_mean,
    scale_bias_of_training,
)
from octoscale.report.figures import of_run as figures
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import SCHEMA
from octoscale.system.whole_file import write_json


def row(**changes) -> dict:
    usual = {"step": 0, "phase": "train", "scaling": "amax", "module": "m", "layer": 0, "kind": "attn_qkv"}
    more = {"role": "input", "format": "e4m3fn", "scale_bias": 3, "amax": 1.0, "numel": 8}
    return {**usual, **more, "saturated": 0, "flushed": 0, "nonfinite": 0, "exponents": None, **changes}


def table(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=SCHEMA)


def training(folder, losses, plan=None, scales=(), **summary) -> RunFolder:
    """A run as octoscale train leaves it."""
    plan = {"model": "tiny", "scaling": "amax", "formats": "ocp", "dtype": "bf16", "learning_rate": 0.1, **(plan or {})}
    head = {"plan": plan, "backend": "native", "reason": "a test"}
    run = RunFolder.create(folder, head)
    line = {"phase": "train", "scaling": plan["scaling"]}
    run.append_metrics({**line, "step": 0, "eval_loss": 5.0})
    for step, loss in enumerate(losses, start=1):
        run.append_metrics({**line, "step": step, "loss": loss})
    ends = {"validation_loss": {"before": 5.0, "after": losses[-1]}, "training_loss": 4.0, "seconds": 1.0, "tokens": 64}
    write_json(run.summary, {"model": "tiny", "scaling": plan["scaling"], "steps": len(losses), **ends, **summary})
    if scales:
        table(*scales).write_parquet(run.scales / "part-000000.parquet")
    return run


# The numbers


def test_the_mode_over_modules_and_micro_batches_is_drawn():
    rows = table(*[row(scale_bias=bias) for bias in (3, 4, 4)], *[row(step=1, scale_bias=bias) for bias in (7, 5)])
    assert scale_bias_of_training(rows)["mode"].to_list() == [4, 5]


@pytest.mark.parametrize(
    "changes",
    [{"amax": 0.0}, {"amax": math.inf}, {"layer": None}, {"phase": "validate"}, {"scaling": "cscale:1"}],
)
def test_what_has_no_scale_that_moves_is_left_out(changes):
    assert scale_bias_of_training(table(row(), row(step=1, **changes)))["step"].to_list() == [0]


def test_a_running_mean_begins_with_what_there_is():
    assert running_mean([4.0, 2.0, 3.0, 7.0], 2) == [4.0, 3.0, 2.5, 5.0]
    assert (mean_width(10), mean_width(1000)) == (1, 40)


@pytest.mark.parametrize("length", [0, 1, 5, 12, 50])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 12, 60])
@pytest.mark.parametrize("odd", [None, math.nan, math.inf, -math.inf])
def test_a_running_mean_is_that_of_each_window(length, width, odd):
    """Oracle: the definition; whole numbers have no rounding. A value that is not finite is in its windows alone."""
    values = [float(7 * i % 13) for i in range(length)]
    if odd is not None and length > 4:
        values[4] = odd
    windows = [values[max(0, end - width) : end] for end in range(1, length + 1)]
    expected = [math.fsum(window) / len(window) for window in windows]
    assert running_mean(values, width) == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    losses = [math.sin(i) + 3 for i in range(length)]
    expected = [math.fsum(losses[max(0, end - width) : end]) / min(end, width) for end in range(1, length + 1)]
    assert running_mean(losses, width) == pytest.approx(expected, rel=1e-14)


def test_a_running_mean_adds_a_few_times_a_value_however_wide_it_is():
    """Oracle: the additions themselves, of numbers that count them."""
    additions = []

    class Counted(float):
        def __add__(self, other):
            additions.append(other)
            return Counted(float(self) + float(other))

        __radd__ = __add__

    running_mean([Counted(i) for i in range(600)], 100)
    assert len(additions) <= 3 * 600


@pytest.mark.parametrize(
    ("plans", "labels"),
    [
        ([{"scaling": "bf16"}, {"scaling": "amax"}], ["bf16", "amax"]),
        ([{"scaling": "amax", "formats": "ocp"}, {"scaling": "amax", "formats": "fnuz"}], ["amax, ocp", "amax, fnuz"]),
        ([{"scaling": "amax", "seed": 0}, {"scaling": "amax", "seed": 1}], ["amax, seed 0", "amax, seed 1"]),
        ([{"scaling": "amax"}, {"scaling": "amax"}], ["amax (a)", "amax (b)"]),
        ([{}, {"scaling": "amax"}], ["a", "amax"]),
    ],
)
def test_labels_tell_runs_apart(plans, labels):
    assert distinct_labels(plans, ["a", "b"]) == labels


def test_losses_are_compared_with_high_precision_at_common_steps(tmp_path):
    runs = [training(tmp_path / "amax", [2.2, 3.3, 9.0]), training(tmp_path / "bf16", [2.0, 3.0], {"scaling": "bf16"})]
    curves = loss_curves([read_run(run.path) for run in runs])
    assert reference_curve(curves).label == "bf16"
    steps, above = excess_by_step(curves[0], curves[1])
    assert steps == [1, 2]
    assert above == pytest.approx([10.0, 10.0])
    assert curves[0].validation == {0: 5.0}


def test_a_loss_that_is_not_finite_and_a_skipped_step_are_kept(tmp_path):
    run = training(tmp_path / "run", [2.0, None])
    run.append_metrics({"phase": "train", "scaling": "amax", "step": 2, "skipped": True})
    curve = loss_curves([read_run(run.path)])[0]
    assert curve.losses[0] == 2.0
    assert math.isnan(curve.losses[1])
    assert curve.skipped == [2]


def test_the_reference_is_the_first_run_without_high_precision():
    first, second = (
        LossCurve(label=name, scaling=name, steps=[1], losses=[1.0], skipped=[], validation={}) for name in ("a", "b")
    )
    assert reference_curve([first, second]) is first


# The pictures


def scales():
    roles, kinds = ("weight", "input", "grad_output"), ("attn_qkv", "ffn_out")
    return [
        row(step=step, layer=layer, role=role, kind=kind, scale_bias=step % 3 + layer)
        for step in range(4)
        for layer in range(5)
        for role in roles
        for kind in kinds
    ]


@pytest.mark.skipif(
    matplotlib.__version_info__ < (3, 11), reason="matplotlib's layout differs in its last bits from time to time"
)
def test_a_training_has_its_figures_and_the_same_bytes_each_time(tmp_path):
    run = training(tmp_path / "run", [3.0, 2.0, None], scales=scales())
    first = {path: path.read_bytes() for path in figures.draw(run.path)}
    assert {"scale_bias_steps.png", "loss.png"} <= {path.name for path in first}
    assert {path: path.read_bytes() for path in figures.draw(run.path)} == first


def test_constant_scales_do_not_move(tmp_path):
    run = training(tmp_path / "run", [3.0], {"scaling": "cscale:1"}, [row(scaling="cscale:1")])
    assert "scale_bias_steps.png" not in {path.name for path in figures.draw(run.path)}


@pytest.fixture
def report(monkeypatch, capsys):
    """Run `octoscale report ARGS`: (exit code, stdout, stderr)."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["octoscale", "report", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


def test_a_report_compares_trainings(report, tmp_path):
    runs = [training(tmp_path / name, [3.0, loss], {"scaling": name}) for name, loss in (("bf16", 2.0), ("amax", 2.1))]
    code, out, _ = report(*(run.path for run in runs))
    assert code == 0
    assert "+5.00%" in out
    printed = json.loads(report("--json", *(run.path for run in runs))[1])
    assert [summary["scaling"] for summary in printed["runs"]] == ["bf16", "amax"]
    assert printed["figures"] == [str(tmp_path / "bf16" / "figures" / "losses.png")]


def test_a_report_of_one_training_prints_its_table(report, tmp_path):
    code, out, _ = report(training(tmp_path / "run", [3.0, 2.0]).path)
    assert code == 0
    assert "5.0000 before, 2.0000 after" in out


def test_a_run_that_holds_nothing_is_not_compared(report, tmp_path):
    train = training(tmp_path / "train", [3.0])
    other = RunFolder.create(tmp_path / "other", {"backend": "native", "reason": "a test"})
    code, out, err = report(train.path, other.path)
    assert (code, out) == (2, "")
    assert err == f"octoscale: error: {other.path} holds nothing to compare: no losses, no results, no scales\n"
    assert report(train.path, train.path, "--module", "m")[0] == 2
