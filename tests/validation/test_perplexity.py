"""Perplexity and accuracy. Oracles: transformers' own loss, counted answers."""

import math

import pytest
import torch
from checkpoints import save_tiny_llama
from torch import nn
from transformers import LlamaForCausalLM

from octoscale.models.questions import Question, Task
from octoscale.report.terminal import scores_table
from octoscale.runs.folder import RunFolder
from octoscale.validation.perplexity import accuracy, perplexity
from octoscale.validation.scalings import validate


def test_perplexity_is_exp_of_transformers_own_loss(tmp_path):
    model = LlamaForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"), dtype=torch.float32).eval()
    windows = torch.arange(60).remainder(7).view(3, 20)
    with torch.no_grad():
        losses = [float(model(window[None], labels=window[None]).loss) for window in windows]
    assert perplexity(model, windows) == pytest.approx(math.exp(sum(losses) / 3), rel=1e-6)


class Likes(nn.Module):
    """A model that predicts one token, whatever it reads."""

    def __init__(self, token):
        super().__init__()
        self.token, self.device = token, nn.Parameter(torch.zeros(()))

    def forward(self, input_ids, use_cache):
        logits = torch.zeros(*input_ids.shape, 256)
        logits[..., self.token] = 5.0
        return type("Output", (), {"logits": logits})


def test_accuracy_counts_the_likeliest_choice_per_byte():
    task = Task(
        questions=[
            Question(query="Q: ", choices=("aab", "aa"), gold=1),
            Question(query="Q:", choices=("ba", "aaaa"), gold=1),
            Question(query="Q:", choices=("bb", "ab"), gold=0),
        ],
        encode=lambda text: list(text.encode()),
    )
    assert accuracy(Likes(ord("a")).eval(), task) == pytest.approx(2 / 3)


class Says(Likes):
    """Logits of one value for a token, 0 for all others."""

    def __init__(self, token, value):
        super().__init__(token)
        self.value = value

    def forward(self, input_ids, use_cache):
        output = super().forward(input_ids, use_cache)
        output.logits[..., self.token] = self.value
        return output


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gold", [0, 1])
def test_logits_that_are_not_finite_have_no_accuracy(value, gold, tmp_path):
    """Neither choice wins, whichever is right; it is said, and JSON gets a null."""
    task = Task(questions=[Question(query="Q", choices=("aa", "aaa"), gold=gold)], encode=lambda t: list(t.encode()))
    model = Says(ord("a"), value).eval()
    assert math.isnan(accuracy(model, task))
    windows = torch.full((1, 4), ord("b"))
    (score,) = validate(model, ["fp32"], windows=windows, task=task, folder=tmp_path / "run")
    assert math.isnan(score.accuracy)
    summary = RunFolder(tmp_path / "run").read_json(tmp_path / "run" / "summary.json")
    assert summary["accuracy"] == {"fp32": None}
    assert "hold infinity or NaN" in summary["failures"]["fp32"]
    assert scores_table({**summary, "model": "m"}).row_count == 1


def test_one_impossible_choice_is_no_failure():
    """Oracle: by hand; a token of probability 0 loses against one that has some."""
    task = Task(questions=[Question(query="Q", choices=("a", "b"), gold=1)], encode=lambda t: list(t.encode()))
    assert accuracy(Says(ord("a"), -math.inf).eval(), task) == 1.0
