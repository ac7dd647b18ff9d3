"""What scalings reached, and how summary.json holds it: values that are not finite are null there, and words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from octoscale.numerics.formats import PRECISIONS
from octoscale.validation.paired import paired
from octoscale.validation.tasks import TaskScore


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one scaling reached.

    perplexity: None without a text; NaN, and `failure` says why, where something was infinite. tasks: those that were
    asked and answered. losses: the mean loss of each window, as many as were measured.
    """

    scaling: str
    perplexity: float | None
    seconds: float
    tasks: tuple[TaskScore, ...] = ()
    failure: str | None = None
    losses: tuple[float, ...] = ()


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
        failure = score.failure or _why_not_finite(score.perplexity)
        if failure is not None:
            content.setdefault("failures", {})[score.scaling] = failure
    tasks = {task: _summary_of(task, scores) for task in dict.fromkeys(x.task for s in scores for x in s.tasks)}
    return content | ({"tasks": tasks} if tasks else {})


def score_to_json(score: Score) -> dict[str, Any]:
    """All of a score, as JSON can say it: what is not finite is a text."""
    losses = [_to_json(loss) for loss in score.losses]
    return asdict(score) | {"perplexity": _to_json(score.perplexity), "losses": losses}


def score_from_json(content: Mapping[str, Any]) -> Score:
    """What `score_to_json` made, exactly."""
    perplexity, tasks = content["perplexity"], content["tasks"]
    read = {
        "perplexity": None if perplexity is None else float(perplexity),
        "losses": tuple(map(float, content["losses"])),
        "tasks": tuple(
            TaskScore(**{**task, "values": tuple(task["values"]), "items": tuple(task["items"])}) for task in tasks
        ),
    }
    return Score(**{**content, **read})


def _to_json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def bias_of(scaling: str) -> int | None:
    """-3 for `cscale:-3`, which has one bias and nothing else; None for any other scaling."""
    rule, _, bias = scaling.partition(":")
    return int(bias) if rule == "cscale" and bias.removeprefix("-").isdecimal() else None


def flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """{"amax": 1, "cscale": {"-8": 2}} -> {"amax": 1, "cscale:-8": 2}."""
    rows: dict[str, Any] = {}
    for name, value in table.items():
        is_constants = name == "cscale" and isinstance(value, Mapping)
        rows |= {f"{name}:{key}": item for key, item in value.items()} if is_constants else {name: value}
    return rows


def _summary_of(task: str, scores: Sequence[Score]) -> dict[str, Any]:
    """What each scaling reached on a task: every metric, the standard error of the one that counts, the difference.

    The difference is paired, item by item, to the first high precision; None where there is none, or no interval.
    """
    found = {score.scaling: answer for score in scores for answer in score.tasks if answer.task == task}
    precise = next((name for name in found if name in PRECISIONS), None)
    table: dict[str, Any] = {}
    for scaling, answer in found.items():
        row: dict[str, Any] = {**answer.metrics, "standard_error": answer.standard_error}
        if precise is not None and scaling != precise:
            row["difference"] = difference(found[precise], answer)
        _put(table, scaling, row)
    first = next(iter(found.values()))
    return {"metric": first.metric, "items": len(first.items), "against": precise, "scores": table}


def difference(before: TaskScore, after: TaskScore) -> dict[str, Any] | None:
    """Of two scores on the same items, after minus before: estimate, low, high, and items gained and lost, if whole."""
    if len(before.values) < 2 or len(before.values) != len(after.values):
        return None
    return asdict(paired(before.values, after.values))


def _put(table: dict[str, Any], scaling: str, value: Any) -> None:
    """Enter a value under its scaling's name, or under cscale and its bias."""
    bias = bias_of(scaling)
    if bias is not None:
        table.setdefault("cscale", {})[str(bias)] = value
    else:
        table[scaling] = value


def _why_not_finite(perplexity: float | None) -> str | None:
    if perplexity is None or math.isfinite(perplexity):
        return None
    return "the perplexity is NaN: the logits hold infinity or NaN" if math.isnan(perplexity) else "it exceeds 1e308"
