"""What scalings reached, and how summary.json holds it: values that are not finite are null there, and words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one scaling reached. perplexity or accuracy is NaN, and `failure` says why, where something was infinite.

    losses: the mean loss of each window, as many as were measured. answers: of each question, whether it was right;
    None without a task, or where the accuracy is NaN.
    """

    scaling: str
    perplexity: float
    seconds: float
    accuracy: float | None = None
    failure: str | None = None
    losses: tuple[float, ...] = ()
    answers: tuple[bool, ...] | None = None


def summarize(scores: Sequence[Score]) -> dict[str, Any]:
    """The scores as summary.json holds them: one entry a scaling, constant ones by their bias under `cscale`.

    Values that are not finite become null, which JSON can say, and stand in words under `failures`.
    """
    content: dict[str, Any] = {"perplexity": {}, "seconds": {}}
    for score in scores:
        _put(content["perplexity"], score.scaling, score.perplexity if math.isfinite(score.perplexity) else None)
        _put(content["seconds"], score.scaling, round(score.seconds, 3))
        if score.accuracy is not None:
            known = score.accuracy if math.isfinite(score.accuracy) else None
            _put(content.setdefault("accuracy", {}), score.scaling, known)
        failure = score.failure or _why_not_finite(score.perplexity) or _why_no_accuracy(score.accuracy)
        if failure is not None:
            content.setdefault("failures", {})[score.scaling] = failure
    return content


def score_to_json(score: Score) -> dict[str, Any]:
    """All of a score, as JSON can say it: what is not finite is a text."""
    content = asdict(score)
    for name in ("perplexity", "accuracy"):
        content[name] = _to_json(content[name])
    return content | {"losses": [_to_json(loss) for loss in score.losses]}


def score_from_json(content: Mapping[str, Any]) -> Score:
    """What `score_to_json` made, exactly."""
    answers, accuracy = content["answers"], content["accuracy"]
    read = {
        "perplexity": float(content["perplexity"]),
        "accuracy": None if accuracy is None else float(accuracy),
        "losses": tuple(map(float, content["losses"])),
        "answers": None if answers is None else tuple(answers),
    }
    return Score(**{**content, **read})


def _to_json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)


def bias_of(scaling: str) -> int | None:
    """-3 for `cscale:-3`, which has one bias and nothing else; None for any other scaling."""
    rule, _, bias = scaling.partition(":")
    return int(bias) if rule == "cscale" and bias.removeprefix("-").isdecimal() else None


def _put(table: dict[str, Any], scaling: str, value: float | None) -> None:
    """Enter a value under its scaling's name, or under cscale and its bias."""
    bias = bias_of(scaling)
    if bias is not None:
        table.setdefault("cscale", {})[str(bias)] = value
    else:
        table[scaling] = value


def _why_not_finite(perplexity: float) -> str | None:
    if math.isfinite(perplexity):
        return None
    return "the perplexity is NaN: the logits hold infinity or NaN" if math.isnan(perplexity) else "it exceeds 1e308"


def _why_no_accuracy(accuracy: float | None) -> str | None:
    if accuracy is None or math.isfinite(accuracy):
        return None
    return "there is no accuracy: the logits of a question hold infinity or NaN"
