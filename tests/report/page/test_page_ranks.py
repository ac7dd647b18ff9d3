"""How far ranks are apart. Oracle: polars over all rows at once, as they lie in the run's folder."""

import base64
import random
import zlib

import numpy as np
import polars as pl
import pytest
from stepped_runs import PLAN, rows_of
from written_runs import frame, row

from octoscale.report.page import scales as page_scales
from octoscale.report.page.cells import Cells
from octoscale.report.page.columns import TYPES
from octoscale.report.page.folder import RunReader
from octoscale.report.page.ranks import Ranks
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import write_part
from octoscale.runs.scales import read_scales


def some_rows(num_ranks=3, num_steps=100, modules=("a", "b"), micro_batches=2):
    """Scales at random; of module b, rank 0 has the even steps only, and no other rank any step from 90 on."""
    draw = random.Random(0)
    return [
        row(step=step, module=module, rank=rank, scale_bias=draw.randint(-9, 9))
        for step in range(num_steps)
        for module in modules
        for rank in range(num_ranks)
        for _ in range(micro_batches)
        if module == "a" or (step % 2 == 0 if rank == 0 else step < 90)
    ]


def expected(rows, width):
    """(module, bin) -> spread, of all rows at once."""
    of_ranks = rows.group_by("module", pl.col("step") // width, "rank").agg(pl.col("scale_bias").mean().alias("mean"))
    spreads = of_ranks.group_by("module", "step").agg(pl.len(), spread=pl.col("mean").max() - pl.col("mean").min())
    return {(each["module"], each["step"]): each["spread"] for each in spreads.iter_rows(named=True) if each["len"] > 1}


def summed(rows, batch, **words):
    cells, ranks = Cells(), Ranks(**words)
    for start in range(0, len(rows), batch):
        ranks.add(cells.add(frame(*rows[start : start + batch])))
    return cells, ranks


def spreads(cells, ranks):
    table = ranks.spread().join(cells.tensors.select("tensor", "module"), on="tensor")
    return {(each["module"], each["bin"]): each["spread"] for each in table.iter_rows(named=True)}


@pytest.mark.parametrize("batch", [37, 10_000])
@pytest.mark.parametrize(("words", "width"), [({}, 1), ({"most_bins": 99}, 2), ({"most_rows": 120}, 8)])
def test_the_spread_is_that_of_the_means_of_the_ranks(batch, words, width):
    rows = some_rows()
    cells, ranks = summed(rows, batch, **words)
    wanted = expected(frame(*rows), width)
    found = spreads(cells, ranks)
    assert (ranks.count, ranks.width) == (3, width)
    assert found == pytest.approx(wanted)
    assert ("a", 0) in found
    assert (("b", 98) in found) is False  # there, rank 0 is alone
    assert ranks.table.height <= words.get("most_rows", 10_000)


def test_parts_of_the_ranks_one_after_the_other_give_the_same_as_all_at_once():
    rows = some_rows()
    by_rank = sorted(rows, key=lambda each: (-each["rank"], each["step"]))
    mixed = random.Random(1).sample(rows, len(rows))
    (one, ranks), *others = (summed(each, 50, most_rows=500) for each in (rows, by_rank, mixed))
    wanted = spreads(one, ranks)
    for cells, other in others:
        assert spreads(cells, other) == wanted  # to the last bit: sums of whole numbers
        assert (other.width, ranks.width) == (2, 2)


def test_bins_that_become_wider_when_the_page_asks_for_them_have_that_width():
    rows = some_rows()
    _, ranks = summed(rows, 10_000, most_rows=120)
    assert ranks.widened(1).width == 8


def test_wider_bins_for_a_page_leave_the_run_its_own():
    rows = some_rows()
    cells, ranks = summed(rows, 100)
    wider = ranks.widened(16)
    assert spreads(cells, wider) == pytest.approx(expected(frame(*rows), 16))
    assert (wider.width, ranks.width, ranks.widened(1).width) == (16, 1, 1)
    assert spreads(cells, ranks) == pytest.approx(expected(frame(*rows), 1))


def test_over_all_steps_it_is_the_same_in_any_bins():
    rows = some_rows()
    cells, ranks = summed(rows, 100)
    wanted = {name: spread for (name, _), spread in expected(frame(*rows), 1000).items()}
    for each in (ranks, ranks.widened(32)):
        table = each.spread_of_all_steps().join(cells.tensors, on="tensor")
        assert dict(table.select("module", "spread").iter_rows()) == pytest.approx(wanted)


def unpacked(column):
    """What columns.py packed, as decode.js unpacks it."""
    kind = np.dtype(TYPES[column["type"]])
    values = np.frombuffer(zlib.decompress(base64.b64decode(column["data"])), dtype=kind)
    if "row" in column:
        values = np.cumsum(values.reshape(-1, column["row"]), axis=1, dtype=kind).reshape(-1)
    return values.astype(np.float64)


@pytest.mark.parametrize(("most_exact", "error"), [(60_000, 1e-6), (0, 0.5 / page_scales.SPREAD_STEPS)])
def test_the_page_holds_what_the_records_say_however_they_came(most_exact, error, tmp_path, monkeypatch):
    """A run that grows rank by rank, read after each part; a second reader comes when all is there."""
    monkeypatch.setattr(page_scales, "EXACT_CELLS", most_exact)
    run = RunFolder.create(tmp_path / "run", {"plan": PLAN})
    live, draw = RunReader.open(run.path), random.Random(2)
    for start in (0, 7):
        for rank in (2, 0, 1):
            steps = [rows_of(step, rank=rank) for step in range(start, start + 7)]
            part = [each | {"scale_bias": draw.randint(-9, 9)} for rows in steps for each in rows]
            write_part(run.scales, frame(*part), rank)
            live.refresh()
    shown, at_once = (reader.to_json("run", 1)["scales"] for reader in (live, RunReader.open(run.path)))
    rows = read_scales(run.path)
    names = ["module", "role"]
    key = pl.concat_str(names, separator=" ").alias("module")
    wanted = expected(rows.with_columns(key), 1)
    for scales in (shown, at_once):
        tensors, ranks = scales["tensors"], scales["ranks"]
        texts = [[tensors[name]["texts"][int(at)] for at in unpacked(tensors[name]["places"])] for name in names]
        values = unpacked(ranks["spread"]).reshape(12, 14) / ranks["steps"]
        found = {
            (" ".join(each), step): values[at, step]
            for at, each in enumerate(zip(*texts, strict=True))
            for step in range(14)
        }
        assert found == pytest.approx(wanted, abs=error)
        assert (ranks["count"], ranks["width"], ranks["exact"]) == (3, 1, bool(most_exact))
        of_all = {" ".join(each): spread for *each, spread in zip(*texts, unpacked(ranks["of_all_steps"]), strict=True)}
        assert of_all == pytest.approx(
            {name: value for (name, _), value in expected(rows.with_columns(key), 99).items()}
        )


def test_a_run_of_one_rank_has_nothing_to_compare(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"plan": PLAN})
    write_part(run.scales, frame(*rows_of(0), *rows_of(0)))  # two micro-batches
    assert RunReader.open(run.path).to_json("run", 1)["scales"]["ranks"] is None
