"""The summary of a run. Oracle: scores written down by hand."""

import json
import math

import pytest

from octoscale.validation.scores import Score, bias_of, score_from_json, score_to_json, summarize

CONSTANT = {"cscale:-8": -8, "cscale:0": 0, "cscale:6": 6}
OTHERS = ("bf16", "amax:margin=3", "cscale:weight=3,input=-1", "cscale:2,formats=fnuz", "cscale:", "cscale:-")


def test_summary_groups_constant_scales_by_bias():
    scores = [Score(scaling=name, perplexity=1.0, seconds=0.1) for name in (*CONSTANT, *OTHERS)]
    by_bias = {str(bias): 1.0 for bias in CONSTANT.values()}
    assert summarize(scores)["perplexity"] == {"cscale": by_bias, **dict.fromkeys(OTHERS, 1.0)}


def test_logits_that_are_nan_are_a_failure_in_words():
    scores = [
        Score(scaling="fp16", perplexity=math.nan, seconds=0.1),
        Score(scaling="bf16", perplexity=math.inf, seconds=0.1),
    ]
    assert summarize(scores)["failures"] == {
        "fp16": "the perplexity is NaN: the logits hold infinity or NaN",
        "bf16": "it exceeds 1e308",
    }


def test_the_bias_of_a_scaling_that_is_one_constant_and_nothing_else():
    assert {name: bias_of(name) for name in (*CONSTANT, *OTHERS)} == CONSTANT | dict.fromkeys(OTHERS)


@pytest.mark.parametrize(
    "score",
    [
        Score(
            scaling="amax",
            perplexity=0.1 + 0.2,
            seconds=1.5,
            losses=(1.0, 1e-300),
            accuracy=1 / 3,
            answers=(True, False),
        ),
        Score(scaling="cscale:9", perplexity=math.inf, seconds=0.0, losses=(math.inf, 2.0)),
        Score(scaling="bf16", perplexity=1.0, seconds=0.0, failure="layer 3: NaN", answers=None, accuracy=0.0),
    ],
)
def test_a_score_comes_back_from_json_as_it_was(score):
    assert score_from_json(json.loads(json.dumps(score_to_json(score), allow_nan=False))) == score


def test_what_is_nan_comes_back_as_nan():
    score = Score(scaling="amax", perplexity=math.nan, seconds=0.0, losses=(math.nan,), accuracy=math.nan)
    again = score_from_json(score_to_json(score))
    assert all(map(math.isnan, (again.perplexity, again.accuracy, *again.losses)))
