"""Paired differences. Oracles: intervals computed by hand, tables of Student's t, seeded samples with a known truth."""

import math
import random

import pytest

from octoscale.validation.paired import LEVEL, paired, paired_mean, paired_share, t_quantile


def cells(both, lost, gained, neither):
    """Items of a table of right and wrong, before and after."""
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


def test_an_interval_of_shares_by_hand():
    """By hand: the cells 53, 16, 8, 9 (n = 86) become 53.5, 16.5, 8.5, 9.5 (n = 88).

    d = (8.5 - 16.5) / 88 = -0.0909; variance ((8.5 + 16.5) - 8^2 / 88) / 88^2 = 0.0031343, of which 1.959964 roots are
    0.10973.
    """
    found = paired_share(*cells(53, 16, 8, 9))
    assert (found.gained, found.lost, found.items) == (8, 16, 86)
    assert found.estimate == pytest.approx(-8 / 86)
    assert (found.low, found.high) == pytest.approx((-0.20064, 0.01882), abs=1e-5)


def test_without_a_changed_item_the_interval_still_has_a_width():
    """By hand: half a lost and half a gained item of 102: 1.959964 * sqrt(1) / 102."""
    found = paired_share(*cells(60, 0, 0, 40))
    assert found.estimate == 0
    assert (found.low, found.high) == pytest.approx((-0.0192153, 0.0192153), abs=1e-7)


@pytest.mark.parametrize("after", [True, False])
def test_an_interval_of_shares_stays_a_difference_of_shares(after):
    found = paired_share([not after] * 2, [after] * 2)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert found.estimate == (1 if after else -1)


def test_exchanging_before_and_after_turns_the_interval_around():
    there, back = (paired_share(*tables) for tables in (cells(5, 2, 7, 3), cells(5, 2, 7, 3)[::-1]))
    assert (there.low, there.high, there.estimate) == (-back.high, -back.low, -back.estimate)
    assert (there.gained, there.lost) == (back.lost, back.gained)


#: Two-sided 95 %, as tables print them.
QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 15: 2.131, 30: 2.042, 60: 2.000}


@pytest.mark.parametrize(("freedom", "expected"), [*QUANTILES.items(), (120, 1.980), (100_000, 1.960)])
def test_quantiles_of_student(freedom, expected):
    assert t_quantile(freedom) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 15, 31, 100, 1000])
def test_95_percent_of_students_distribution_lie_inside(freedom):
    """Simpson's rule on the density, from 0 to the quantile."""
    end, steps = t_quantile(freedom), 20_000
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = [scale * (1 + (end * i / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps + 1)]
    inside = end / steps / 3 * (density[0] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]) + density[-1])
    assert 2 * inside == pytest.approx(0.95, abs=1e-9)


def test_quantiles_that_have_a_closed_form():
    """One degree: tan(0.475 pi). Two: with a = 0.95, t = a sqrt(2 / (1 - a^2))."""
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)


def test_an_interval_of_means_by_hand():
    """1, 2, 3, 4: mean 2.5, standard deviation 1.290994, t(3) = 3.182446, over sqrt(4)."""
    found = paired_mean([1, 2, 3, 4])
    assert (found.estimate, found.items) == (2.5, 4)
    assert (found.low, found.high) == pytest.approx((2.5 - 2.054260, 2.5 + 2.054260), abs=1e-5)


def test_equal_differences_have_no_width():
    found = paired_mean([0.25] * 5)
    assert (found.low, found.estimate, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("find", [lambda values: paired_mean(values), lambda values: paired_share(values, values)])
@pytest.mark.parametrize(("values", "message"), [([], "there are no items"), ([True], "1 item has no interval")])
def test_fewer_than_two_items_are_refused(find, values, message):
    with pytest.raises(ValueError, match=message):
        find(values)


def test_items_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="3 items before and 2 after are no pairs"):
        paired_share([True] * 3, [True] * 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_difference_that_is_not_finite_is_named(value):
    with pytest.raises(ValueError, match=f"item 1 has the difference {value}"):
        paired_mean([0.0, value, 0.0])


@pytest.mark.parametrize(
    ("gain", "loss", "items"), [(0.02, 0.02, 200), (0.002, 0.006, 500), (0.2, 0.1, 30), (0.01, 0.03, 1000)]
)
def test_intervals_of_shares_hold_the_truth_in_95_of_100_samples(gain, loss, items):
    """Of 2,000 samples, within three standard errors, 1.5 %. Where 4 items change on average, shares are few: 93 %."""
    chance, hits = random.Random(7), 0
    for _ in range(2000):
        draws = [chance.random() for _ in range(items)]
        lost, gained = sum(x < loss for x in draws), sum(loss <= x < loss + gain for x in draws)
        found = paired_share(*cells(items - lost - gained, lost, gained, 0))
        hits += found.low <= gain - loss <= found.high
    assert hits / 2000 >= (0.93 if items == 500 else LEVEL) - 0.015


@pytest.mark.parametrize("items", [3, 16])
def test_intervals_of_means_hold_the_truth_in_95_of_100_samples(items):
    """Of 4,000 samples of normal differences: exactly 95 %, give or take three standard errors."""
    chance, hits = random.Random(11), 0
    for _ in range(4000):
        found = paired_mean([chance.gauss(0.3, 2.0) for _ in range(items)])
        hits += found.low <= 0.3 <= found.high
    assert hits / 4000 == pytest.approx(LEVEL, abs=0.0104)


def test_about_how_many_items_narrow_an_interval_of_means():
    """A quarter of the width takes 16 times the items."""
    found = paired_mean([1, 2, 3, 4])
    assert found.items_for((found.high - found.low) / 8) == 64
    assert found.items_for(0.0) is None


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 1), (40, 40)])
def test_about_how_many_items_narrow_an_interval_of_shares(lost, gained):
    """Oracle: the interval of so many items, of which the same share changed."""
    found = paired_share(*cells(300 - lost - gained, lost, gained, 0))
    times = found.items_for(0.01) / 300
    again = paired_share(*cells(*(round(n * times) for n in (300 - lost - gained, lost, gained, 0))))
    assert (again.high - again.low) / 2 == pytest.approx(0.01, rel=0.05)
    assert found.items_for(0.0) is None


def test_numbers_of_items_are_compared_as_what_they_are():
    """Oracle: the two kinds themselves."""
    assert paired([1.0, 0.0, 1.0], [1.0, 1.0, 0.0]) == paired_share([True, False, True], [True, True, False])
    assert paired([0.5, 1.0], [1.0, 1.0]) == paired_mean([0.5, 0.0])
    with pytest.raises(ValueError, match="2 items before and 3 after are no pairs"):
        paired([0.5, 0.1], [0.1, 0.2, 0.3])
