"""Infinity and NaN: the first tensor that held one, in the order in which a step runs. All that follows is its doing.

A search for a loss scale meets infinity in gradients and goes on with a smaller one: such a step is no fault.
"""

from collections.abc import Iterator
from itertools import pairwise

import polars as pl

from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.remedies import FROM_CHECKPOINT, keep_out
from octoscale.report.diagnosis.tensors import Group

_WHERE = {"weight": "the weight itself", "input": "the input", "grad_output": "the gradient that reaches the layer"}


def nonfinite(group: Group) -> Iterator[Finding]:
    """Where infinity or NaN began; without such a row, a loss that was not finite."""
    searched = (pl.col("role") == "grad_output") & pl.col("step").is_in(_searching(group))
    bad = group.rows.filter(((pl.col("nonfinite") > 0) | ~pl.col("amax").is_finite()) & ~searched).sort("at")
    if bad.is_empty():
        yield from _loss(group)
        return
    first = bad.row(0, named=True)
    module, role, step = first["module"], first["role"], first["step"]
    before = group.series(module, role).filter((pl.col("step") < step) & pl.col("overshoot").is_not_null())
    was = "" if before.is_empty() else f"; its largest magnitude was {before['amax'][-1]:.3g} before"
    tensors = bad.select("module", "role").n_unique()
    yield Finding(
        rule="nonfinite",
        severity="error",
        module=module,
        role=role,
        step=step,
        evidence=f"{_WHERE[role]} holds infinity or NaN in {first['nonfinite']:,} of {first['numel']:,} values, before "
        f"any other tensor{was}; then {count(tensors - 1, 'other tensor')} did, too",
        numbers={"nonfinite": first["nonfinite"], "numel": first["numel"], "tensors": tensors},
        remedy={
            "weight": f"a new run from the last good checkpoint, with a smaller --learning-rate: {FROM_CHECKPOINT}",
            "input": "look at what comes before this layer; to see whether FP8 is at fault, in a recipe: "
            + keep_out(module),
            "grad_output": "--loss-scale dynamic, or a smaller one",
        }[role],
    )


def _searching(group: Group) -> list[int]:
    """The steps that a search for a loss scale skipped: Trainer counts them from 1; a smaller scale follows them."""
    skipped = [row["step"] - 1 for row in group.metrics if row.get("skipped") and "step" in row]
    scales = group.noted("loss_scale")
    lowered = [now["step"] for before, now in pairwise(scales) if now["value"] < before["value"]]
    earlier = [[step for step in group.all_steps if step < low] for low in lowered]
    return skipped + [steps[-1] for steps in earlier if steps]


def _loss(group: Group) -> Iterator[Finding]:
    """The first loss that was not finite, where no tensor tells why."""
    skipped = {row.get("step") for row in group.metrics if row.get("skipped")}
    for row in group.metrics:
        if "loss" in row and row["loss"] is None and row.get("step") not in skipped:
            step = row["step"] - 1 if "step" in row else row.get("window")  # Trainer counts steps from 1
            yield Finding(
                rule="nonfinite",
                severity="error",
                module=None,
                role=None,
                step=step,
                evidence="the loss is infinity or NaN; no layer is in FP8"
                if group.rows.is_empty()
                else "the loss is infinity or NaN, but no tensor of an FP8 layer was until then: it began after the "
                "last of them, in the head or the loss",
                numbers={"loss": None},
                remedy="look at the head's weight and the labels; or a smaller --learning-rate",
            )
            return
