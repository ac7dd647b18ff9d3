"""What scalings reached, and how summary.json holds it: values that are not finite are null there, and words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one scaling reached. perplexity or accuracy is NaN, and `failure` says why, where something was infinite."""

    scaling: str
    perplexity: float
    seconds: float
    accuracy: float | None = None
    failure: str | None = None


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


def _put(table: dict[str, Any], scaling: str, value: float | None) -> None:
    """Enter a value under its scaling's name, or under cscale and its bias."""
    rule, _, bias = scaling.partition(":")
    if rule == "cscale" and bias.lstrip("-").isdigit():
        table.setdefault("cscale", {})[bias] = value
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
