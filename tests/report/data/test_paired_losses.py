"""Differences of perplexities with their noise. Oracle: the perplexities that the library reports; Student's table."""

import math
import statistics

import pytest
import torch
from models import tiny_llama
from written_runs import write_run

from octoscale.report.contents import read_run
from octoscale.report.data.paired_losses import excesses
from octoscale.report.page.results import tables
from octoscale.report.terminal import scores_table
from octoscale.validation.scalings import validate
from octoscale.validation.scores import flatten

T_3 = 3.182446305284263  # |T| stays below it in 95 % of cases, with 3 degrees of freedom

LOSSES = {"bf16": [2.0, 2.5, 3.0, 2.1], "amax": [2.1, 2.5, 3.2, 2.2], "cscale:-8": [9.0, 9.5, 9.1, 12.0]}


def perplexities(losses=LOSSES):
    return {name: math.exp(statistics.fmean(values)) for name, values in losses.items()}


def rows(losses=LOSSES, **changes):
    return [
        {"scaling": name, "window": window, "loss": loss, **changes}
        for name, values in losses.items()
        for window, loss in enumerate(values)
    ]


def ratios(name):
    """The ratio of the perplexities to bf16's, and the ends of its interval."""
    logarithms = [after - before for before, after in zip(LOSSES["bf16"], LOSSES[name], strict=True)]
    reach = T_3 * statistics.stdev(logarithms) / 2
    ratio = perplexities()[name] / perplexities()["bf16"]
    return ratio, ratio / math.exp(reach), ratio * math.exp(reach)


def test_the_interval_is_that_of_the_means_of_paired_windows():
    found = excesses("bf16", perplexities(), rows())
    assert list(found) == ["amax", "cscale:-8"]
    for name, excess in found.items():
        assert [1 + excess.estimate, 1 + excess.low, 1 + excess.high] == pytest.approx(ratios(name))
        assert excess.windows == 4


def test_of_a_validation_the_differences_are_those_of_its_own_perplexities(tmp_path):
    windows = torch.randint(96, (5, 16), generator=torch.Generator().manual_seed(0))
    scores = validate(tiny_llama(), ["fp32", "amax", "cscale:-9"], windows=windows, folder=tmp_path / "run")
    contents = read_run(tmp_path / "run")
    found = excesses("fp32", flatten(contents.summary["perplexity"]), contents.metrics)
    base, *others = scores
    assert list(found) == [score.scaling for score in others] == ["amax", "cscale:-9"]
    for score in others:
        excess = found[score.scaling]
        assert excess.estimate == pytest.approx(score.perplexity / base.perplexity - 1, rel=1e-6, abs=1e-9)
        assert excess.low < excess.estimate < excess.high
        assert excess.windows == 5


def without(*gone):
    return [row for row in rows() if (row["scaling"], row["window"]) not in gone]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ([], []),  # an older run
        (without(("amax", 3)), ["cscale:-8"]),
        (without(("amax", 0)), ["cscale:-8"]),
        (without(("bf16", 1)), []),
        ([*rows(), {"scaling": "amax", "window": 4, "loss": statistics.fmean(LOSSES["amax"])}], ["cscale:-8"]),
        ([*rows(), {"scaling": "amax", "window": 2, "loss": 3.3}], ["cscale:-8"]),
        ([*rows(), {"scaling": "amax", "window": 2, "loss": None}], ["cscale:-8"]),
        ([*rows(), {"scaling": "cscale:-8", "window": 2, "loss": 9.1}], ["amax", "cscale:-8"]),  # the same again
        ([*rows(), {"scaling": "amax", "window": "x", "loss": 1.0}], ["amax", "cscale:-8"]),
        (rows(phase="train"), []),
    ],
)
def test_nothing_is_said_of_windows_that_are_not_those_of_the_perplexity(metrics, told):
    assert list(excesses("bf16", perplexities(), metrics)) == told


@pytest.mark.parametrize(
    "losses",
    [
        {"bf16": [2.0], "amax": [2.1]},
        {"bf16": [1.0, 2.0], "amax": [1.5, 1400.0]},  # a perplexity of 1e304, its interval beyond all doubles
    ],
)
def test_one_window_and_a_bound_that_is_no_number_give_no_interval(losses):
    assert excesses("bf16", perplexities(losses), rows(losses)) == {}


def test_a_perplexity_that_was_not_finite_has_no_interval():
    assert list(excesses("bf16", perplexities() | {"amax": None}, rows())) == ["cscale:-8"]


def written(path, metrics, perplexity):
    run = write_run(path, [], {"model": "tiny", "tokens": 64, "text": "pydoc", "perplexity": perplexity})
    for row in metrics:
        run.append_metrics(row)
    return read_run(path)


def texts(table):
    return [list(column.cells) for column in table.columns]


def test_page_and_terminal_show_the_interval_beside_the_perplexity(tmp_path):
    scores = perplexities()
    perplexity = {"amax": scores["amax"], "bf16": scores["bf16"], "cscale": {"-8": scores["cscale:-8"]}}
    contents = written(tmp_path / "run", rows(), perplexity)
    (table,) = tables(contents)
    near, low, high = (100 * (ratio - 1) for ratio in ratios("amax"))
    far = [f"x {ratio:.3g}" for ratio in ratios("cscale:-8")]
    assert table["title"] == "Perplexity over 64 tokens of pydoc; intervals of 4 paired windows"
    assert table["columns"] == ["scaling", "perplexity", "against bf16, 95 % interval"]
    assert [row[2] for row in table["rows"]] == [
        "+0.00 %",
        f"{near:+.2f} % ({low:+.2f} to {high:+.2f})",
        f"{far[0]} ({far[1]} to {far[2]})",
    ]
    shown = scores_table(contents.summary, contents.metrics)
    assert str(shown.title) == "tiny: perplexity over 64 tokens of pydoc; intervals of 4 paired windows"
    heads = [str(column.header) for column in shown.columns]
    assert heads == ["scaling", "perplexity", "against bf16", "95 % interval", "seconds"]
    names, _, against, intervals, _ = texts(shown)
    assert names == ["amax", "bf16", "cscale:-8"]
    assert against == [f"{near:+.2f}%", "+0.00%", far[0]]
    assert intervals == [f"{low:+.2f}% to {high:+.2f}%", "-", f"{far[1]} to {far[2]}"]


def test_an_older_run_is_shown_as_before(tmp_path):
    contents = written(tmp_path / "run", [], perplexities())
    (table,) = tables(contents)
    assert table["columns"] == ["scaling", "perplexity", "against bf16"]
    assert [row[2] for row in table["rows"]][:2] == ["+0.00 %", "+10.52 %"]
    assert len(scores_table(contents.summary, contents.metrics).columns) == 4
