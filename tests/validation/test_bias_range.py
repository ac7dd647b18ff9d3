"""The range of constant scales. Oracle: ranges read off small tables by hand."""

import pytest

from octoscale.validation.bias_range import bias_range
from octoscale.validation.settings import parse_biases


def test_an_accuracy_that_is_missing_does_not_pass():
    """A scaling whose logits were NaN has null; so has, maybe, the precision to compare with."""
    scores = {"bf16": 0.5, "cscale": {"-1": 0.5, "0": None, "1": 0.5}}
    found = bias_range({"perplexity": {}, "accuracy": scores})
    assert (found.low, found.high) == (-1, -1)
    assert bias_range({"perplexity": {}, "accuracy": {"bf16": None, "cscale": {"0": 0.5}}}).low is None


def test_parse_biases():
    assert parse_biases("-2:1") == [-2, -1, 0, 1]
    assert parse_biases("3,-1") == [-1, 3]
    assert parse_biases("4") == [4]


@pytest.mark.parametrize("text", ["", "a", "1:", "2:1", "1:2:3", "1.5"])
def test_bad_biases_are_named_with_the_remedy(text):
    with pytest.raises(ValueError, match="write a range from low to high, -8:6"):
        parse_biases(text)


def perplexities(cscale):
    return {"perplexity": {"bf16": 9.9, "amax": 10.0, "cscale": {str(bias): value for bias, value in cscale.items()}}}


def test_the_range_is_the_longest_run_within_half_a_percent_of_amax():
    found = bias_range(perplexities({-4: 10.0, -3: 10.2, -2: 10.049, -1: 9.0, 0: 10.0, 1: 10.051, 2: None}))
    assert (found.low, found.high) == (-2, 0)
    assert "within 0.5% of amax's 10.0000" in str(found)


def test_no_bias_passes():
    found = bias_range(perplexities({0: 11.0}))
    assert (found.low, found.high) == (None, None)
    assert str(found).startswith("no bias passes")


def test_with_a_task_the_papers_criterion_counts():
    summary = perplexities({0: 99.0}) | {"accuracy": {"bf16": 0.8, "amax": 0.1, "cscale": {"0": 0.796, "1": 0.795}}}
    found = bias_range(summary)
    assert (found.low, found.high) == (0, 0)
    assert "99.5% of bf16's" in found.criterion


@pytest.mark.parametrize("summary", [{"perplexity": {"amax": 1.0}}, {"perplexity": {"cscale": {"0": 1.0}}}])
def test_with_nothing_to_compare_no_bias_passes_and_the_reason_is_said(summary):
    found = bias_range(summary)
    assert (found.low, found.high) == (None, None)
    assert "no finite perplexity of amax" in str(found)
