"""An outlier that grows: the largest value of one tensor leaves those of its siblings behind, step by step.

What a SwiGLU's product or an attention's output does before a training breaks. Siblings are the same layer at other
depths; where they are few, layers of the same kind, or all: then it takes more, for a SwiGLU's product grows more than
an input behind a norm in any training. All tensors of a model grow in a training, and alike: so what counts is the
distance to the siblings' median, in binades, at the end of the run against its beginning.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding
from octoscale.report.diagnosis.remedies import FROM_CHECKPOINT, keep_out
from octoscale.report.diagnosis.tensors import TENSOR, Group


def outlier_growth(group: Group) -> Iterator[Finding]:
    """An input, or a weight, that outgrew its siblings."""
    rows = _with_excess(group)
    found = []
    for row in _grown(rows).iter_rows(named=True):
        begun = _begun(np.asarray(row["excess"]))
        found.append((row["step"][begun], row["place"][begun], row))
    for step, _, row in sorted(found, key=lambda each: each[:2]):
        yield _finding(row, step)


def _with_excess(group: Group) -> pl.DataFrame:
    """The steps of inputs and weights: how far each lies above its siblings' median, and how far that may grow."""
    rows = group.steps.filter(pl.col("overshoot").is_not_null() & (pl.col("role") != "grad_output"))
    log = pl.col("amax").cast(pl.Float64).log(2)
    middle, limit = pl.lit(None, dtype=pl.Float64), pl.lit(None, dtype=pl.Float64)
    for siblings, growth in (("template",), limits.GROWTH), (("kind",), limits.GROWTH), ((), limits.GROWTH_AMONG_ALL):
        are_enough = pl.lit(value=not siblings) | (
            pl.col("module").n_unique().over(*siblings, "role") > limits.GROWTH_SIBLINGS
        )
        median = log.quantile(0.5, "lower").over(*siblings, "role", "step")  # the tensor itself and another: the lesser
        middle = pl.coalesce(middle, pl.when(are_enough).then(median))
        limit = pl.coalesce(limit, pl.when(are_enough).then(pl.lit(growth)))
    return rows.with_columns(excess=log - middle, limit=limit)


def _grown(rows: pl.DataFrame) -> pl.DataFrame:
    """The tensors that outgrew their siblings by enough, a line each, with the values of their steps."""
    width = pl.max_horizontal(pl.lit(limits.GROWTH_ENDS), pl.len() // limits.GROWTH_PART)
    base, end = pl.col("excess").head(width).median(), pl.col("excess").tail(width).median()
    tensors = rows.group_by(TENSOR).agg(binades=end - base, least=pl.col("limit").first(), num_steps=pl.len())
    enough = (pl.col("binades") >= pl.col("least")) & (pl.col("num_steps") >= limits.GROWTH_STEPS)
    grown = rows.join(tensors.filter(enough), on=TENSOR, maintain_order="left")
    return grown.group_by(TENSOR, maintain_order=True).agg("step", "place", "amax", "excess", pl.col("binades").first())


def _begun(excess: "np.ndarray[Any, Any]") -> int:
    """The first index that is larger: where a line that is level, and then rises or steps up, fits best."""
    width = -(-len(excess) // limits.GROWTH_PLACES)
    middles = np.array([np.median(excess[start : start + width]) for start in range(0, len(excess), width)])
    place = np.arange(len(middles))
    rises = np.maximum(place - place[:, None] + 1, 0).astype(float)  # a row for each place at which it may begin
    shapes = np.concatenate([rises[1:], rises[1:] > 0]) - 0.0
    shapes -= shapes.mean(1, keepdims=True)
    explained = np.square(shapes @ (middles - middles.mean())) / np.square(shapes).sum(1)
    return int(1 + explained.argmax() % (len(middles) - 1)) * width


def _finding(row: dict[str, Any], step: int) -> Finding:
    first, last = ({"step": row["step"][end], "amax": row["amax"][end]} for end in (0, -1))
    return Finding(
        rule="outlier_growth",
        severity="warning",
        module=row["module"],
        role=row["role"],
        step=step,
        evidence=f"the largest magnitude went from {first['amax']:.3g} at step {first['step']} to {last['amax']:.3g} "
        f"at step {last['step']}, and outgrew that of its siblings by {row['binades']:.1f} binades",
        numbers={"first_amax": first["amax"], "last_amax": last["amax"]}
        | {"binades": row["binades"], "last_step": last["step"]},
        remedy="a new run, from a checkpoint or the beginning, with a smaller --learning-rate, more --weight-decay: "
        f"{FROM_CHECKPOINT}; or with a recipe that says {keep_out(row['module'])}",
    )
