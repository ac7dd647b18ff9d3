"""An outlier that grows: the largest value of one tensor leaves those of its siblings behind, step by step.

What a SwiGLU's product or an attention's output does before a training breaks. Siblings are the same layer at other
depths; without them, layers of the same kind, or all. All tensors of a model grow in a training, and alike: so what
counts is the distance to the siblings' median, in binades, at the end of the run against its beginning.
"""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding
from octoscale.report.diagnosis.remedies import FROM_CHECKPOINT, keep_out
from octoscale.report.diagnosis.tensors import TENSOR, Group


def outlier_growth(group: Group) -> Iterator[Finding]:
    """An input, or a weight, that outgrew its siblings."""
    usable = group.steps.filter(pl.col("overshoot").is_not_null() & (pl.col("role") != "grad_output"))
    logs = usable.with_columns(log=pl.col("amax").cast(pl.Float64).log(2))
    found = []
    for name in _candidates(logs):
        tensor = logs.filter((pl.col("module") == name[0]) & (pl.col("role") == name[1]))
        excess = _excess(logs, tensor)
        grown = _growth(excess["excess"].to_list())
        if grown is not None:
            begun, binades = grown
            found.append((excess.row(begun, named=True), binades, tensor))
    for row, binades, tensor in sorted(found, key=lambda each: (each[0]["step"], each[0]["place"])):
        yield _finding(row, binades, tensor)


def _candidates(logs: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Tensors that grew at all, by enough to be looked at more closely."""
    grown = pl.col("log").tail(limits.GROWTH_ENDS).median() - pl.col("log").head(limits.GROWTH_ENDS).median()
    tensors = logs.group_by(TENSOR, maintain_order=True).agg(grown=grown, steps=pl.len())
    enough = (pl.col("grown") >= limits.GROWTH) & (pl.col("steps") >= limits.GROWTH_STEPS)
    return tensors.filter(enough).select(*TENSOR).rows()


def _excess(logs: pl.DataFrame, tensor: pl.DataFrame) -> pl.DataFrame:
    """The steps of a tensor, with how far it lies above its siblings in each."""
    first = tensor.row(0, named=True)
    others = logs.filter((pl.col("role") == first["role"]) & (pl.col("module") != first["module"]))
    for key in ("template", "kind", "role"):
        siblings = others.filter(pl.col(key) == first[key])
        if not siblings.is_empty():
            break
    middle = siblings.group_by("step").agg(middle=pl.col("log").median())
    return tensor.join(middle, on="step").with_columns(excess=pl.col("log") - pl.col("middle")).sort("step")


def _growth(excess: Sequence[float]) -> tuple[int, float] | None:
    """Where growth began, and how many binades it came to; None if there was none worth a word."""
    if len(excess) < limits.GROWTH_STEPS:
        return None
    width = max(limits.GROWTH_ENDS, len(excess) // limits.GROWTH_PART)
    base = median(excess[:width])
    binades = median(excess[-width:]) - base
    if binades < limits.GROWTH:
        return None
    return _begun(np.asarray(excess)), binades


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


def _finding(row: dict[str, Any], binades: float, tensor: pl.DataFrame) -> Finding:
    first, last = tensor.row(0, named=True), tensor.row(-1, named=True)
    return Finding(
        rule="outlier_growth",
        severity="warning",
        module=row["module"],
        role=row["role"],
        step=row["step"],
        evidence=f"the largest magnitude went from {first['amax']:.3g} at step {first['step']} to {last['amax']:.3g} "
        f"at step {last['step']}, and outgrew that of its siblings by {binades:.1f} binades",
        numbers={"first_amax": first["amax"], "last_amax": last["amax"], "binades": binades, "last_step": last["step"]},
        remedy=f"a new run, from a checkpoint or the beginning, with a smaller --learning-rate, more --weight-decay: "
        f"{FROM_CHECKPOINT}; or with a recipe that says {keep_out(row['module'])}",
    )
