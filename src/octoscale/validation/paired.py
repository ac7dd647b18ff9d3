"""By how much two scalings differ on the same items, and how far chance alone may have moved that difference.

    paired_share([True, False, True], [True, True, True])     of items that are right or wrong
    paired_mean([0.01, -0.02, 0.015])                         of anything that has a number an item
    paired([1.0, 0.0, 1.0], [1.0, 1.0, 1.0])                  one or the other, by what the numbers are

Both scalings answer the same items, so what the items have in common cancels: only those that changed count. Each
interval holds the true difference in about 95 of 100 such samples; several side by side do not, all at once.

Shares: Agresti and Min 2005 ("Simple improved confidence intervals for comparing matched proportions", Statistics in
Medicine 24) add 1/2 to each of the four cells of right and wrong, before and after. The interval is the usual one of
that table; it has a width even if no item changed, where the usual one claims certainty.

Means: Student's t. Its quantile is found by bisection of its distribution, which is a finite sum for whole degrees of
freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean

from octoscale.system.errors import UserError

#: The share of samples whose interval holds the true difference.
LEVEL = 0.95

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """After minus before: the mean over the items, and its 95 % interval low..high."""

    estimate: float
    low: float
    high: float
    items: int

    def items_for(self, reach: float) -> int | None:
        """About how many items like these have an interval of no more than this to each side; None for a reach of 0.

        An interval of means narrows with the square root of the items.
        """
        return math.ceil(self.items * ((self.high - self.low) / 2 / reach) ** 2) if reach else None


@dataclass(frozen=True, kw_only=True)
class ShareDifference(Difference):
    """A difference of shares, in -1..1; `gained` items became right, `lost` ones wrong.

    The estimate is that of the sample. The interval lies around a value slightly nearer to 0, as of two items more.
    """

    gained: int
    lost: int

    def items_for(self, reach: float) -> int | None:
        """As for means, if as large a share of the items changes; without any change the width falls with the items.

        Solves reach = z sqrt(changed n + 1) / n for n.
        """
        if not reach:
            return None
        changed, square = (self.gained + self.lost) / self.items, (_Z / reach) ** 2
        return math.ceil((square * changed + math.sqrt((square * changed) ** 2 + 4 * square)) / 2)


def paired(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Of items with a number each: of shares, if all are right, 1, or wrong, 0; else of means. UserError as those."""
    if {*before, *after} <= {0.0, 1.0}:
        return paired_share([bool(x) for x in before], [bool(x) for x in after])
    if len(before) != len(after):
        raise UserError(f"{len(before)} items before and {len(after)} after are no pairs: compare the same items")
    return paired_mean([b - a for a, b in zip(before, after, strict=True)])


def paired_share(before: Sequence[bool], after: Sequence[bool]) -> ShareDifference:
    """The share of items that are right after, minus before. UserError for unequal lengths, or fewer than two items."""
    if len(before) != len(after):
        raise UserError(f"{len(before)} items before and {len(after)} after are no pairs: compare the same items")
    _check_number(len(before))
    gained = sum(not a and b for a, b in zip(before, after, strict=True))
    lost = sum(a and not b for a, b in zip(before, after, strict=True))
    items, moved = len(before) + 2, gained + lost + 1  # with 1/2 in each of the four cells
    center = (gained - lost) / items
    reach = _Z * math.sqrt(moved - (gained - lost) ** 2 / items) / items
    return ShareDifference(
        estimate=(gained - lost) / len(before),
        low=max(-1.0, center - reach),
        high=min(1.0, center + reach),
        items=len(before),
        gained=gained,
        lost=lost,
    )


def paired_mean(differences: Sequence[float]) -> Difference:
    """The mean of differences, one an item. UserError for fewer than two, or one that is not finite.

    If all are equal, the interval is that number alone.
    """
    _check_number(len(differences))
    wrong = [index for index, value in enumerate(differences) if not math.isfinite(value)]
    if wrong:
        raise UserError(f"item {wrong[0]} has the difference {differences[wrong[0]]}: there is no mean with it")
    mean = fmean(differences)
    scatter = math.sqrt(math.fsum((x - mean) ** 2 for x in differences) / (len(differences) - 1))
    reach = t_quantile(len(differences) - 1) * scatter / math.sqrt(len(differences))
    return Difference(estimate=mean, low=mean - reach, high=mean + reach, items=len(differences))


@lru_cache(maxsize=1024)
def t_quantile(freedom: int) -> float:
    """The t that |T| stays below in 95 % of cases, T of Student's distribution with `freedom` >= 1 degrees: 12.7 at 1.

    To the last digits of a double; the time grows with `freedom`.
    """
    low, high = 1.0, 16.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _share_within(middle, freedom) < LEVEL else (low, middle)
    return high


def _share_within(t: float, freedom: int) -> float:
    """The probability of |T| < t: a sum of (freedom - 1) / 2 terms, each the one before times cos^2 and a fraction."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for n in range(2 + odd, freedom - 1, 2):
        term *= square * (n - 1) / n
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))


def _check_number(items: int) -> None:
    if items < 2:
        raise UserError(f"{items} item has no interval: at least two are needed" if items else "there are no items")
