"""The range of constant scales. Oracle: ranges read off small tables by hand."""

import json
import math

import pytest

from octoscale.validation.bias_range import basin, bias_range, range_of
from octoscale.validation.criterion import Judged, perplexity_criterion
from octoscale.validation.scores import Score
from octoscale.validation.settings import parse_biases


def test_parse_biases():
    assert parse_biases("-2:1") == [-2, -1, 0, 1]
    assert parse_biases("3,-1") == [-1, 3]
    assert parse_biases("4") == [4]


@pytest.mark.parametrize("text", ["", "a", "1:", "2:1", "1:2:3", "1.5"])
def test_bad_biases_are_named_with_the_remedy(text):
    with pytest.raises(ValueError, match="write a range from low to high, -8:6"):
        parse_biases(text)


def test_more_biases_than_there_are_do_not_fill_the_memory():
    with pytest.raises(ValueError, match=r"-9:99999999999: no scale_bias lies outside -126\.\.126"):
        parse_biases("-9:99999999999")


def score(scaling, *losses, **more):
    return Score(
        scaling=scaling, perplexity=math.exp(sum(losses) / len(losses)), seconds=1.0, losses=tuple(losses), **more
    )


AMAX = score("amax", 2.0, 3.0, 4.0)
CRITERION = perplexity_criterion(AMAX.perplexity, AMAX.losses)

#: A letter a bias: what became of it.
LETTERS = {
    "P": Judged(verdict="passes", by_estimate=True, estimate=0.0),
    "u": Judged(verdict="undecided", by_estimate=True, estimate=0.004, needed=90),
    "v": Judged(verdict="undecided", by_estimate=False, estimate=0.006, needed=80),
    "f": Judged(verdict="fails", by_estimate=False, estimate=1.0),
}


def of(letters, first=-3):
    """The range of verdicts, from a bias on; a space was not measured."""
    return bias_range({first + i: LETTERS[x] for i, x in enumerate(letters) if x != " "}, CRITERION)


@pytest.mark.parametrize(
    ("letters", "passing", "undecided", "by_estimate"),
    [
        ("fPPPf", (-2, 0), (), (-2, 0)),
        ("fuPPvf", (-1, 0), (-2, 1), (-2, 0)),
        ("PfPPf", (-1, 0), (), (-1, 0)),  # the longest run; a lone survivor is luck
        ("PPfPP", (-3, -2), (), (-3, -2)),  # the first of two
        ("fuvf", (None, None), (-2, -1), (-2, -2)),
        ("ffff", (None, None), (), None),
        ("fP  Pf", (-2, 1), (), (-2, 1)),  # between two of one verdict
        ("fu  uvf", (None, None), (-2, -1, 0, 1, 2), (-2, 1)),
        ("f  P  f", (0, 0), (), (0, 0)),  # between two verdicts nothing is known
    ],
)
def test_the_range_and_what_stands_beside_it(letters, passing, undecided, by_estimate):
    found = of(letters)
    assert (found.low, found.high) == passing
    assert found.undecided == undecided
    assert found.by_estimate == by_estimate


NOISE = "beyond noise (perplexity within 0.5% of amax's 20.0855; 95% intervals over 3 windows)"
REMEDY = " (about 80 windows would decide -1)"


@pytest.mark.parametrize(
    ("letters", "text"),
    [
        ("fPPPf", f"biases -2 to 0 pass {NOISE}"),
        ("fuPPvf", f"biases -1 to 0 pass {NOISE}; by the estimates alone biases -2 to 0 pass; undecided: -2, 1"),
        (
            "fuvf",
            f"no bias passes {NOISE}; by the estimates alone biases -2 to -2 pass; undecided: -2 to -1{REMEDY}",
        ),
        ("ff", f"no bias passes {NOISE}"),
        ("fPPPfPfPP", f"biases -2 to 0 pass {NOISE}; beyond a gap 2, 4 to 5 would pass, too"),
        ("fP  Pf", f"biases -2 to 1 pass {NOISE}, 2 of them unmeasured"),
        ("PPf", f"biases -3 to -2 pass {NOISE}, and the lower edge lies beyond what was measured"),
        ("fPP", f"biases -2 to -1 pass {NOISE}, and the upper edge lies beyond what was measured"),
        ("PP", f"biases -3 to -2 pass {NOISE}, and both edges lie beyond what was measured"),
    ],
)
def test_the_range_in_words(letters, text):
    assert str(of(letters)) == text
    assert json.loads(json.dumps(of(letters).to_json(), allow_nan=False))["text"] == text


def test_the_range_of_scores():
    """Each window 0.1 % apart from amax's, 10 % apart, or broken."""
    shift = {-2: 0.1, -1: 0.001, 0: 0.0, 1: -0.2}
    scores = [AMAX, *(score(f"cscale:{b}", *(loss + d for loss in AMAX.losses)) for b, d in shift.items())]
    scores += [score("cscale:2", 1.0, failure="layer 3: the input is NaN"), score("cscale:weight=1,input=0", 9.0)]
    found = range_of(scores)
    assert (found.low, found.high) == (-1, 1)
    assert list(found.judged) == [-2, -1, 0, 1, 2]
    assert found.judged[2].estimate is None


def test_with_nothing_to_compare_no_bias_passes_and_the_reason_is_said():
    assert str(range_of([score("cscale:0", 1.0)])) == "no bias passes (there is no finite perplexity of amax)"
    assert str(range_of([AMAX])) == "no bias passes (there is no cscale bias)"


def test_the_basin_is_that_of_the_estimates():
    assert basin({-4: 10.0, -3: 10.2, -2: 10.049, -1: 9.0, 0: 10.0, 1: 10.051, 2: None}, 10.0) == (-2, 0)
    assert basin({-2: 11.0, -1: 10.0, 2: 10.0, 3: 11.0}, 10.0) == (-1, 2)
    assert basin({0: 11.0}, 10.0) is None
