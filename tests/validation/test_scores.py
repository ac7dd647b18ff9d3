"""The summary of a run. Oracle: scores written down by hand."""

import math

from octoscale.validation.scores import Score, summarize


def test_summary_groups_constant_scales_by_bias():
    scores = [
        Score(scaling=name, perplexity=1.0, seconds=0.1) for name in ("bf16", "cscale:-8", "cscale:6", "amax:margin=3")
    ]
    assert summarize(scores)["perplexity"] == {"bf16": 1.0, "cscale": {"-8": 1.0, "6": 1.0}, "amax:margin=3": 1.0}


def test_logits_that_are_nan_are_a_failure_in_words():
    scores = [
        Score(scaling="fp16", perplexity=math.nan, seconds=0.1),
        Score(scaling="bf16", perplexity=math.inf, seconds=0.1),
    ]
    assert summarize(scores)["failures"] == {
        "fp16": "the perplexity is NaN: the logits hold infinity or NaN",
        "bf16": "it exceeds 1e308",
    }
