"""Gradients that are zero, and gradients that all grew at once: a loss scale applied twice.

What backward begins with is noted (runs/notes.py): the loss scale, once. Where it is not, because the loss is computed
outside of the model, it still shows: all gradients grow by the same factor from one step to the next, and stay so,
while inputs and weights are as before.
"""

import math
from collections.abc import Iterator
from typing import Any

import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.tensors import TENSOR, Group, hits, template_of


def zero_gradients(group: Group) -> Iterator[Finding]:
    """A layer that no gradient reaches, or only zeros, while others get theirs."""
    if "grad_output" not in group.roles:
        return
    gradients = pl.col("role") == "grad_output"
    alive = (gradients & (pl.col("amax") > 0)).any().over("step")
    zero = gradients & (pl.col("amax") == 0) & (pl.col("numel") > 0) & alive
    begun: dict[int, str] = {}
    for hit in hits(group, zero, lasting=limits.LASTING):
        origin = begun.setdefault(hit["step"], hit["module"])
        follows = "" if origin == hit["module"] else f"; backward met zeros first at {origin}"
        yield Finding(
            rule="zero_gradients",
            severity="warning",
            module=hit["module"],
            role="grad_output",
            step=hit["step"],
            evidence=f"all {hit['numel']:,} values of its gradient are 0 in {count(hit['hit_steps'], 'step')}, those "
            f"of other layers are not{follows}",
            numbers={"numel": hit["numel"], "steps": hit["hit_steps"], "origin": origin},
            remedy=_CONNECT,
        )
    yield from _no_gradient(group)


_CONNECT = (
    "look for a detach(), a mask or a factor of zero behind this layer; or freeze it: weight.requires_grad_(False)"
)


def _no_gradient(group: Group) -> Iterator[Finding]:
    """A trained layer that ran, without a row of its gradient though its siblings have some, after a whole step."""
    if len(group.all_steps) < 2:
        return
    ran = {role: set(group.tensors.filter(role=role)["module"]) for role in ("input", "grad_output")}
    with_gradient = {template_of(module) for module in ran["grad_output"]}
    for note in group.noted("modules")[-1:]:
        trained = [name for name in note["fp8"] if name not in set(note["frozen"])]
        for module in reversed([name for name in trained if name in ran["input"] - ran["grad_output"]]):
            if template_of(module) in with_gradient:
                yield Finding(
                    rule="zero_gradients",
                    severity="warning",
                    module=module,
                    role="grad_output",
                    step=group.all_steps[0],
                    evidence="the layer ran and its weight wants a gradient, but none reached it in "
                    f"{count(len(group.all_steps), 'step')}; its siblings got theirs",
                    numbers={"steps": len(group.all_steps)},
                    remedy=_CONNECT,
                )


def loss_scale_twice(group: Group) -> Iterator[Finding]:
    """A loss scale that is not the one that was asked for, or that grew at once."""
    if "grad_output" not in group.roles:
        return
    noted = [note for note in group.noted("loss_scale") if note["value"] > 0]
    found = _scale_in_notes(group, noted) or _scale_in_rows(group)
    if found is None:
        return
    step, evidence, numbers = found
    of_step = group.rows.filter((pl.col("role") == "grad_output") & (pl.col("step") >= step)).sort("step", "at")
    yield Finding(
        rule="loss_scale_twice",
        severity="error",
        module=None if of_step.is_empty() else of_step["module"][0],
        role="grad_output",
        step=step,
        evidence=evidence,
        numbers=numbers,
        remedy="multiply the loss once: --loss-scale, GradScaler.scale(loss), or by hand, and divide by as much before "
        "optimizer.step()",
    )


Found = tuple[int, str, dict[str, Any]]


def _scale_in_notes(group: Group, noted: list[dict[str, Any]]) -> Found | None:
    """What backward began with, against what was asked for, what it began with before, and what is usual."""
    asked = _asked(group)
    for before, note in zip([None, *noted], noted, strict=False):
        value, step = note["value"], note["step"]
        log = math.log2(value)
        if asked is not None and asked >= 2**limits.SCALE_JUMP and log >= 1.75 * math.log2(asked):
            numbers = {"loss_scale": value, "asked": asked}
            return (
                step,
                f"backward began with {value:g}, but the loss scale is {asked:g}: {_times(value, asked)}",
                numbers,
            )
        if before is not None and log - math.log2(before["value"]) >= limits.SCALE_JUMP:
            numbers = {"loss_scale": value, "before": before["value"]}
            grew = f"backward began with {value:g}, and until then with {before['value']:g}"
            return step, f"{grew}: {_times(value, before['value'])}", numbers
        if before is None and asked is None and log >= limits.FIRST_SCALE:
            usual = f"a loss scale to begin with is 2^16 at most; {math.sqrt(value):g} applied twice would give this"
            return step, f"backward began with {value:g}: {usual}", {"loss_scale": value}
    return None


def _asked(group: Group) -> float | None:
    """The loss scale that the run was told, or that its optimizer knew."""
    logged = [row["loss_scale"] for row in group.metrics if isinstance(row.get("loss_scale"), int | float)]
    try:
        told = float(str(group.plan.get("loss_scale")))
    except ValueError:
        told = float(logged[0]) if logged else math.nan
    return told if 0 < told < math.inf else None


def _times(value: float, single: float) -> str:
    """Two scales against each other."""
    is_square = abs(math.log2(value) - 2 * math.log2(single)) <= 1 and single > 1
    return f"{value / single:g} times as much" + (", as if it was applied twice" if is_square else "")


def _scale_in_rows(group: Group) -> Found | None:
    """The step at which all gradients grew by about one factor, and stayed so, without inputs or weights growing."""
    logs = group.steps.filter(pl.col("overshoot").is_not_null()).with_columns(
        log=pl.col("amax").cast(pl.Float64).log(2)
    )
    grown = logs.with_columns(by=pl.col("log") - pl.col("log").shift(1).over(TENSOR)).filter(pl.col("by").is_not_null())
    level = grown.group_by("step", "role").agg(by=pl.col("by").median(), level=pl.col("log").median())
    steps = level.pivot(on="role", index="step", values=["by", "level"]).sort("step")
    if not {"by_grad_output", "by_input"} <= set(steps.columns):
        return None
    rows = steps.drop_nulls(["by_grad_output", "by_input"]).to_dicts()
    for place, row in enumerate(rows):
        factor = row["by_grad_output"]
        others = [abs(row[name] or 0.0) for name in ("by_input", "by_weight") if name in row]
        if factor < limits.SCALE_JUMP or max(others) > 1:
            continue
        later = [each["level_grad_output"] for each in rows[place : place + limits.LASTING]]
        base = row["level_grad_output"] - factor
        near = (pl.col("by") - factor).abs() <= limits.ALIKE_BINADES
        of_step = grown.filter((pl.col("step") == row["step"]) & (pl.col("role") == "grad_output"))
        alike = of_step.filter(near).height / of_step.height
        if min(later) - base >= limits.SCALE_JUMP / 2 and alike >= limits.ALIKE_SHARE:
            words = f"all gradients grew by about 2^{factor:.0f} from a step to the next, and stayed so; inputs did not"
            return row["step"], words, {"binades": factor, "alike": alike}
    return None
