"""The summary of a run. Oracle: scores written down by hand."""

import json
import math
from dataclasses import asdict, replace

import pytest

from octoscale.validation.paired import paired_share
from octoscale.validation.scores import Score, bias_of, score_from_json, score_to_json, summarize
from octoscale.validation.tasks import TaskScore

TASK = TaskScore(
    task="t",
    metric="acc",
    metrics={"acc": 1 / 3, "acc_norm": 0.5},
    values=(1.0, 0.0, 0.0),
    items=({"item": 0, "log_likelihoods": [-1.5, None]},),
)
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
            tasks=(TASK,),
        ),
        Score(scaling="cscale:9", perplexity=math.inf, seconds=0.0, losses=(math.inf, 2.0)),
        Score(scaling="bf16", perplexity=1.0, seconds=0.0, failure="layer 3: NaN"),
    ],
)
def test_a_score_comes_back_from_json_as_it_was(score):
    assert score_from_json(json.loads(json.dumps(score_to_json(score), allow_nan=False))) == score


def test_what_is_nan_comes_back_as_nan():
    score = Score(scaling="amax", perplexity=math.nan, seconds=0.0, losses=(math.nan,))
    again = score_from_json(score_to_json(score))
    assert all(map(math.isnan, (again.perplexity, *again.losses)))


def test_a_tasks_difference_is_paired_to_the_first_high_precision():
    """Oracle: paired_share of the same items."""
    answers = {"amax": (1.0, 1.0, 0.0, 0.0), "bf16": (1.0, 0.0, 1.0, 1.0), "cscale:2": (1.0, 0.0, 1.0, 1.0)}
    scores = [
        Score(scaling=name, perplexity=None, seconds=0.0, tasks=(replace(TASK, values=values),))
        for name, values in answers.items()
    ]
    task = summarize(scores)["tasks"]["t"]
    assert task["against"] == "bf16"
    expected = paired_share([True, False, True, True], [True, True, False, False])
    assert task["scores"]["amax"]["difference"] == asdict(expected)
    assert (expected.gained, expected.lost) == (1, 2)
    assert task["scores"]["cscale"]["2"]["difference"]["estimate"] == 0
    assert "difference" not in task["scores"]["bf16"]
