"""The scales of a run as the page has them: its tensors, and columns over tensors x bins of steps.

    scales = Scales()
    scales.add(rows)                          of each part, once
    scales.narrowed(most_cells).to_json()

All columns are dense: the value of tensor t in bin b stands at t * len(bins) + b, and a bin in which a tensor has no
row says so by `rows` 0. Few cells are exact, and few histograms; many are rounded to what a screen shows (columns.py),
and `exact` says which.
"""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.numerics.formats import FORMATS
from octoscale.report.page.cells import MOST_CELLS, Cells
from octoscale.report.page.columns import AMAX_STEPS, pack, pack_logarithms, pack_shares
from octoscale.report.page.ranks import Ranks
from octoscale.report.page.waterfall import MOST_OF_RUN, Waterfall
from octoscale.runs.parts import GRANULARITY

#: With at most so many cells, each number is the one that was recorded.
EXACT_CELLS = 60_000

#: Where there are more, a spread over ranks is told in so many steps from one scale_bias to the next.
SPREAD_STEPS = 64

_COUNTS = ("saturated", "flushed", "nonfinite")


class Scales:
    """The rows of a run, summed as they come."""

    def __init__(
        self, cells: Cells | None = None, waterfall: Waterfall | None = None, ranks: Ranks | None = None
    ) -> None:
        self.cells, self.waterfall, self.ranks = cells or Cells(), waterfall or Waterfall(), ranks or Ranks()

    def add(self, rows: pl.DataFrame) -> None:
        """Add some rows."""
        numbered = self.cells.add(rows)
        self.waterfall.add(numbered)
        self.ranks.add(numbered)

    def narrowed(self, most_cells: int = MOST_CELLS) -> "Scales":
        """The same with at most so many cells, and as many histograms as belong to them."""
        most_columns = MOST_OF_RUN * most_cells // MOST_CELLS
        cells = self.cells.narrowed(most_cells)
        return Scales(cells, self.waterfall.narrowed(most_columns), self.ranks.widened(cells.width))

    def to_json(self) -> dict[str, Any]:
        """What the page shows of them."""
        cells = self.cells
        return {
            "records": cells.num_rows,
            "last_step": cells.last_step,
            "groups": _groups(cells.tensors),
            "tensors": _tensors(cells),
            "cells": _cells(cells),
            "ranks": _ranks(self.ranks, cells.tensors.height),
            "waterfall": _waterfall(self.waterfall, has_several=_has_several(cells)),
            "formats": {name: _reach(name) for name in sorted(set(cells.tensors["format"]))},
        }


def _groups(tensors: pl.DataFrame) -> list[dict[str, str]]:
    """The phases and scalings, in the order in which they were met."""
    return tensors.select("phase", "scaling").unique(maintain_order=True).to_dicts()


def _tensors(cells: Cells) -> dict[str, Any]:
    """Each tensor's names, as places in lists of them, and what it reached over all steps."""
    tensors, totals = cells.tensors, cells.totals()
    groups = {(each["phase"], each["scaling"]): place for place, each in enumerate(_groups(tensors))}
    of_group = [groups[pair] for pair in tensors.select("phase", "scaling").iter_rows()]
    named = {name: _coded(tensors[name]) for name in ("module", "kind", "role", "format", GRANULARITY)}
    layers = tensors["layer"].fill_null(-1).to_numpy()
    numbers = {
        name: pack(totals[name].fill_null(-1).to_numpy(), "f64")
        for name in ("rows", "numel", *_COUNTS, *(f"{count}_from" for count in _COUNTS))
    }
    extremes = {name: pack(totals[name].to_numpy(), "f64") for name in _EXTREMES}
    extremes |= {name: pack(totals[name].fill_null(0).to_numpy(), "f64") for name in ("scales_low", "scales_high")}
    return {**named, "group": pack(np.array(of_group), "i32"), "layer": pack(layers, "i32"), **numbers, **extremes}


_EXTREMES = ("bias_low", "top", "amax_low", "amax_high")


def _coded(names: pl.Series) -> dict[str, Any]:
    """A column of texts that repeat."""
    texts = names.unique(maintain_order=True).to_list()
    places = {text: place for place, text in enumerate(texts)}
    return {"texts": texts, "places": pack(np.array([places[name] for name in names], dtype=np.int32), "i32")}


def _cells(cells: Cells) -> dict[str, Any]:
    """The columns over tensors x bins."""
    table, bins = cells.table, np.sort(cells.table["bin"].unique().to_numpy())
    shape = (cells.tensors.height, len(bins))
    place = table["tensor"].to_numpy().astype(np.int64) * len(bins) + np.searchsorted(bins, table["bin"].to_numpy())

    def dense(values: NDArray[Any], missing: float) -> NDArray[Any]:
        whole = np.full(shape[0] * shape[1], missing, dtype=np.float64)
        whole[place] = values
        return whole

    row, exact = len(bins), shape[0] * shape[1] <= EXACT_CELLS
    low, high = (dense(table[name].to_numpy(), 0) for name in ("bias_low", "bias_high"))
    columns = {"rows": pack(dense(table["rows"].to_numpy(), 0), "i32", row)}
    columns |= {"bias": pack(low, "i16", row), "bias_spread": pack(high - low, "i16")}
    if _has_several(cells):
        columns["band"] = pack(dense(table["top"].to_numpy(), 0) - low, "i16")
    amax = [dense(table[name].to_numpy(), np.nan) for name in ("amax_low", "amax_high")]
    for name, values in zip(("amax_low", "amax"), amax, strict=True):
        columns[name] = pack(values, "f32") if exact else pack_logarithms(values, row)
    lift, steps = dense(_lift(table), 0), 1 if exact else AMAX_STEPS
    columns["lift"] = pack(lift, "f32") if exact else pack(np.minimum(np.round(steps * lift), 2**16 - 1), "u16", row)
    for name in _COUNTS:
        numel = np.maximum(table["numel"].to_numpy(), 1)
        share = dense(table[name].to_numpy() / numel, 0)
        columns[name] = pack(share, "f32") if exact else pack_shares(share, octave=8)
    of_all = {"width": cells.width, "bins": (bins * cells.width).tolist(), "exact": exact, "lift_steps": steps}
    return of_all | columns


def _has_several(cells: Cells) -> bool:
    """Whether any tensor has several scales: else the page has no columns of them."""
    return cells.table["scales_high"].null_count() < cells.table.height


def _ranks(ranks: Ranks, num_tensors: int) -> dict[str, Any] | None:
    """How far the ranks are apart, over tensors x bins of their own; None if there is one rank. -1: nothing to compare.

    of_all_steps: of each tensor. Many cells are rounded to 1/SPREAD_STEPS.
    """
    if ranks.count < 2:
        return None
    spread, of_all = ranks.spread(), np.full(num_tensors, -1.0)
    bins = np.sort(ranks.table["bin"].unique().to_numpy())
    whole = np.full((num_tensors, len(bins)), -1.0)
    whole[spread["tensor"].to_numpy(), np.searchsorted(bins, spread["bin"].to_numpy())] = spread["spread"].to_numpy()
    total = ranks.spread_of_all_steps()
    of_all[total["tensor"].to_numpy()] = total["spread"].to_numpy()
    exact = whole.size <= EXACT_CELLS
    steps = 1 if exact else SPREAD_STEPS
    packed = pack(whole, "f32") if exact else pack(np.where(whole < 0, -1, np.round(steps * whole)), "i32", len(bins))
    return {
        "count": ranks.count,
        "width": ranks.width,
        "bins": (bins * ranks.width).tolist(),
        "exact": exact,
        "steps": steps,
        "spread": packed,
        "of_all_steps": pack(of_all, "f64"),
    }


def _lift(table: pl.DataFrame) -> NDArray[Any]:
    """How far the worst row of a cell lies above its largest amax under its smallest scale_bias, which may be those of
    two steps: log2 of the largest amax * 2**scale_bias, less that of the two.
    """
    amax = table["amax_high"].to_numpy().astype(np.float64)
    usable = np.isfinite(amax) & (amax > 0)
    both = np.log2(amax, where=usable, out=np.zeros(amax.shape)) + table["bias_low"].to_numpy()
    reach = np.where(usable, table["reach"].to_numpy(), both)
    lift: NDArray[Any] = np.maximum(np.nan_to_num(reach - both), 0)
    return lift


def _waterfall(waterfall: Waterfall, *, has_several: bool) -> dict[str, Any]:
    """Each column: tensor, step, scale_bias, the share of zeros, and of values of each exponent from `first` on.

    has_several: whether there are tensors with several scales, whose highest is told beside scale_bias.
    """
    keys = sorted(waterfall.columns)
    columns = [waterfall.columns[key] for key in keys]
    counts = np.array([column.counts for column in columns], dtype=np.float32).reshape(-1, NUM_EXPONENT_BINS)
    used = np.flatnonzero(counts[:, 1:-1].any(axis=0)) + 1
    first, last = (int(used[0]), int(used[-1])) if used.size else (EXPONENT_OFFSET, EXPONENT_OFFSET)
    numel = np.maximum(np.array([column.numel for column in columns], dtype=np.float64), 1)
    zeros, shares = counts[:, 0] / numel, counts[:, first : last + 1] / numel.reshape(-1, 1)
    exact = shares.size <= EXACT_CELLS
    highest = np.array([column.highest for column in columns])
    return {
        "exact": exact,
        **({"highest": pack(highest, "i16")} if has_several else {}),
        "tensor": pack(np.array([tensor for tensor, _ in keys]), "i32", len(keys)),
        "step": pack(np.array([column.step for column in columns]), "f64"),
        "bias": pack(np.array([column.scale_bias for column in columns]), "i16"),
        "zeros": pack(zeros, "f32") if exact else pack_shares(zeros, octave=8),
        "first": first - EXPONENT_OFFSET,
        "count": last - first + 1,
        "shares": pack(shares, "f32") if exact else pack_shares(shares, octave=4),
    }


def _reach(name: str) -> dict[str, Any]:
    """What a format holds, as exponents of the values after scaling (report/data.py has them before)."""
    fmt = FORMATS[name]
    return {
        "max": fmt.max,
        "normal": fmt.min_normal_exponent,
        "subnormal": fmt.min_subnormal_exponent,
        "mantissa": fmt.mantissa_bits,
    }
