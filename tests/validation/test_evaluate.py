"""Perplexity, accuracy and validation. Oracles: transformers' own loss, float64, counted answers."""

import json
import math

import polars as pl
import pytest
import torch
from checkpoints import save_tiny_llama
from torch import nn
from transformers import LlamaForCausalLM

import octoscale
from octoscale.models.questions import Question, Task
from octoscale.report.terminal import scores_table
from octoscale.runs.folder import RunFolder
from octoscale.validation.evaluate import Score, accuracy, perplexity, summarize, validate


@pytest.fixture
def model(tmp_path):
    return LlamaForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"), dtype=torch.float32).eval()


WINDOWS = torch.arange(60).remainder(7).view(3, 20)


def test_perplexity_is_exp_of_transformers_own_loss(model):
    with torch.no_grad():
        losses = [float(model(window[None], labels=window[None]).loss) for window in WINDOWS]
    assert perplexity(model, WINDOWS) == pytest.approx(math.exp(sum(losses) / 3), rel=1e-6)


def test_validate_twice_gives_the_same_numbers_and_leaves_the_model_as_it_was(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (validate(model, ["fp32", "amax", "cscale:-1"], windows=WINDOWS) for _ in range(2))
    assert [score.perplexity for score in first] == [score.perplexity for score in second]
    assert len({score.perplexity for score in first}) == 3
    assert all(type(module) is not octoscale.Fp8Linear for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_another_precision_is_evaluated_on_a_copy(model):
    (score,) = validate(model, ["bf16"], windows=WINDOWS)
    expected = perplexity(model.to(torch.bfloat16), WINDOWS)
    assert score.perplexity == pytest.approx(expected, rel=1e-2)


def test_a_run_holds_every_cast_every_loss_and_the_summary(model, tmp_path):
    validate(
        model, ["fp32", "amax", "cscale:0"], windows=WINDOWS, folder=tmp_path / "run", every=2, head={"model": "m"}
    )
    run = RunFolder.open(tmp_path / "run")
    scales = octoscale.read_scales(run.path)
    per_role = scales.group_by("scaling", "role").len().sort("scaling", "role").rows()
    assert per_role == [
        ("amax", "input", 42),
        ("amax", "weight", 14),
        ("cscale:0", "input", 42),
        ("cscale:0", "weight", 14),
    ]
    has_histogram = scales.filter(pl.col("exponents").is_not_null())
    assert set(has_histogram["scaling"]) == {"amax"}
    assert set(has_histogram["step"]) == {0, 2}
    losses = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert len(losses) == 9
    summary = run.read_json(run.summary)
    assert summary["model"] == "m"
    assert set(summary["perplexity"]) == {"fp32", "amax", "cscale"}
    expected = math.exp(sum(row["loss"] for row in losses if row["scaling"] == "amax") / 3)
    assert summary["perplexity"]["amax"] == pytest.approx(expected, rel=1e-9)


def test_a_stop_in_the_middle_leaves_a_valid_shorter_run(model, tmp_path):
    def stop(scaling, done, total):
        if (scaling, done) == ("cscale:0", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(model, ["amax", "cscale:0", "cscale:1"], windows=WINDOWS, folder=tmp_path / "run", progress=stop)
    run = RunFolder.open(tmp_path / "run")
    assert set(run.read_json(run.summary)["perplexity"]) == {"amax"}
    assert set(octoscale.read_scales(run.path)["scaling"]) == {"amax", "cscale:0"}
    assert octoscale.convert(model, octoscale.Recipe.amax()).converted  # it was reverted


def test_a_layer_that_meets_nan_is_named_and_the_other_scalings_go_on(model, tmp_path):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    scores = validate(model, ["amax", "cscale:0"], windows=WINDOWS, folder=tmp_path / "run")
    assert [score.failure is not None for score in scores] == [True, True]
    assert "model.layers.1.mlp.up_proj: the weight" in scores[0].failure
    summary = RunFolder(tmp_path / "run").read_json(tmp_path / "run" / "summary.json")
    assert summary["perplexity"] == {"amax": None, "cscale": {"0": None}}
    assert "up_proj" in summary["failures"]["cscale:0"]


def test_summary_groups_constant_scales_by_bias():
    scores = [
        Score(scaling=name, perplexity=1.0, seconds=0.1) for name in ("bf16", "cscale:-8", "cscale:6", "amax:margin=3")
    ]
    assert summarize(scores)["perplexity"] == {"bf16": 1.0, "cscale": {"-8": 1.0, "6": 1.0}, "amax:margin=3": 1.0}


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


def test_a_failure_before_the_questions_has_no_accuracy(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = math.nan
    task = Task(questions=[Question(query="Q", choices=("a", "b"), gold=1)], encode=lambda t: list(t.encode()))
    (score,) = validate(model, ["amax"], windows=WINDOWS, task=task)
    assert summarize([score])["accuracy"] == {"amax": None}
    assert "up_proj" in score.failure


def test_a_model_in_fp8_already_is_refused_and_left_as_it_was(model):
    octoscale.convert(model, octoscale.Recipe.amax())
    for scaling in ("fp32", "amax"):
        with pytest.raises(ValueError, match="in FP8 already"):
            validate(model, [scaling], windows=WINDOWS)
    assert octoscale.revert(model) == 14


def test_a_model_in_training_mode_is_refused(model):
    with pytest.raises(ValueError, match="in training mode, with dropout"):
        validate(model.train(), ["fp32"], windows=WINDOWS)


def test_two_scalings_of_one_name_are_refused(model):
    recipes = [octoscale.Recipe.amax(), octoscale.Recipe.amax(skip=["down_proj"])]
    with pytest.raises(ValueError, match="a scaling is named twice: amax"):
        validate(model, recipes, windows=WINDOWS)


def test_records_of_two_runs_are_not_mixed(model, tmp_path):
    validate(model, ["amax"], windows=WINDOWS, folder=tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds the records"):
        validate(model, ["amax"], windows=WINDOWS, folder=tmp_path / "run")


def test_logits_that_are_nan_are_a_failure_in_words():
    scores = [
        Score(scaling="fp16", perplexity=math.nan, seconds=0.1),
        Score(scaling="bf16", perplexity=math.inf, seconds=0.1),
    ]
    assert summarize(scores)["failures"] == {
        "fp16": "the perplexity is NaN: the logits hold infinity or NaN",
        "bf16": "it exceeds 1e308",
    }
