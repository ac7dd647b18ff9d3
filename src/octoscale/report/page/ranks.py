"""How far the ranks of a training are apart: of each tensor and bin of steps, the mean scale_bias of each rank.

    ranks = Ranks()
    for rows in parts:                       as `Cells.add` has numbered them; those of a rank in any order
        ranks.add(rows)
    ranks.spread()                           tensor, bin -> the largest mean of a rank less the smallest

A row of `table` is a tensor, a bin and a rank, so there are as many times more of them as there are ranks: the bins,
which double like those of cells.py, have a width of their own. What is kept are sums, so neither the order of the parts
nor how many of them came at once changes a number.
"""

from dataclasses import dataclass, field

import polars as pl

from octoscale.report.page.cells import MOST_BINS, MOST_CELLS
from octoscale.runs.parts import RANK

#: Rows of the table, as far as wider bins make them fewer; and sums of batches that wait to be added to it.
MOST_ROWS, _MOST_WAITING = 4 * MOST_CELLS, 300_000

_KEY = ("tensor", "bin", RANK)
_TABLE = {"tensor": pl.UInt32, "bin": pl.Int64, RANK: pl.Int32, "bias": pl.Int64, "rows": pl.Int64}


@dataclass(kw_only=True)
class Ranks:
    """Sums of scale_bias, and of rows, by tensor, bin of steps and rank. A bin holds the steps from bin * width on."""

    most_bins: int = MOST_BINS
    most_rows: int = MOST_ROWS
    width: int = 1
    last_step: int = -1
    summed: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_TABLE))
    waiting: list[pl.DataFrame] = field(default_factory=list)

    @property
    def table(self) -> pl.DataFrame:
        """All that was added: tensor, bin, rank -> scale_bias and rows, summed."""
        self._take()
        return self.summed

    @property
    def count(self) -> int:
        """How many ranks have rows."""
        return self.table[RANK].n_unique()

    def add(self, rows: pl.DataFrame) -> None:
        """Sum some rows, which have the number of their `tensor`."""
        if rows.is_empty():
            return
        highest: int = rows["step"].max()  # type: ignore[assignment]
        self.last_step = max(self.last_step, highest)
        of_rows = rows.select(
            "tensor",
            bin=pl.col("step") // self.width,
            rank=pl.col(RANK).fill_null(0),
            bias=pl.col("scale_bias").cast(pl.Int64),
            rows=pl.lit(1, pl.Int64),
        )
        self.waiting.append(_summed(of_rows))
        if self._too_few_bins or sum(table.height for table in self.waiting) > _MOST_WAITING:
            self._take()

    def widened(self, width: int) -> "Ranks":
        """The same in bins of at least so many steps, a power of two."""
        table = self.table  # first: that may widen the bins
        wider = Ranks(
            most_bins=self.most_bins,
            most_rows=self.most_rows,
            width=self.width,
            last_step=self.last_step,
            summed=table,
        )
        while wider.width < width:
            wider._double()
        return wider

    def spread(self) -> pl.DataFrame:
        """tensor, bin -> spread, in their order: the largest mean scale_bias of a rank less the smallest.

        Only where there are two ranks or more to compare.
        """
        return _spread(self.table, "tensor", "bin")

    def spread_of_all_steps(self) -> pl.DataFrame:
        """The same of the means over all steps: tensor -> spread."""
        return _spread(self.table.group_by("tensor", RANK).agg(pl.col("bias", "rows").sum()), "tensor")

    def _take(self) -> None:
        """Add what waits to the table, and join neighbours until it fits."""
        if self.waiting:
            self.summed = _summed(pl.concat([self.summed, *self.waiting]))
            self.waiting = []
        while self._too_few_bins or (self.summed.height > self.most_rows and self.last_step >= self.width):
            self._double()

    @property
    def _too_few_bins(self) -> bool:
        return self.last_step // self.width >= self.most_bins

    def _double(self) -> None:
        self.width *= 2
        self.summed = _summed(self.summed.with_columns(pl.col("bin") // 2))


def _summed(table: pl.DataFrame) -> pl.DataFrame:
    return table.group_by(_KEY).agg(pl.col("bias", "rows").sum()).select(list(_TABLE))


def _spread(table: pl.DataFrame, *key: str) -> pl.DataFrame:
    mean = pl.col("bias") / pl.col("rows")
    spreads = table.group_by(key).agg(pl.len().alias("ranks"), (mean.max() - mean.min()).alias("spread"))
    return spreads.filter(pl.col("ranks") > 1).select(*key, "spread").sort(key)
