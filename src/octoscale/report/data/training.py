"""The numbers that the figures of trainings show: scales and losses by step, and what tells runs apart. No drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import polars as pl

from octoscale.report.contents import RunContents
from octoscale.report.data.validation import REFERENCES, adapts
from octoscale.runs.scale_bias import bands_by_step, scale_bias_by_step
from octoscale.system.errors import UserError

#: What may tell two runs apart beside the scaling, in this order.
_FIELDS = (
    "model",
    "formats",
    "dtype",
    "loss_scale",
    "learning_rate",
    "seed",
    "text",
    "task",
    "steps",
    "batch",
    "window",
)


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """The losses of one training: after which steps, NaN where not finite; the steps that were skipped."""

    label: str
    scaling: str
    steps: Sequence[int]
    losses: Sequence[float]
    skipped: Sequence[int]
    validation: dict[int, float]

    @property
    def mean(self) -> list[float]:
        """The running mean that the figure draws."""
        return running_mean(self.losses, mean_width(len(self.losses)))


def scale_bias_of_training(rows: pl.DataFrame) -> pl.DataFrame:
    """role, kind, layer, step -> mode of scale_bias, of the roles whose scale adapts, in training."""
    return scale_bias_by_step(_adaptive(rows))


def bands_of_training(rows: pl.DataFrame) -> pl.DataFrame:
    """role, kind, layer, step -> low, high of all scales, of the same, where tensors have several."""
    return bands_by_step(_adaptive(rows))


def _adaptive(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of a training whose scale adapts."""
    seen = rows.select("scaling", "role").unique().rows()
    adaptive = [scaling + role for scaling, role in seen if adapts(scaling, role)]
    in_training = (pl.col("phase") == "train") & (pl.col("scaling") + pl.col("role")).is_in(adaptive)
    return rows.filter(in_training)


def loss_curves(runs: Sequence[RunContents]) -> list[LossCurve]:
    """The curves of some runs, each with a label of its own. ValueError for a run that logged no loss."""
    plans = [run.header.get("plan", {}) for run in runs]
    labels = distinct_labels(plans, [run.path.name for run in runs])
    return [_curve(run, label) for run, label in zip(runs, labels, strict=True)]


def has_losses(run: RunContents) -> bool:
    """Whether a run is a training that logged a loss."""
    return any("loss" in row for row in run.training_rows)


def distinct_labels(plans: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The scaling of each run, and as much of its plan as tells them apart; at last the name of its folder."""
    labels = [str(plan.get("scaling", name)) for plan, name in zip(plans, names, strict=True)]
    for field in _FIELDS:
        values = [plan.get(field) for plan in plans]
        if _has_twins(labels) and len(set(map(str, values))) > 1:
            shown = [f"{value}" if isinstance(value, str) else f"{field} {value}" for value in values]
            labels = [f"{label}, {value}" for label, value in zip(labels, shown, strict=True)]
    if _has_twins(labels):
        labels = [f"{label} ({name})" for label, name in zip(labels, names, strict=True)]
    return labels


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the `width - 1` before it, or as many as there are.

    Blocks of `width` values are summed from their beginning and from their end, and a window is an end of one and the
    beginning of the next: some additions a value, whatever the width. Nothing is subtracted, so that NaN and infinity
    are in the windows that hold them and in no other.
    """
    beginnings: list[float] = []
    ends: list[float] = []
    for start in range(0, len(values), width):
        block = values[start : start + width]
        beginnings += accumulate(block)
        ends += [*accumulate(block[::-1])][::-1]
    means = [total / count for count, total in enumerate(beginnings[:width], start=1)]
    for last in range(width, len(values)):
        first = last - width + 1
        total = beginnings[last] if first % width == 0 else ends[first] + beginnings[last]
        means.append(total / width)
    return means


def mean_width(length: int) -> int:
    """A twenty-fifth of a curve: enough to still the noise of batches."""
    return max(1, length // 25)


def reference_curve(curves: Sequence[LossCurve]) -> LossCurve:
    """The first curve in high precision, or the first of all: what the others are compared with."""
    return next((curve for name in REFERENCES for curve in curves if curve.scaling == name), curves[0])


def excess_by_step(curve: LossCurve, reference: LossCurve) -> tuple[list[int], list[float]]:
    """How far the running mean lies above the reference's, in %, at the steps where both have one, not zero."""
    base = dict(zip(reference.steps, reference.mean, strict=True))
    pairs = [(step, value) for step, value in zip(curve.steps, curve.mean, strict=True) if base.get(step)]
    return [step for step, _ in pairs], [100 * (value / base[step] - 1) for step, value in pairs]


def _curve(run: RunContents, label: str) -> LossCurve:
    rows = run.training_rows
    logged = [row for row in rows if "loss" in row]
    if not logged:
        raise UserError(f"{run.path} is no training: it logged no loss")
    evaluations = {row["step"]: row["eval_loss"] for row in rows if row.get("eval_loss") is not None}
    return LossCurve(
        label=label,
        scaling=logged[0].get("scaling", ""),
        steps=[row["step"] for row in logged],
        losses=[math.nan if row["loss"] is None else row["loss"] for row in logged],
        skipped=[row["step"] for row in rows if row.get("skipped")],
        validation=evaluations,
    )


def _has_twins(labels: Sequence[str]) -> bool:
    return len(set(labels)) < len(labels)
