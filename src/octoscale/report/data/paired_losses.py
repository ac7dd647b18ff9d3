"""By how much each scaling's perplexity lies above a reference's, with the noise of the text: from losses a window.

    excesses("bf16", {"bf16": 14.93, "amax": 15.49}, contents.metrics)    {"amax": Excess(estimate=0.037, ...)}

The windows of two scalings are the same, so each one's own difference counts: their mean is the logarithm of the ratio
of the perplexities, and how far they scatter gives its 95 % interval (validation/paired.py). Nothing is said of a
scaling whose windows are not all there, or do not have the perplexity that the run reports: older runs, and damage.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from octoscale.report.fields import is_count, is_number
from octoscale.validation.paired import paired_mean

#: By how much the perplexity of the windows may differ from the one that the run reports, which sums tokens.
_SAME = 1e-6

_HUGE = 700.0  # of a loss; the exponential of more than 709 is no double


@dataclass(frozen=True, kw_only=True)
class Excess:
    """A perplexity above the reference's, 0.01 for 1 %, and its 95 % interval low..high over so many windows."""

    estimate: float
    low: float
    high: float
    windows: int


def excesses(
    reference: str, perplexity: Mapping[str, float | None], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, Excess]:
    """Of each other scaling that has an interval, in their order. perplexity: by scaling, constants by their names."""
    losses = {name: found for name, found in _losses(metrics).items() if _is_whole(found, perplexity.get(name))}
    if reference not in losses:
        return {}
    before = losses.pop(reference)
    pairs = {name: losses[name] for name in perplexity if name in losses and losses[name].keys() == before.keys()}
    logarithms = {name: paired_mean([after[at] - before[at] for at in before]) for name, after in pairs.items()}
    return {
        name: Excess(
            estimate=math.expm1(found.estimate),
            low=math.expm1(found.low),
            high=math.expm1(found.high),
            windows=found.items,
        )
        for name, found in logarithms.items()
        if found.high < _HUGE
    }


def excesses_to_json(reference: str, found: Mapping[str, Excess]) -> dict[str, Any]:
    """As JSON has them: {"against": ..., "scalings": {name: {estimate, low, high, windows}}}."""
    return {"against": reference, "scalings": {name: asdict(excess) for name, excess in found.items()}}


def _losses(metrics: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Scaling -> window -> its mean loss, NaN for one that was not finite; the last one of a window counts."""
    found: dict[str, dict[int, float]] = {}
    for row in metrics:
        if "window" in row and "loss" in row and row.get("phase") != "train" and is_count(row["window"]):
            loss = row["loss"] if is_number(row["loss"]) else math.nan
            found.setdefault(str(row.get("scaling", "")), {})[row["window"]] = loss
    return found


def _is_whole(losses: Mapping[int, float], perplexity: float | None) -> bool:
    """Whether these are the windows of that perplexity, two or more."""
    if perplexity is None or len(losses) < 2 or losses.keys() != set(range(len(losses))):
        return False
    mean = math.fsum(losses.values()) / len(losses)
    return math.isfinite(mean) and math.isclose(mean, math.log(perplexity), rel_tol=0, abs_tol=_SAME)
