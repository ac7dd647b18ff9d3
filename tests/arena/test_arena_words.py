"""What became of a contestant, and what is said of it. Oracles: worked out by hand; Student's interval of the pairs."""

import math

import pytest

from octoscale.arena.ring import Result, crossed
from octoscale.arena.words import gap_of, verdict_of
from octoscale.validation.paired import paired_mean

BASE = Result(scaling="bf16", values=(1.0, 2.0, 3.0, 4.0), seconds=1.0)


def result(*values, scaling="amax", seconds=1.0, failure=None):
    return Result(scaling=scaling, values=values, seconds=seconds, failure=failure)


def judged(other, *, is_text=True, base=BASE, unit="windows"):
    return verdict_of(base, other, gap_of(base, other, is_text=is_text), unit)


def test_a_gap_is_the_ratio_of_perplexities_and_its_ends_are_those_of_the_pairs():
    other = result(1.1, 2.3, 3.2, 4.0)
    gap, expected = gap_of(BASE, other, is_text=True), paired_mean([0.1, 0.3, 0.2, 0.0])
    ratio = math.exp(sum(other.values) / 4) / math.exp(sum(BASE.values) / 4)
    assert gap.estimate == pytest.approx(100 * (ratio - 1))
    assert (gap.low, gap.high) == (
        pytest.approx(100 * math.expm1(expected.low)),
        pytest.approx(100 * math.expm1(expected.high)),
    )
    trained = gap_of(BASE, other, is_text=False)
    assert (trained.estimate, trained.low, trained.high) == (
        pytest.approx(expected.estimate),
        pytest.approx(expected.low),
        pytest.approx(expected.high),
    )


def test_verdicts():
    assert judged(result(1.1, 2.1, 3.1001, 4.1)) == "worse than bf16"
    assert judged(result(0.9, 1.9, 2.9001, 3.9)) == "better than bf16"
    assert judged(result(*BASE.values)) == "the same as bf16"
    assert judged(result(failure="refused: so")) == "refused: so"
    apart = [1.1, 1.9, 3.1, 4.1]
    needed = paired_mean([b - a for a, b in zip(BASE.values, apart, strict=True)]).items_for(0.05)
    assert judged(result(*apart)) == f"cannot be told from bf16 with 4 windows; about {needed} would do"
    assert judged(result(*apart), is_text=False, unit="seeds") == "cannot be told from bf16 with 4 seeds"
    assert judged(result(1.5), base=result(1.0), is_text=False, unit="seeds") == "one seed has no interval"


def test_a_perplexity_beyond_a_double_has_a_gap_all_the_same():
    assert math.isfinite(gap_of(BASE, result(1e4, 1e4, 1e4, 1e4), is_text=True).estimate)


def test_each_half_has_the_constant_that_is_best_on_the_other():
    """Oracle: by hand. On windows 0 and 2 -1 is best, on windows 1 and 3 it is 0."""
    found = {
        -1: result(1.0, 9.0, 1.5, 9.5, scaling="cscale:-1", seconds=2.0),
        0: result(2.0, 5.0, 2.5, 5.5, scaling="cscale:0", seconds=4.0),
        1: result(failure="infinity", scaling="cscale:1", seconds=None),
    }
    chosen = crossed(found)
    assert chosen.values == (2.0, 9.0, 2.5, 9.5)
    assert chosen.scaling == "cscale:0 and cscale:-1"
    assert chosen.seconds == 3.0


def test_one_constant_that_is_best_everywhere_is_itself():
    best = result(1.0, 1.0, 1.0, scaling="cscale:-1", seconds=2.0)
    assert crossed({-1: best, 0: result(2.0, 2.0, 2.0, scaling="cscale:0")}) == best


def test_where_no_constant_ends_the_first_reason_is_said():
    found = {bias: result(failure=f"so {bias}", seconds=None) for bias in (-1, 0)}
    assert crossed(found).failure == "none of 2 constants came to an end: so -1"
    assert crossed(found).values == ()
