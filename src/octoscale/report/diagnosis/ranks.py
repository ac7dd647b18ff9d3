"""Ranks of a distributed training that disagree.

Each rank sees inputs and gradients of its own, and may hold a part of a weight only; but the scale of a weight is one.
Of several scales of a weight the lowest and the highest are compared.
"""

from collections.abc import Iterator

import polars as pl

from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.tensors import Group
from octoscale.runs.scale_bias import HIGHEST


def ranks_disagree(group: Group) -> Iterator[Finding]:
    """A weight that has another scale on another rank, in the same step."""
    weights = group.rows.filter(pl.col("role") == "weight")
    band = pl.struct("scale_bias", high=HIGHEST)
    scales = weights.group_by("module", "step", maintain_order=True).agg(
        at=pl.col("at").min(),
        ranks=pl.col("rank").sort(),
        biases=pl.col("scale_bias").sort_by("rank"),
        highest=HIGHEST.sort_by("rank"),
        different=band.n_unique(),
    )
    apart = scales.filter(pl.col("different") > 1).group_by("module", maintain_order=True)
    for row in apart.agg(pl.all().first(), steps=pl.len()).sort("step", "at").iter_rows(named=True):
        by_rank = dict(zip(row["ranks"], row["biases"], strict=True))
        ends = zip(row["ranks"], row["biases"], row["highest"], strict=True)
        told = [f"{low if low == high else f'{low} to {high}'} on rank {rank}" for rank, low, high in ends]
        yield Finding(
            rule="ranks_disagree",
            severity="error",
            module=row["module"],
            role="weight",
            step=row["step"],
            evidence=f"scale_bias is {', '.join(told[:8])}; so in {count(row['steps'], 'step')}",
            numbers={"by_rank": {str(rank): bias for rank, bias in by_rank.items()}, "steps": row["steps"]},
            remedy="give all ranks one model and one seed, as octoscale train under torchrun does",
        )
