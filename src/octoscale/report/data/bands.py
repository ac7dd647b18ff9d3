"""Tensors that have several scales, in words: these are a band, from the lowest to the highest.

    scales_in_words(3, 9, 512, "row")           "scale_bias 3 to 9 over 512 rows"

The lowest is the scale of what holds amax, so whatever follows from amax is about that one.
"""

from collections.abc import Iterable, Iterator

import polars as pl

from octoscale.numerics.granularity import GRANULARITIES, MX_SIZE, TENSOR
from octoscale.runs.scale_bias import HIGHEST

#: What has a scale of its own under a granularity: one of it, and many.
GROUPS = {
    TENSOR.name: ("tensor", "tensors"),
    "row": ("row", "rows"),
    "block": ("block", "blocks"),
    "mx": (f"group of {MX_SIZE}", f"groups of {MX_SIZE}"),
}


def granularities_of(rows: pl.DataFrame) -> list[str]:
    """The granularities of the rows whose tensors have several scales, the coarsest first; nothing without such."""
    found = set(rows.filter(pl.col("num_scales").is_not_null())["granularity"])
    return [name for name in GRANULARITIES if name in found]


def each_of(granularities: Iterable[str]) -> str:
    """What has a scale of its own, in words: "each row", "each block or row"."""
    return f"each {' or '.join(GROUPS[name][0] for name in granularities)}"


def scales_in_words(low: int, high: int, num_scales: int | None, granularity: str) -> str:
    """The scale_bias of a tensor, or how far its scales reach and what has them. num_scales: None for one a tensor."""
    if num_scales is None:
        return f"scale_bias {low}"
    reach = f"{low} to {high}" if high > low else f"{low}"
    return f"scale_bias {reach} over {num_scales:,} {GROUPS[granularity][num_scales != 1]}"


def whose(role: str) -> str:
    """Which tensor of a module a role is, in words."""
    return {"weight": "its weight", "input": "its input", "grad_output": "its gradient"}[role]


def bands_in_words(rows: pl.DataFrame) -> Iterator[str]:
    """Of each scaling that gives a tensor several scales: what has one, and how far they lie apart in one record."""
    several = rows.filter(pl.col("num_scales") > 1)
    widths = several.with_columns(width=HIGHEST - pl.col("scale_bias"))
    for scaling in widths["scaling"].unique(maintain_order=True).to_list():
        of = widths.filter(scaling=scaling)
        widest = of.sort("width", descending=True, maintain_order=True).row(0, named=True)
        where = f"{widest['module']}, {whose(widest['role'])}, step {widest['step']:,}"
        yield (
            f"{scaling}: a scale for {each_of(granularities_of(of))} of a tensor; they lie "
            f"{_median(of['width'])} binades apart in the median record, {widest['width']} at most ({where})"
        )


def _median(widths: pl.Series) -> int:
    """The lower one of the two in the middle."""
    return int(widths.quantile(0.5, "lower") or 0)
