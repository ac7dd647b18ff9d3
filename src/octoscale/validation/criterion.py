"""What it means to survive: as good as the reference, item by item, beyond what chance can do.

    criterion = criterion_of(scores)             what these scores are measured by
    criterion.judge(values_of(score))            Judged(verdict="passes", ...)

A scaling passes if the whole 95 % interval of its paired difference to the reference lies within the bound, fails if
the whole interval lies beyond it, and is undecided otherwise. The estimate alone is the paper's own criterion.

    perplexity    mean loss of each window against FP8-AMAX's; the bound is ln(1.005), half a per cent of perplexity
    accuracy      each item, right or wrong, against high precision's; the bound is 99.5 % of its accuracy

With a task the accuracy counts. The bound is taken as it is, without an interval of its own. What sums in another order
would change (docs/LOG.md) moves the windows one by one, and so is part of the intervals.

What a score's values are, an item, stands in `criterion_of` and `values_of`, and nowhere else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from octoscale.validation.paired import LEVEL, paired
from octoscale.validation.scores import Score

PERPLEXITY_TOLERANCE = 0.005
ACCURACY_SHARE = 0.995

_HUGE = 700.0  # of a loss; the exponential of more than 709 is no double

Verdict = Literal["passes", "undecided", "fails"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of a scaling: the difference to the reference, its interval, and whether it passes.

    estimate, low and high are None where a value is not finite, which fails; low and high also where there is only one
    value, which decides nothing. by_estimate: whether the estimate alone would pass. needed: about how many items
    would decide, if undecided and known.
    """

    verdict: Verdict
    by_estimate: bool
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What a scaling must reach.

    words: as a reader sees it. what: that is compared. against: which scaling; reference: its values, one a `unit`.
    bound: the difference that is still allowed: at most that for a cost, at least for a gain.
    """

    words: str
    what: str
    against: str
    unit: Literal["windows", "items"]
    reference: Sequence[float]
    bound: float
    is_cost: bool

    @property
    def noise(self) -> str:
        """What the intervals are made of, in words."""
        return f"{LEVEL:.0%} intervals over {len(self.reference):,} {self.unit}"

    def judge(self, values: Sequence[float] | None) -> Judged:
        """The verdict on a scaling with these values; None, and any that is not finite, fails.

        ValueError for another number of values than the reference has.
        """
        if values is None or not all(map(math.isfinite, values)):
            return Judged(verdict="fails", by_estimate=False)
        if len(values) == len(self.reference) == 1:
            estimate = float(values[0] - self.reference[0])
            return Judged(verdict="undecided", by_estimate=self._costs(estimate) <= self._limit, estimate=estimate)
        found = paired(self.reference, values)
        cheapest, dearest = sorted((self._costs(found.low), self._costs(found.high)))
        verdict: Verdict = "passes" if dearest <= self._limit else "fails" if cheapest > self._limit else "undecided"
        return Judged(
            verdict=verdict,
            by_estimate=self._costs(found.estimate) <= self._limit,
            estimate=found.estimate,
            low=found.low,
            high=found.high,
            needed=found.items_for(abs(found.estimate - self.bound)) if verdict == "undecided" else None,
        )

    def percent_worse(self, difference: float) -> float:
        """A difference as a reader sees it: % of perplexity above the reference's, or points of accuracy below."""
        return 100 * math.expm1(min(difference, _HUGE)) if self.is_cost else -100 * difference

    @property
    def _limit(self) -> float:
        return self._costs(self.bound)

    def _costs(self, difference: float) -> float:
        return difference if self.is_cost else -difference


def criterion_of(scores: Sequence[Score]) -> Criterion | str:
    """What these scores are measured by; in words, why there is nothing to measure by, if the reference is missing."""
    if any(score.tasks for score in scores):
        precise = next((s for name in ("fp32", "fp16", "bf16") for s in scores if s.scaling == name and s.tasks), None)
        if precise is None:
            return "there is no accuracy of a high precision"
        task = precise.tasks[0]
        if not task.values:
            return f"{task.task} has no score of each item"
        return accuracy_criterion(precise.scaling, task.score, task.values)
    amax = next((score for score in scores if score.scaling == "amax"), None)
    if amax is None or amax.perplexity is None or not math.isfinite(amax.perplexity):
        return "there is no finite perplexity of amax"
    return perplexity_criterion(amax.perplexity, amax.losses)


def values_of(score: Score) -> Sequence[float] | None:
    """A score's values an item, as its criterion compares them; None if it failed on the way."""
    if score.failure is not None:
        return None
    return score.tasks[0].values if score.tasks else score.losses


def perplexity_criterion(amax: float, losses: Sequence[float]) -> Criterion:
    """At most half a per cent above FP8-AMAX's perplexity."""
    return Criterion(
        words=f"perplexity within {PERPLEXITY_TOLERANCE:.1%} of amax's {amax:.4f}",
        what="perplexity",
        against="amax",
        unit="windows",
        reference=losses,
        bound=math.log1p(PERPLEXITY_TOLERANCE),
        is_cost=True,
    )


def accuracy_criterion(scaling: str, score: float, values: Sequence[float]) -> Criterion:
    """At least 99.5 % of what high precision, by its scaling, reached on a task (Perez et al. 2023, section 4).

    score: the mean of the values of the task's items.
    """
    return Criterion(
        words=f"accuracy at least {ACCURACY_SHARE:.1%} of {scaling}'s {score:.4f}",
        what="accuracy",
        against=scaling,
        unit="items",
        reference=values,
        bound=score * (ACCURACY_SHARE - 1),
        is_cost=False,
    )
