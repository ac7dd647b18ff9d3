"""What is asked of the histograms of exponents without looking into them again: they are most of the bytes of a run.

    abridged(rows)          the rows with, in place of `exponents`:
        zeros               how many values were zero
        histogram           a hash: equal histograms have equal ones
        has_values          whether any value was finite and not zero; False without a histogram

`zeros` and `histogram` are null where none was recorded.
"""

import polars as pl

from octoscale.kernels.base import NUM_EXPONENT_BINS

_ROWS_AT_A_TIME = 20_000


def has_exponents(rows: pl.DataFrame) -> bool:
    """Whether the rows have their histograms, and are not abridged."""
    return "exponents" in rows.columns


def abridged(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows without their histograms; those that have none, as they are.

    Some rows at a time, for what is looked at is copied.
    """
    if not has_exponents(rows):
        return rows
    bins = pl.col("exponents")
    asked = {
        "zeros": bins.list.get(0, null_on_oob=True),
        "histogram": pl.when(bins.is_not_null()).then(bins.hash()),
        "has_values": _HAS_VALUES,
    }
    some = [part.select(**asked) for part in rows.iter_slices(_ROWS_AT_A_TIME)] or [rows.select(**asked)]
    return rows.drop("exponents").hstack(pl.concat(some))


_HAS_VALUES = pl.col("exponents").list.slice(1, NUM_EXPONENT_BINS - 2).list.max().fill_null(0) > 0


def with_histograms(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose histogram was recorded and holds a value other than zero."""
    return rows.filter(_HAS_VALUES if has_exponents(rows) else pl.col("has_values"))
