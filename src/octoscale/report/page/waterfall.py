"""The histograms of exponents over steps: for each tensor a column for each bin of steps, its last recorded one.

A column is one step's, with the scale_bias of that very step, so that the window of the format stands where it stood;
its micro-batches are summed. Bins are as in cells.py, but fewer: a column is 256 numbers.
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from octoscale.kernels.base import NUM_EXPONENT_BINS
from octoscale.runs.scale_bias import HIGHEST

#: Columns of one tensor, and of all of a run together.
MOST_COLUMNS, MOST_OF_RUN = 128, 81_920


@dataclass(frozen=True)
class Column:
    """One tensor's exponents at one step: counts [NUM_EXPONENT_BINS] of `numel` values, its smallest scale_bias.

    highest: the largest scale_bias, of all casts and scales. Counts are rounded to 24 bits: they are shown as shares.
    """

    step: int
    scale_bias: int
    highest: int
    numel: int
    counts: NDArray[np.float32]


@dataclass(kw_only=True)
class Waterfall:
    """The columns by tensor and bin."""

    most_columns: int = MOST_COLUMNS
    width: int = 1
    last_step: int = -1
    columns: dict[tuple[int, int], Column] = field(default_factory=dict)

    def add(self, rows: pl.DataFrame) -> None:
        """Take the histograms of some rows, which `Cells.add` has numbered."""
        rows = rows.filter(pl.col("exponents").is_not_null())
        if rows.is_empty():
            return
        highest: int = rows["step"].max()  # type: ignore[assignment]
        self.last_step = max(self.last_step, highest)
        while self._is_too_many():
            self._double()
        rows = rows.with_columns(bin=pl.col("step") // self.width)
        last = pl.col("step") == pl.col("step").max().over("tensor", "bin")
        for key, column in _columns(rows.filter(last).sort("tensor", "bin")):
            self._put(key, column)
        while self._is_too_many():
            self._double()

    def narrowed(self, most_of_run: int) -> "Waterfall":
        """The same with at most so many columns, if there are steps to leave out."""
        fewer = Waterfall(
            most_columns=self.most_columns, width=self.width, last_step=self.last_step, columns=dict(self.columns)
        )
        while fewer._is_too_many(most_of_run):
            fewer._double()
        return fewer

    def _is_too_many(self, most_of_run: int = MOST_OF_RUN) -> bool:
        beyond = self.last_step // self.width >= self.most_columns
        return beyond or (len(self.columns) > most_of_run and self.last_step >= self.width)

    def _double(self) -> None:
        self.width *= 2
        before, self.columns = self.columns, {}
        for (tensor, bin_), column in before.items():
            self._put((tensor, bin_ // 2), column)

    def _put(self, key: tuple[int, int], new: Column) -> None:
        """The later step wins; of one step, whose rows came in two parts, the sum."""
        old = self.columns.get(key)
        if old is not None and old.step == new.step:
            bias, highest = min(old.scale_bias, new.scale_bias), max(old.highest, new.highest)
            new = Column(new.step, bias, highest, old.numel + new.numel, old.counts + new.counts)
        if old is None or new.step >= old.step:
            self.columns[key] = new


def _columns(rows: pl.DataFrame) -> list[tuple[tuple[int, int], Column]]:
    """The rows of one step each, in the order of their keys, summed by key."""
    counts = rows["exponents"].explode().to_numpy().astype(np.float32).reshape(-1, NUM_EXPONENT_BINS)
    groups = rows.group_by("tensor", "bin", maintain_order=True).agg(
        pl.len().alias("rows"),
        pl.col("step").first(),
        pl.col("scale_bias").min(),
        HIGHEST.max().alias("highest"),
        pl.col("numel").sum(),
    )
    ends = groups["rows"].cum_sum().to_numpy()
    summed = np.add.reduceat(counts, np.concatenate([[0], ends[:-1]]).astype(np.intp), axis=0)
    of_groups = groups.select("tensor", "bin", "step", "scale_bias", "highest", "numel").iter_rows()
    return [
        ((tensor, bin_), Column(step, bias, highest, numel, each))
        for (tensor, bin_, step, bias, highest, numel), each in zip(of_groups, summed, strict=True)
    ]
