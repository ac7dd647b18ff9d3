"""A loss scale that is applied twice, or that is another one than was asked for.

What backward begins with is noted (runs/notes.py): the loss scale. Where nothing is, because the loss is computed
outside of the model, it still shows: all gradients become larger by the same factor, and stay so, while inputs and
weights are as before. Noisy examples make gradients larger, too, but not all steps of some on end.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Any

import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding
from octoscale.report.diagnosis.tensors import TENSOR, Group


def loss_scale_twice(group: Group) -> Iterator[Finding]:
    """A loss scale that is not the one that was asked for, or that grew at once."""
    if "grad_output" not in group.roles:
        return
    noted = [note for note in group.noted("loss_scale") if note["value"] > 0]
    found = _scale_in_notes(group, noted) if noted else _scale_in_rows(group)
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
    for place, note in enumerate(noted):
        value, step = note["value"], note["step"]
        log = math.log2(value)
        if asked is not None and asked >= 2**limits.SCALE_JUMP and log >= 1.75 * math.log2(asked):
            numbers = {"loss_scale": value, "asked": asked}
            return (
                step,
                f"backward began with {value:g}, but the loss scale is {asked:g}: {_times(value, asked)}",
                numbers,
            )
        if place > 0 and (before := _before_jump(group, noted, place)) is not None:
            numbers = {"loss_scale": value, "before": before}
            grew = f"backward began with {value:g}, and until then with {before:g}"
            return step, f"{grew}: {_times(value, before)}", numbers
        if place == 0 and asked is None and log >= limits.FIRST_SCALE:
            usual = f"a loss scale to begin with is 2^16 at most; {math.sqrt(value):g} applied twice would give this"
            return step, f"backward began with {value:g}: {usual}", {"loss_scale": value}
    return None


def _before_jump(group: Group, noted: list[dict[str, Any]], place: int) -> float | None:
    """What backward began with until this note, if it is a jump that lasts; None if it is none.

    A loss that is divided by the number of micro-batches, or of their tokens, jumps where these are few, and back.
    """
    value, step = noted[place]["value"], noted[place]["step"]
    num_steps = len(group.all_steps) - bisect_left(group.all_steps, step)
    if value < noted[place - 1]["value"] * 2**limits.SCALE_JUMP or num_steps < limits.LASTING:
        return None
    before = 0.0
    for note in (noted[index] for index in range(place - 1, -1, -1)):
        before = max(before, note["value"])
        if note["step"] <= step - limits.LASTING:
            break
    since = takewhile(lambda note: note["step"] < step + limits.LASTING, islice(noted, place, None))
    return before if min(note["value"] for note in since) >= before * 2**limits.SCALE_JUMP else None


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
    """The step from which all gradients are larger than in any of the last few, without inputs or weights being so."""
    logs = group.steps.filter(pl.col("overshoot").is_not_null()).with_columns(
        log=pl.col("amax").cast(pl.Float64).log(2)
    )
    usual = pl.col("log").shift(1).rolling_median(limits.GRADIENT_STEPS, min_samples=limits.LASTING).over(TENSOR)
    grown = logs.with_columns(by=pl.col("log") - usual)
    level = grown.group_by("step", "role").agg(by=pl.col("by").median(), level=pl.col("log").median())
    steps = level.pivot(on="role", index="step", values=["by", "level"]).sort("step")
    if not {"by_grad_output", "by_input"} <= set(steps.columns):
        return None
    rows = steps.drop_nulls(["level_grad_output", "level_input"]).to_dicts()
    levels = [row["level_grad_output"] for row in rows]
    for place, row in enumerate(rows):
        factor = row["by_grad_output"]
        others = [abs(row[name] or 0.0) for name in ("by_input", "by_weight") if name in row]
        if factor is None or factor < limits.SCALE_JUMP or max(others) > 1 or not _is_apart(levels, place):
            continue
        near = (pl.col("by") - factor).abs() <= limits.ALIKE_BINADES
        of_step = grown.filter((pl.col("step") == row["step"]) & (pl.col("role") == "grad_output"))
        alike = of_step.filter(near).height / of_step.height
        if alike >= limits.ALIKE_SHARE:
            words = f"all gradients grew by about 2^{factor:.0f} from a step to the next, and stayed so; inputs did not"
            return row["step"], words, {"binades": factor, "alike": alike}
    return None


def _is_apart(levels: list[float], place: int) -> bool:
    """Whether all levels of some steps from `place` on lie above all of some steps before it."""
    before = levels[max(0, place - limits.GRADIENT_STEPS) : place]
    since = levels[place : place + limits.GRADIENT_STEPS]
    return len(since) == limits.GRADIENT_STEPS and min(since) - max(before) >= limits.SCALE_JUMP / 2
