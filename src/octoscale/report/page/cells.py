"""What a screen can show of millions of rows: a cell for each tensor and each bin of steps, in one pass.

    cells = Cells()
    for rows in parts:                       any number of rows, in any order
        cells.add(rows)
    cells.tensors, cells.table, cells.width

Rows are never held: each batch is summed into bins of `width` steps, a power of two. When the steps outgrow the bins,
two neighbours become one, and the width doubles; so time is linear in the rows, memory in the cells, and the last bin
is as narrow as the first. What is noted of a bin survives that: sums, smallest and largest values, first steps.
"""

from dataclasses import dataclass, field

import polars as pl

from octoscale.runs.parts import GRANULARITY
from octoscale.runs.scale_bias import HIGHEST, REACH

#: Sums of batches wait until there are so many, for adding them to all cells costs as much as there are cells.
_MOST_WAITING = 300_000

#: What a tensor is, beside its step; its layer, kind and format come along.
KEY = ("phase", "scaling", "module", "role")
ALONG = ("layer", "kind", "format", GRANULARITY)

#: Bins in which the steps of a run are shown, and cells of all its tensors together.
MOST_BINS, MOST_CELLS = 512, 340_000

_TENSORS = {
    **dict.fromkeys(KEY, pl.String),
    "layer": pl.Int32,
    "kind": pl.String,
    "format": pl.String,
    GRANULARITY: pl.String,
    "tensor": pl.UInt32,
}
_SUMS = ("rows", "numel", "saturated", "flushed", "nonfinite")
_LOWEST = ("bias_low", "amax_low", "saturated_from", "flushed_from", "nonfinite_from", "scales_low")
_HIGHEST = ("bias_high", "top", "scales_high", "amax_high", "reach")
_CELLS = {
    "tensor": pl.UInt32,
    "bin": pl.Int64,
    **dict.fromkeys(_SUMS, pl.Int64),
    **{name: pl.Float32 if name == "amax_low" else pl.Int64 for name in _LOWEST},
    **dict.fromkeys(("bias_high", "top", "scales_high"), pl.Int64),
    "amax_high": pl.Float32,
    "reach": pl.Float64,
}


@dataclass(kw_only=True)
class Cells:
    """Sums and extremes of a run's rows by tensor and bin of steps.

    tensors: a row for each, numbered by `tensor` in the order in which they were met. table: tensor, bin -> how many
    rows; numel, saturated, flushed and nonfinite summed; the smallest and largest scale_bias and amax (infinity stands
    for one that is not finite); the largest log2(amax) + scale_bias of one row, `reach`; the first step that
    saturated, flushed, or was not finite. Of tensors with several scales, scale_bias is the lowest of a row; `top` is
    the highest of all, and scales_low and scales_high say how many a row has, null for one a tensor. A bin holds the
    steps from bin * width on. num_rows, last_step: of all rows; -1 without any.
    """

    most_bins: int = MOST_BINS
    width: int = 1
    num_rows: int = 0
    last_step: int = -1
    tensors: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_TENSORS))
    summed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_CELLS))
    waiting: list[pl.DataFrame] = field(default_factory=list)

    @property
    def table(self) -> pl.DataFrame:
        """All that was added, in the order of tensors and bins."""
        self._take()
        return self.summed

    def add(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Sum some rows into the bins; returns them with the number of their `tensor`."""
        numbered = self._numbered(rows)
        if rows.is_empty():
            return numbered
        self.num_rows += rows.height
        highest: int = rows["step"].max()  # type: ignore[assignment]
        self.last_step = max(self.last_step, highest)
        self.waiting.append(_summed(numbered.with_columns(_bin(self.width)), _OF_ROWS).select(list(_CELLS)))
        if self._too_few_bins or sum(table.height for table in self.waiting) > _MOST_WAITING:
            self._take()
        return numbered

    def _take(self) -> None:
        """Add what waits to the cells, and join neighbours until the steps fit into the bins, the cells into memory."""
        if self.waiting:
            self.summed = _summed(pl.concat([self.summed, *self.waiting]), _OF_CELLS)
            self.waiting = []
        while self._too_few_bins or (self.summed.height > 4 * MOST_CELLS and self._is_wide):
            self._double()

    @property
    def _too_few_bins(self) -> bool:
        return self.last_step // self.width >= self.most_bins

    def _numbered(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with their tensor's number; tensors that are new get the next ones."""
        met = rows.with_columns(REACH).select(*KEY, *ALONG).unique(subset=KEY, keep="first", maintain_order=True)
        new = met.join(self.tensors, on=KEY, how="anti", nulls_equal=True, maintain_order="left")
        if not new.is_empty():
            count = self.tensors.height
            numbers = pl.int_range(count, count + new.height, dtype=pl.UInt32, eager=True)
            self.tensors = pl.concat([self.tensors, new.with_columns(tensor=numbers).select(list(_TENSORS))])
        return rows.join(self.tensors.select(*KEY, "tensor"), on=KEY, how="left", maintain_order="left")

    @property
    def _is_wide(self) -> bool:
        return self.last_step >= self.width

    def _double(self) -> None:
        self.width *= 2
        self.summed = _summed(self.summed.with_columns(pl.col("bin") // 2), _OF_CELLS)

    def narrowed(self, most_cells: int = MOST_CELLS) -> "Cells":
        """The same in so few bins that a page holds them: tensors times bins that occur, at most `most_cells`."""
        table = self.table  # first: that may widen the bins
        fewer = Cells(
            most_bins=self.most_bins,
            width=self.width,
            num_rows=self.num_rows,
            last_step=self.last_step,
            tensors=self.tensors,
            summed=table,
        )
        while fewer._is_wide and fewer.tensors.height * fewer.summed["bin"].n_unique() > most_cells:
            fewer._double()
        return fewer

    def totals(self) -> pl.DataFrame:
        """One row a tensor, in their order: the columns of the table, over all steps."""
        every = _summed(self.table.with_columns(bin=pl.lit(0, pl.Int64)), _OF_CELLS)
        return self.tensors.select("tensor").join(every, on="tensor", how="left", maintain_order="left").drop("bin")


def _bin(width: int) -> pl.Expr:
    return (pl.col("step") // width).alias("bin")


def _summed(table: pl.DataFrame, columns: list[pl.Expr]) -> pl.DataFrame:
    return table.group_by("tensor", "bin").agg(columns).sort("tensor", "bin")


def _first_step(count: str) -> pl.Expr:
    return pl.col("step").filter(pl.col(count) > 0).min().alias(f"{count}_from")


#: infinity for an amax that is none: it must win every comparison, and NaN wins none.
_FINITE_AMAX = pl.when(pl.col("amax").is_finite()).then("amax").otherwise(float("inf")).cast(pl.Float32)

_OF_ROWS = [
    pl.len().cast(pl.Int64).alias("rows"),
    *(pl.col(name).sum() for name in _SUMS[1:]),
    pl.col("scale_bias").min().cast(pl.Int64).alias("bias_low"),
    pl.col("scale_bias").max().cast(pl.Int64).alias("bias_high"),
    HIGHEST.max().cast(pl.Int64).alias("top"),
    pl.col("num_scales").min().alias("scales_low"),
    pl.col("num_scales").max().alias("scales_high"),
    _FINITE_AMAX.min().alias("amax_low"),
    _FINITE_AMAX.max().alias("amax_high"),
    (_FINITE_AMAX.cast(pl.Float64).log(2) + pl.col("scale_bias")).max().alias("reach"),
    *(_first_step(count) for count in ("saturated", "flushed", "nonfinite")),
]
_OF_CELLS = [pl.col(*_SUMS).sum(), pl.col(*_LOWEST).min(), pl.col(*_HIGHEST).max()]
