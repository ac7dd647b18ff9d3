"""Training by Trainer. Oracles: a plain PyTorch loop on the same windows; the losses of a training without FP8."""

import json

import polars as pl
import pytest
import torch
import transformers
from checkpoints import save_tiny_llama
from models import VOCABULARY, tiny_gpt2, tiny_llama

import octoscale
from octoscale import Recipe
from octoscale.layers import bf16_gemm
from octoscale.models.loading import load
from octoscale.numerics.recipe import parse_scaling
from octoscale.runs.scales import read_scales
from octoscale.training.callback import TrainerCallback
from octoscale.training.run import run_training
from octoscale.training.settings import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own

ROLES = {"weight", "input", "grad_output"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(save_tiny_llama(tmp_path_factory.mktemp("models") / "llama"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    return str(path)


def plan(checkpoint: str, text: str, **changes) -> Training:
    words = {"window": 32, "steps": 12, "batch": 4, "learning_rate": 1e-2, "every": 4}
    return Training(model=checkpoint, text=text, **{**words, **changes})


def losses(run) -> list[float]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def runs(checkpoint, text, tmp_path_factory):
    """The same training in fp32 and in FP8, from the same weights, in the same order."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        scaling: run_training(plan(checkpoint, text, scaling=scaling, dtype="fp32"), folder / scaling[:4])
        for scaling in ("fp32", "amax", "cscale:2")
    }


@pytest.mark.parametrize("scaling", ["amax", "cscale:2"])
def test_the_loss_follows_that_of_high_precision(runs, scaling):
    """Oracle: fp32, which learns the text: the loss falls by 2 nats and more, and FP8's stays within 3 % of it."""
    exact, ours = losses(runs["fp32"]), losses(runs[scaling])
    assert len(ours) == 12
    assert exact[-1] < exact[0] - 1
    assert ours == pytest.approx(exact, rel=0.03)


def test_every_step_has_rows_of_all_roles(runs):
    """Oracle: 14 linear layers, 12 steps, one micro-batch; histograms on every fourth step."""
    rows = read_scales(runs["amax"].path)
    assert set(rows["role"]) == ROLES
    for role in ROLES:
        per_step = rows.filter(pl.col("role") == role).group_by("step").len().sort("step")
        assert per_step["step"].to_list() == list(range(12))
        assert per_step["len"].to_list() == [14] * 12
    with_exponents = rows.filter(pl.col("exponents").is_not_null())
    assert set(with_exponents["step"]) == {0, 4, 8}
    assert set(rows["phase"]) == {"train"}


def test_the_weight_is_cast_once_for_all_micro_batches(checkpoint, text, tmp_path):
    """Oracle: 3 micro-batches a step give 3 rows of inputs and gradients, and one of weights."""
    run = run_training(plan(checkpoint, text, steps=2, batch=1, accumulate=3), tmp_path / "run")
    count = read_scales(run.path).filter(pl.col("step") == 1).group_by("role").len()
    assert dict(count.iter_rows()) == {"weight": 14, "input": 42, "grad_output": 42}


def test_the_summary_says_what_was_reached(runs):
    summary = runs["amax"].read_json(runs["amax"].summary)
    assert (summary["steps"], summary["tokens"], summary["scaling"]) == (12, 12 * 4 * 32, "amax")
    assert summary["validation_loss"]["after"] < summary["validation_loss"]["before"] - 1
    assert summary["training_loss"] == pytest.approx(sum(losses(runs["amax"])) / 12, rel=1e-3)


def test_the_trained_model_is_a_checkpoint(runs, checkpoint):
    """Oracle: transformers loads it, with the names and shapes that it began with, and other values."""
    before, after = load(checkpoint).model.state_dict(), load(str(runs["amax"].path / "model")).model.state_dict()
    assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
    assert not torch.equal(after["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"])


def test_the_same_training_has_the_same_bits(checkpoint, text, tmp_path):
    first, second = (run_training(plan(checkpoint, text, steps=3), tmp_path / name) for name in ("a", "b"))
    assert losses(first) == losses(second)
    assert read_scales(first.path).drop("exponents").equals(read_scales(second.path).drop("exponents"))


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_the_callback_serves_any_trainer(make, tmp_path):
    """A Trainer of one's own, with its own data; GPT-2's Conv1D layers too."""
    model = make().train()
    octoscale.convert(model, Recipe.amax(margin=1))
    windows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, VOCABULARY, (8, 16))]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        dataloader_pin_memory=False,
    )
    callback = TrainerCallback(tmp_path / "run", every=0, scaling="amax")
    transformers.Trainer(model=model, args=arguments, train_dataset=windows, callbacks=[callback]).train()
    rows = read_scales(tmp_path / "run")
    assert set(rows["role"]) == ROLES
    assert set(rows["step"]) == {0, 1}
    assert all(layer.fp8.runtime.recorder is None for layer in model.modules() if hasattr(layer, "fp8"))


@pytest.mark.parametrize("scaling", ["amax", "delayed:history=3"])
def test_an_evaluation_in_between_writes_no_row_and_takes_none(scaling, tmp_path):
    """Oracle: the same training without evaluation: the same rows, weights too, and the same losses."""
    windows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, VOCABULARY, (8, 16))]
    rows, logged = {}, {}
    for strategy in ("no", "steps"):
        model = tiny_llama().train()
        octoscale.convert(model, parse_scaling(scaling))
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=5,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            eval_strategy=strategy,
            eval_steps=2,
            logging_steps=1,
            dataloader_pin_memory=False,
        )
        run = tmp_path / strategy
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=windows,
            eval_dataset=windows,
            callbacks=[TrainerCallback(run, every=2, scaling=scaling)],
        )
        trainer.train()
        rows[strategy] = read_scales(run).sort("step", "module", "role")
        logged[strategy] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    per_step = rows["steps"].filter(pl.col("role") == "weight").group_by("step").len().sort("step")
    assert per_step.rows() == [(step, 14) for step in range(5)]
    assert rows["steps"].equals(rows["no"])
    assert logged["steps"] == logged["no"]


@pytest.mark.filterwarnings("ignore")
def test_trackers_get_losses_and_scales(checkpoint, text, tmp_path):
    """Oracle: the rows of the run; tensorboard reads its own events."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = run_training(plan(checkpoint, text, steps=2, report_to=["tensorboard"]), tmp_path / "run")
    events = reader.EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    sent = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert sent["train/loss"] == pytest.approx(losses(run))
    rows = read_scales(run.path).filter(role="grad_output", kind="ffn_out")
    mean = rows.group_by("step", maintain_order=True).agg(pl.col("scale_bias").mean())["scale_bias"].to_list()
    assert sent["train/scale_bias/grad_output/ffn_out"] == pytest.approx(mean)
    assert not any("scale_bias" in key for row in run.read_metrics() for key in row)


def test_a_tracker_that_is_not_installed(checkpoint, text, tmp_path):
    with pytest.raises(ValueError, match="cannot report to nowhere: install its package; there is "):
        run_training(plan(checkpoint, text, report_to=["nowhere"]), tmp_path / "run")


def test_the_learning_rate_rises_and_is_constant_then(checkpoint, text, tmp_path):
    """Oracle: by hand; the rate that a step is taken with."""
    run = run_training(plan(checkpoint, text, steps=5, warmup=3), tmp_path / "run")
    rates = [row["learning_rate"] for row in run.read_metrics() if "learning_rate" in row]
    assert rates == pytest.approx([0.0, 1e-2 / 3, 2e-2 / 3, 1e-2, 1e-2])


# What the user got wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "fp8"}, "unknown dtype 'fp8' for training: one of bf16, fp16, fp32"),
        ({"scaling": "fp32"}, "scaling fp32 is no FP8, and dtype bf16 is another precision: --dtype fp32"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"batch": 0}, "batch=0: must be at least 1"),
        ({"validation": 1.0}, "validation=1.0: the part of the data kept for validation"),
        ({"learning_rate": 0.0}, "learning rate 0.0: must be above 0"),
        ({"every": -1}, "every=-1: histograms"),
        ({"save_every": -1}, "save_every=-1: checkpoints"),
        ({"warmup": -1}, "warmup=-1: the steps"),
        ({"weight_decay": -0.1}, "weight decay -0.1: must be at least 0"),
        ({"weight_decay": float("nan")}, "weight decay nan: must be at least 0, and finite"),
        ({"learning_rate": float("inf")}, "learning rate inf: must be above 0, and finite"),
        ({"seed": -1}, r"seed -1: a whole number from 0 to 2\*\*32 - 1"),
        ({"seed": 2**32}, "seed 4294967296: a whole number"),
    ],
)
def test_a_plan_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        Training(model="gpt-111m", **changes)


def test_a_text_too_short_to_be_split(checkpoint, tmp_path):
    (tmp_path / "short.txt").write_text("x" * 40)
    with pytest.raises(
        ValueError, match=r"the text .* fills 1 window of 32 tokens; training needs one and validation another"
    ):
        run_training(plan(checkpoint, str(tmp_path / "short.txt")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pattern_that_matches_nothing_makes_no_run(checkpoint, text, tmp_path):
    with pytest.raises(ValueError, match="nosuch"):
        run_training(plan(checkpoint, text, skip=["nosuch"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_ends_the_training(checkpoint, text, tmp_path):
    """It names the step, and the records until then stay."""
    with pytest.raises(FloatingPointError, match=r"step \d+: .* holds infinity or NaN, the loss is"):
        run_training(plan(checkpoint, text, learning_rate=1e30), tmp_path / "run")
    assert read_scales(tmp_path / "run").height > 0


def test_without_bfloat16_products_layers_multiply_in_float32(checkpoint, text, tmp_path, monkeypatch):
    """On a CPU that has none, torch's loops are 5 to 80 times slower; the losses are those of torch's."""
    used = []
    product = bf16_gemm._Product.forward
    monkeypatch.setattr(bf16_gemm, "cpu_has_bf16_gemm", lambda: True)
    theirs = losses(run_training(plan(checkpoint, text, scaling="bf16"), tmp_path / "theirs"))
    monkeypatch.setattr(bf16_gemm, "cpu_has_bf16_gemm", lambda: False)
    monkeypatch.setattr(
        bf16_gemm._Product, "forward", staticmethod(lambda *operands: used.append(1) or product(*operands))
    )
    ours = losses(run_training(plan(checkpoint, text, scaling="bf16"), tmp_path / "ours"))
    assert used
    assert ours == pytest.approx(theirs, rel=0.01)
