"""Tensors that are cast twice: more often in a step than their siblings, or after they were FP8 already.

What went through FP8 once lies on its grid: at most 4 significant bits, where bfloat16 has 8 and float32 24. A row
holds the largest magnitude exactly. That one of them lies on the grid is an accident, that all of a dozen do is none.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.tensors import TENSOR, Group, hits, is_routed

#: Significant bits of e4m3's values; e5m2's have 3.
GRID_BITS = 4

_REMEDY = "convert a model once, and give its layers values that no other code has quantized: octoscale.revert(model)"


def cast_twice(group: Group) -> Iterator[Finding]:
    """A layer that is called more often than its siblings, or that gets values on FP8's grid."""
    yield from _more_often(group)
    yield from _on_grid(group)


def _more_often(group: Group) -> Iterator[Finding]:
    """Twice and more the casts of a step that siblings have, or other layers of its kind if it has none.

    Experts are no measure, and have none: a router calls them in as many micro-batches as it likes.
    """
    routed = [name for name in group.tensors["module"].unique() if is_routed(name)]
    casts, others = pl.when(~pl.col("module").is_in(routed)).then(pl.col("casts")), []
    for key in ("template", "kind"):
        of = (key, "role", "step")
        others.append((casts.sum().over(of) - casts) / (casts.count().over(of) - 1))
    usual = pl.coalesce(*(pl.when(other.is_finite()).then(other) for other in others))
    for hit in hits(group, casts >= 2 * usual, lasting=limits.LASTING):
        yield Finding(
            rule="cast_twice",
            severity="warning",
            module=hit["module"],
            role=hit["role"],
            step=hit["step"],
            evidence=f"it was cast {hit['casts']} times in a step, more often than that of its siblings, in "
            f"{count(hit['hit_steps'], 'step')}",
            numbers={"casts": hit["casts"], "steps": hit["hit_steps"]},
            remedy="call the layer once a forward pass; a weight that is written to in between is cast again",
        )


def _on_grid(group: Group) -> Iterator[Finding]:
    """Tensors all of whose largest magnitudes have few significant bits, since some step, while others' have more."""
    rows = group.rows.filter(pl.col("slack").is_not_null()).sort("at")
    bits = pl.lit(pl.Series("bits", _significant_bits(rows["amax"].to_numpy()), dtype=pl.Int64))
    tensors = rows.select(*TENSOR, "amax", "step", bits).group_by(TENSOR, maintain_order=True)
    by_tensor = tensors.agg("amax", "step", "bits", usual=pl.col("bits").median(), last=pl.col("bits").last())
    for row in by_tensor.filter(pl.col("last") <= GRID_BITS).iter_rows(named=True):
        others = by_tensor.filter((pl.col("role") == row["role"]) & (pl.col("usual") > GRID_BITS))["usual"]
        chance = 1.0 if others.is_empty() else 2.0 ** (GRID_BITS - sorted(others.to_list())[len(others) // 2])
        start = max((index + 1 for index, value in enumerate(row["bits"]) if value > GRID_BITS), default=0)
        values = len(set(row["amax"][start:]))
        if values >= limits.GRID_VALUES and chance**values <= limits.ACCIDENT:
            yield _finding(row, start, values)


def _significant_bits(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """How many bits of each value's mantissa there are before its trailing zeros, 1 to 24; values are not zero."""
    mantissa = np.frexp(values)[0]
    whole = (mantissa * 2.0**24).astype(np.int64)
    lowest: np.ndarray[Any, Any] = np.frexp((whole & -whole).astype(np.float64))[1]
    return 25 - lowest


def _finding(row: dict[str, Any], start: int, values: int) -> Finding:
    return Finding(
        rule="cast_twice",
        severity="warning",
        module=row["module"],
        role=row["role"],
        step=row["step"][start],
        evidence=f"all {values} different largest magnitudes since then have 4 significant bits or fewer, as "
        f"{row['amax'][-1]:g}: the values were in FP8 before they were cast",
        numbers={"values": values, "last_amax": row["amax"][-1]},
        remedy=_REMEDY,
    )
