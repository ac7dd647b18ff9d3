"""What it means to survive. Oracle: intervals worked out by hand against the bounds ln(1.005) and 99.5 %."""

import math

import pytest

from octoscale.validation.criterion import accuracy_criterion, criterion_of, perplexity_criterion, values_of
from octoscale.validation.paired import paired_mean
from octoscale.validation.scores import Score
from octoscale.validation.tasks import TaskScore

BOUND = math.log(1.005)  # 0.0049875


def score(scaling, losses=(), answers=None, **more):
    mean = sum(losses) / len(losses) if losses else math.nan
    tasks = () if answers is None else (task(answers),)
    return Score(scaling=scaling, perplexity=math.exp(mean), seconds=1.0, losses=tuple(losses), tasks=tasks, **more)


def task(answers):
    values = tuple(map(float, answers))
    share = sum(values) / len(values)
    return TaskScore(task="mine", metric="acc", metrics={"acc": share}, values=values, items=())


AMAX = score("amax", [2.0, 3.0, 4.0, 5.0])


def judged(differences):
    values = [before + difference for before, difference in zip(AMAX.losses, differences, strict=True)]
    return perplexity_criterion(AMAX.perplexity, AMAX.losses).judge(values)


@pytest.mark.parametrize(
    ("differences", "verdict", "by_estimate"),
    [
        ([0.0, 0.0, 0.0, 0.0], "passes", True),
        ([-1.0, -1.1, -0.9, -1.0], "passes", True),  # better than amax
        ([0.001, 0.002, 0.001, 0.002], "passes", True),  # 0.0015 + 3.18 * 0.000577 / 2 = 0.0024
        ([0.003, 0.006, 0.003, 0.006], "undecided", True),  # 0.0045 +- 0.0028
        ([0.004, 0.008, 0.004, 0.008], "undecided", False),  # 0.006 +- 0.0037
        ([0.01, 0.011, 0.01, 0.011], "fails", False),  # 0.0105 +- 0.0009
        ([5.0, 6.0, 7.0, 8.0], "fails", False),
    ],
)
def test_a_perplexity_passes_with_its_whole_interval(differences, verdict, by_estimate):
    found = judged(differences)
    assert (found.verdict, found.by_estimate) == (verdict, by_estimate)
    assert found.estimate == pytest.approx(sum(differences) / 4)
    assert found.low <= found.estimate <= found.high


def test_it_is_said_about_how_many_windows_would_decide():
    """By hand: 0.0045 +- 0.0027563 is 0.0004875 away from the bound: 4 * (0.0027563 / 0.0004875)^2 = 127.8."""
    assert judged([0.003, 0.006, 0.003, 0.006]).needed == 128
    assert judged([0.0, 0.0, 0.0, 0.0]).needed is None


@pytest.mark.parametrize("values", [None, [1.0, math.nan, 1.0, 1.0], [math.inf] * 4])
def test_what_is_not_finite_fails_without_an_interval(values):
    found = perplexity_criterion(AMAX.perplexity, AMAX.losses).judge(values)
    assert (found.verdict, found.by_estimate, found.estimate, found.low) == ("fails", False, None, None)


def test_one_window_decides_nothing():
    found = perplexity_criterion(math.exp(2.0), [2.0]).judge([2.001])
    assert (found.verdict, found.by_estimate, found.low) == ("undecided", True, None)
    assert found.estimate == pytest.approx(0.001)


def test_other_windows_are_no_pairs():
    with pytest.raises(ValueError, match="4 items before and 2 after are no pairs"):
        perplexity_criterion(AMAX.perplexity, AMAX.losses).judge([1.0, 2.0])


def answers(right, items):
    return [True] * right + [False] * (items - right)


@pytest.mark.parametrize(
    ("after", "verdict", "by_estimate"),
    [
        (answers(8000, 10_000), "passes", True),  # no item changed: +- 1.96 / 10,002, bound 40 / 10,000
        (answers(9000, 10_000), "passes", True),
        (answers(7990, 10_000), "passes", True),  # 10 lost: -0.0010 +- 0.00065
        (answers(7965, 10_000), "undecided", True),  # 35 lost: -0.0035 +- 0.0012
        (answers(7955, 10_000), "undecided", False),  # 45 lost: -0.0045 +- 0.0013
        (answers(7900, 10_000), "fails", False),  # 100 lost: -0.0100 +- 0.0020
    ],
)
def test_an_accuracy_passes_with_its_whole_interval(after, verdict, by_estimate):
    found = accuracy_criterion("bf16", 0.8, answers(8000, 10_000)).judge(after)
    assert (found.verdict, found.by_estimate) == (verdict, by_estimate)


def test_few_items_decide_nothing_even_if_none_changed():
    """1.96 / 102 is far beyond 99.5 % of 80 of 100 items."""
    found = accuracy_criterion("bf16", 0.8, answers(80, 100)).judge(answers(80, 100))
    assert (found.verdict, found.by_estimate, found.estimate) == ("undecided", True, 0.0)
    assert found.needed == 490  # 1.959964 / 0.004


def test_with_a_task_the_papers_criterion_counts():
    scores = [score("bf16", [1.0, 2.0], answers(4, 5)), score("amax", [1.0, 2.0], answers(3, 5))]
    found = criterion_of(scores)
    assert (found.what, found.against, found.unit) == ("accuracy", "bf16", "items")
    assert found.words == "accuracy at least 99.5% of bf16's 0.8000"
    assert list(values_of(scores[1])) == answers(3, 5)


def test_without_a_task_perplexity_counts():
    found = criterion_of([score("bf16", [1.0, 2.0]), AMAX])
    assert (found.what, found.against, found.unit) == ("perplexity", "amax", "windows")
    assert found.words.startswith("perplexity within 0.5% of amax's 33.1")
    assert found.noise == "95% intervals over 4 windows"
    assert values_of(AMAX) == AMAX.losses


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([], "there is no finite perplexity of amax"),
        ([score("bf16", [1.0])], "there is no finite perplexity of amax"),
        ([score("amax")], "there is no finite perplexity of amax"),
        ([score("amax", [1.0], [True])], "there is no accuracy of a high precision"),
    ],
)
def test_a_reference_that_is_missing_is_said(scores, why):
    assert criterion_of(scores) == why


def test_a_score_that_is_no_share_is_compared_as_a_mean():
    """Oracle: the same interval as of the differences."""
    found = accuracy_criterion("bf16", 0.5, (0.4, 0.6, 0.5, 0.5)).judge((0.41, 0.62, 0.51, 0.52))
    expected = paired_mean([0.01, 0.02, 0.01, 0.02])
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert found.verdict == "passes"


def test_a_score_that_failed_on_the_way_has_no_values():
    assert values_of(score("cscale:0", [1.0], failure="model.layers.1: the weight is NaN")) is None


def test_a_difference_in_per_cent():
    assert perplexity_criterion(AMAX.perplexity, AMAX.losses).percent_worse(math.log(1.25)) == pytest.approx(25)
    assert accuracy_criterion("bf16", 0.5, [True, False]).percent_worse(-0.25) == 25
    assert math.isfinite(perplexity_criterion(AMAX.perplexity, AMAX.losses).percent_worse(1e6))
