"""Which constant scales does a model survive? The range of CSCALE biases, as in the paper's Tables 3 and 6.

A bias passes if the perplexity stays within 0.5 % of FP8-AMAX's; where the task has an accuracy, the paper's criterion
counts instead: at least 99.5 % of the high-precision accuracy. The range is the longest run of neighbouring biases that
pass: a lone survivor beyond a gap is luck.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PERPLEXITY_TOLERANCE = 0.005
ACCURACY_SHARE = 0.995


@dataclass(frozen=True, kw_only=True)
class BiasRange:
    """The biases low..high pass `criterion`; low and high are None if no bias does."""

    low: int | None
    high: int | None
    criterion: str

    def __str__(self) -> str:
        found = "no bias passes" if self.low is None else f"biases {self.low} to {self.high} pass"
        return f"{found} ({self.criterion})"


def bias_range(summary: Mapping[str, Any]) -> BiasRange:
    """The range that the results in a run's summary.json show; without results to compare, none and why."""
    if "accuracy" in summary:
        return _accuracy_range(summary["accuracy"])
    scores = summary["perplexity"]
    reference = scores.get("amax")
    if reference is None or not scores.get("cscale"):
        return BiasRange(low=None, high=None, criterion="there is no finite perplexity of amax, or no cscale bias")
    limit = reference * (1 + PERPLEXITY_TOLERANCE)
    criterion = f"perplexity within {PERPLEXITY_TOLERANCE:.1%} of amax's {reference:.4f}"
    passing = [int(bias) for bias, value in scores["cscale"].items() if value is not None and value <= limit]
    return _longest_run(passing, criterion)


def _accuracy_range(scores: Mapping[str, Any]) -> BiasRange:
    precision = next((name for name in ("fp32", "fp16", "bf16") if scores.get(name) is not None), None)
    if precision is None or not scores.get("cscale"):
        return BiasRange(low=None, high=None, criterion="there is no accuracy of a high precision, or no cscale bias")
    criterion = f"accuracy at least {ACCURACY_SHARE:.1%} of {precision}'s {scores[precision]:.4f}"
    limit = scores[precision] * ACCURACY_SHARE
    passing = [int(bias) for bias, value in scores["cscale"].items() if value is not None and value >= limit]
    return _longest_run(passing, criterion)


def _longest_run(passing: list[int], criterion: str) -> BiasRange:
    best: tuple[int, int] | None = None
    for low in passing:
        high = low
        while high + 1 in passing:
            high += 1
        if best is None or high - low > best[1] - best[0]:
            best = (low, high)
    low_high = best or (None, None)
    return BiasRange(low=low_high[0], high=low_high[1], criterion=criterion)
