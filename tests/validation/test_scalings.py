"""A model under each scaling. Oracles: float64, the run's own files, what the model was before."""

import copy
import json
import math

import polars as pl
import pytest
import torch
from checkpoints import save_tiny_llama
from transformers import LlamaForCausalLM

import octoscale
from octoscale.layers.state import NonFiniteError
from octoscale.runs.folder import RunFolder
from octoscale.validation.perplexity import perplexity
from octoscale.validation.scalings import validate
from octoscale.validation.scores import summarize
from octoscale.validation.tasks import TaskScore


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


@pytest.mark.parametrize("scaling", ["bf16", "amax"])
def test_under_autocast_the_float32_weights_are_cast_as_in_training(scaling, model):
    """Oracle: the model under torch.autocast. Weights rounded to bfloat16 before give another number."""
    nudged = {id(parameter) for parameter in model.parameters() if parameter.ndim == 2}
    with torch.no_grad():
        for parameter in model.parameters():
            if id(parameter) in nudged:  # to the ties of E4 that bfloat16 holds, and a little further up
                parameter.copy_(((parameter * 2**8).round() + 0.5) / 2**8 * (1 + 2**-14))
    (score,) = validate(model, [scaling], windows=WINDOWS, autocast=torch.bfloat16)
    (rounded,) = validate(copy.deepcopy(model).bfloat16(), [scaling], windows=WINDOWS)
    if scaling == "amax":
        octoscale.convert(model, octoscale.Recipe.amax())
    with torch.autocast("cpu", torch.bfloat16):
        assert score.perplexity == perplexity(model, WINDOWS)
    assert score.perplexity != rounded.perplexity


def test_autocast_is_of_its_own_precision_alone_and_of_float32_parameters(model):
    """Oracle: the model as it is, in float32."""
    (score,) = validate(model, ["fp32"], windows=WINDOWS, autocast=torch.bfloat16)
    assert score.perplexity == perplexity(model, WINDOWS)
    with pytest.raises(octoscale.UserError, match=r"keeps float32 parameters, and model\.embed_tokens\.weight is none"):
        validate(model.bfloat16(), ["amax"], windows=WINDOWS, autocast=torch.bfloat16)


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


class Answers:
    """Two tasks; whatever the model, it gets two of three items right, and the second task fails."""

    size = 4

    def ask(self, model, on_batch=None):
        items = tuple({"item": number, "acc": value} for number, value in enumerate((1.0, 0.0, 1.0)))
        on_batch(3)
        yield TaskScore(task="a/b", metric="acc", metrics={"acc": 2 / 3}, values=(1.0, 0.0, 1.0), items=items)
        raise NonFiniteError("c, item 0: its logits hold infinity or NaN")


def test_tasks_are_asked_under_each_scaling_and_kept_item_by_item(model, tmp_path):
    """What came before a failure stays."""
    heard = []
    scores = validate(
        model,
        ["fp32", "cscale:0"],
        tasks=Answers(),
        windows=WINDOWS,
        folder=tmp_path / "run",
        progress=lambda *words: heard.append(words),
    )
    assert [score.tasks[0].values for score in scores] == [(1.0, 0.0, 1.0)] * 2
    assert [words[1:] for words in heard[:4]] == [(1, 7), (2, 7), (3, 7), (6, 7)]
    run = RunFolder(tmp_path / "run")
    summary = run.read_json(run.summary)
    task = summary["tasks"]["a/b"]
    assert (task["metric"], task["items"]) == ("acc", 3)
    assert task["scores"]["fp32"] == {"acc": 2 / 3, "standard_error": pytest.approx(1 / 3)}
    assert task["scores"]["cscale"]["0"]["acc"] == 2 / 3
    assert summary["failures"]["cscale:0"] == "c, item 0: its logits hold infinity or NaN"
    assert sorted(path.name for path in run.items.iterdir()) == ["a_b.cscale_0.jsonl", "a_b.fp32.jsonl"]
    rows = [json.loads(line) for line in (run.items / "a_b.fp32.jsonl").read_text().splitlines()]
    assert rows[1] == {"task": "a/b", "scaling": "fp32", "item": 1, "acc": 0.0}


def test_tasks_alone_have_no_perplexity(model):
    (score,) = validate(model, ["fp32"], tasks=Answers())
    assert score.perplexity is None
    assert "perplexity" not in summarize([score])
    with pytest.raises(ValueError, match="nothing is asked of the model"):
        validate(model, ["fp32"])


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
