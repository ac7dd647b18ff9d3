"""Cells and histograms of a run. Oracle: the same sums in plain Python, from the same rows."""

import math
import random

import numpy as np
import pytest
from written_runs import frame, histogram, row

from octoscale.report.page.cells import Cells
from octoscale.report.page.waterfall import Waterfall


def some_rows(num_steps=100, modules=("a", "b"), micro_batches=2):
    draw = random.Random(0)
    made = []
    for step in range(num_steps):
        for module in modules:
            for _ in range(micro_batches):
                counts = {name: draw.choice([0, 0, 3]) for name in ("saturated", "flushed", "nonfinite")}
                amax = draw.choice([0.0, 2.5, draw.random(), math.inf, math.nan])
                made.append(row(step=step, module=module, scale_bias=draw.randint(-9, 9), amax=amax, **counts))
    return made


def _log2(row):
    """Of the scaled amax."""
    amax = row["amax"] if math.isfinite(row["amax"]) else math.inf
    return (math.log2(amax) if amax else -math.inf) + row["scale_bias"]


def expected(rows, module, steps):
    of = [each for each in rows if each["module"] == module and each["step"] in steps]
    amax = [each["amax"] if math.isfinite(each["amax"]) else math.inf for each in of]

    def first(name):
        return min((each["step"] for each in of if each[name]), default=None)

    return {
        "rows": len(of),
        **{name: sum(each[name] for each in of) for name in ("numel", "saturated", "flushed", "nonfinite")},
        "bias_low": min(each["scale_bias"] for each in of),
        "bias_high": max(each["scale_bias"] for each in of),
        "amax_low": pytest.approx(min(amax)),
        "amax_high": pytest.approx(max(amax)),
        "reach": pytest.approx(max(_log2(each) for each in of)),
        **{f"{name}_from": first(name) for name in ("saturated", "flushed", "nonfinite")},
    }


def summed(rows, batch, most_bins):
    cells = Cells(most_bins=most_bins)
    for start in range(0, len(rows), batch):
        cells.add(frame(*rows[start : start + batch]))
    return cells


@pytest.mark.parametrize("batch", [37, 1000])
@pytest.mark.parametrize(("most_bins", "width"), [(512, 1), (100, 1), (99, 2), (16, 8), (1, 128)])
def test_a_cell_holds_the_sums_and_extremes_of_its_rows(batch, most_bins, width):
    rows = some_rows()
    cells = summed(rows, batch, most_bins)
    assert cells.width == width
    assert (cells.num_rows, cells.last_step) == (len(rows), 99)
    table = cells.table.join(cells.tensors.select("tensor", "module"), on="tensor")
    assert table.height == 2 * -(-100 // width)
    for found in table.iter_rows(named=True):
        steps = range(found["bin"] * width, (found["bin"] + 1) * width)
        wanted = expected(rows, found["module"], steps)
        assert {name: found[name] for name in wanted} == wanted


def test_batches_in_any_order_give_the_same_cells():
    rows = some_rows()
    mixed = random.Random(1).sample(rows, len(rows))
    one, other = summed(rows, 50, 16), summed(mixed, 61, 16)
    key = ["module", "bin"]
    tables = [each.table.join(each.tensors, on="tensor").sort(key).drop("tensor") for each in (one, other)]
    assert tables[0].equals(tables[1])


def test_phase_scaling_module_and_role_make_a_tensor():
    rows = [row(), row(role="weight"), row(scaling="cscale:1"), row(phase="train"), row(module="other"), row(step=5)]
    cells = summed(rows, 2, 512)
    assert cells.tensors.height == 5
    assert cells.totals()["rows"].to_list() == [2, 1, 1, 1, 1]


def test_a_page_gets_fewer_cells_of_many_tensors_and_the_run_keeps_its_own():
    rows = some_rows(64, micro_batches=1)
    cells = summed(rows, 100, 512)
    narrowed = cells.narrowed(2 * 16)
    assert (narrowed.width, narrowed.table.height) == (4, 2 * 16)
    assert (cells.width, cells.table.height) == (1, 2 * 64)
    assert narrowed.totals().equals(cells.totals())
    assert cells.narrowed(1).table.height == 2  # one bin each is the least


def test_bins_that_become_wider_when_the_page_asks_for_them_have_that_width(monkeypatch):
    monkeypatch.setattr("octoscale.report.page.cells.MOST_CELLS", 8)  # a run keeps four times as many
    rows = some_rows(64)
    narrowed = summed(rows, 10_000, 512).narrowed(1_000)
    assert (narrowed.width, narrowed.table.height) == (4, 2 * 16)


def test_a_step_beyond_all_bounds_costs_no_memory():
    cells = summed([row(step=0), row(step=2**53)], 1, 512)
    assert cells.table.height == 2
    assert 2**53 // cells.width < 512


def waterfall_of(rows, batch=1000, **words):
    cells, fall = Cells(), Waterfall(**words)
    for start in range(0, len(rows), batch):
        fall.add(cells.add(frame(*rows[start : start + batch])))
    return fall


@pytest.mark.parametrize("batch", [5, 1000])
def test_a_column_is_the_last_recorded_step_of_its_bin_its_micro_batches_summed(batch):
    rows = []
    for step in range(0, 40, 2):
        for part in range(2):
            bins = histogram({step % 5: 10 + step, 7: part + 1}, zeros=3)
            rows.append(row(step=step, scale_bias=step + part, exponents=bins))
        rows.append(row(step=step + 1))
    fall = waterfall_of(rows, batch, most_columns=10)
    assert fall.width == 4
    assert sorted(fall.columns) == [(0, bin_) for bin_ in range(10)]
    for (_, bin_), column in fall.columns.items():
        step = 4 * bin_ + 2
        assert (column.step, column.scale_bias, column.numel) == (step, step, 200)
        wanted = np.array(histogram({step % 5: 2 * (10 + step)}, zeros=6))
        wanted[127 + 7] += 3
        assert column.counts.tolist() == wanted.tolist()


def test_few_columns_are_left_where_many_tensors_share_a_page():
    rows = [row(step=step, module=name, exponents=histogram({0: step + 1})) for step in range(16) for name in "abcd"]
    fall = waterfall_of(rows)
    assert len(fall.columns) == 64
    fewer = fall.narrowed(20)
    assert sorted(fewer.columns) == [(tensor, bin_) for tensor in range(4) for bin_ in range(4)]
    assert {column.step for column in fewer.columns.values()} == {3, 7, 11, 15}
    assert len(fall.columns) == 64
