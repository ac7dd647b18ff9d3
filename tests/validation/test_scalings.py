"""A model under each scaling. Oracles: float64, the run's own files, what the model was before."""

import json
import math

import polars as pl
import pytest
import torch
from checkpoints import save_tiny_llama
from transformers import LlamaForCausalLM

import octoscale
from octoscale.models.questions import Question, Task
from octoscale.runs.folder import RunFolder
from octoscale.validation.perplexity import perplexity
from octoscale.validation.scalings import validate
from octoscale.validation.scores import summarize


@pytest.fixture
def model(tmp_path):
    return LlamaForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"), dtype=torch.float32).eval()


WINDOWS = torch.arange(60).remainder(7).view(3, 20)


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
