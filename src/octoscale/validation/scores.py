"""What scalings reached, and how summary.json holds it: values that are not finite are null there, and words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octoscale.validation.tasks import TaskScore


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one scaling reached.

    perplexity: None without a text; NaN, and `failure` says why, where something was infinite. tasks: those that were
    asked and answered.
    """

    scaling: str
    perplexity: float | None
    seconds: float
    tasks: tuple[TaskScore, ...] = ()
    failure: str | None = None


def summarize(scores: Sequence[Score]) -> dict[str, Any]:
    """The scores as summary.json holds them: one entry a scaling, constant ones by their bias under `cscale`.

    Values that are not finite become null, which JSON can say, and stand in words under `failures`.
    """
    content: dict[str, Any] = {"seconds": {}}
    for score in scores:
        if score.perplexity is not None:
            value = score.perplexity if math.isfinite(score.perplexity) else None
            _put(content.setdefault("perplexity", {}), score.scaling, value)
        _put(content["seconds"], score.scaling, round(score.seconds, 3))
        for task in score.tasks:
            _put_task(content.setdefault("tasks", {}), score.scaling, task)
        failure = score.failure or _why_not_finite(score.perplexity)
        if failure is not None:
            content.setdefault("failures", {})[score.scaling] = failure
    return content


def flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """{"amax": 1, "cscale": {"-8": 2}} -> {"amax": 1, "cscale:-8": 2}."""
    rows: dict[str, Any] = {}
    for name, value in table.items():
        is_constants = name == "cscale" and isinstance(value, Mapping)
        rows |= {f"{name}:{key}": item for key, item in value.items()} if is_constants else {name: value}
    return rows


def _put_task(tasks: dict[str, Any], scaling: str, score: TaskScore) -> None:
    """Enter what a scaling reached on a task: each metric, and the standard error of the one that counts."""
    table = tasks.setdefault(score.task, {"metric": score.metric, "items": len(score.items), "scores": {}})
    _put(table["scores"], scaling, {**score.metrics, "standard_error": score.standard_error})


def _put(table: dict[str, Any], scaling: str, value: Any) -> None:
    """Enter a value under its scaling's name, or under cscale and its bias."""
    rule, _, bias = scaling.partition(":")
    if rule == "cscale" and bias.lstrip("-").isdigit():
        table.setdefault("cscale", {})[bias] = value
    else:
        table[scaling] = value


def _why_not_finite(perplexity: float | None) -> str | None:
    if perplexity is None or math.isfinite(perplexity):
        return None
    return "the perplexity is NaN: the logits hold infinity or NaN" if math.isnan(perplexity) else "it exceeds 1e308"
