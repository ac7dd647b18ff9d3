"""Loss scales, and steps with infinity or NaN. Oracles: arithmetic of powers of two; GradScaler's halvings."""

import math

import pytest
import torch
from checkpoints import save_tiny_llama
from torch import nn

from octoscale.models import loading
from octoscale.runs.scales import read_scales
from octoscale.training import trainer
from octoscale.training.run import run_training
from octoscale.training.settings import Training, named_preset

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    checkpoint = str(save_tiny_llama(folder / "llama"))
    return {
        "model": checkpoint,
        "text": str(folder / "text.txt"),
        "window": 32,
        "steps": 4,
        "learning_rate": 1e-2,
        "every": 0,
        "save_every": 0,
    }


def losses(run) -> list[float]:
    return [row["loss"] for row in run.read_metrics() if "loss" in row]


def test_a_power_of_two_moves_the_scales_and_nothing_else(words, tmp_path):
    """Oracle: under amax, a loss times 2**10 lowers each gradient's scale_bias by 10, and leaves all bits of losses."""
    plain, scaled = (
        run_training(Training(**words, dtype="fp32", loss_scale=scale), tmp_path / str(scale))
        for scale in ("none", "1024")
    )
    assert losses(plain) == losses(scaled)
    before, after = (read_scales(run.path) for run in (plain, scaled))
    shift = (before["scale_bias"] - after["scale_bias"]).to_list()
    assert shift == [10 if role == "grad_output" else 0 for role in before["role"]]


@pytest.mark.parametrize("loss_scale", [None, "512"])
def test_fp16_learns_as_fp32(words, tmp_path, loss_scale):
    ours = run_training(Training(**words, dtype="fp16", loss_scale=loss_scale), tmp_path / "fp16")
    exact = run_training(Training(**words, scaling="fp32", dtype="fp32"), tmp_path / "fp32")
    assert losses(exact)[-1] < losses(exact)[0] - 0.3
    assert losses(ours) == pytest.approx(losses(exact), rel=0.03)


def test_a_step_with_infinity_is_skipped_counted_and_recorded(words, tmp_path, monkeypatch):
    """Oracle: a skipped step leaves the model as it was, and halves the scale; the loss is then that of before."""
    monkeypatch.setattr(trainer, "INITIAL_SCALE", 2.0**30)
    run = run_training(Training(**words, dtype="fp16"), tmp_path / "run")
    skipped = [row for row in run.read_metrics() if row.get("skipped")]
    assert [row["step"] for row in skipped] == [*range(1, len(skipped) + 1)]
    assert [row["loss_scale"] for row in skipped] == [2.0 ** (29 - index) for index in range(len(skipped))]
    assert len(skipped) == 4
    assert run.read_json(run.summary)["skipped_steps"] == len(skipped)
    norms = [row["grad_norm"] for row in run.read_metrics() if "grad_norm" in row]
    assert [norm is None for norm in norms] == [index < len(skipped) for index in range(4)]


def test_a_search_for_a_scale_that_finds_none_ends(words, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "INITIAL_SCALE", 2.0**100)
    with pytest.raises(FloatingPointError, match=r"step 26: .* holds infinity or NaN after 25 skipped steps"):
        run_training(Training(**{**words, "steps": 30}, dtype="fp16"), tmp_path / "run")


@pytest.fixture
def sick(monkeypatch):
    """A model whose last down_proj multiplies gradients by infinity from the third step on."""
    load = loading.load

    def load_sick(*args, **options):
        loaded = load(*args, **options)
        passes = []

        def poison(_: nn.Module, __: object, output: torch.Tensor) -> None:
            if output.requires_grad:
                passes.append(1)
                if len(passes) >= 3:
                    output.register_hook(lambda grad: grad * math.inf)

        loaded.model.model.layers[1].mlp.down_proj.register_forward_hook(poison)
        return loaded

    monkeypatch.setattr(loading, "load", load_sick)


@pytest.mark.parametrize(
    ("scaling", "where"),
    [
        ("amax", "the gradient that reaches model.layers.1.mlp.down_proj"),
        ("fp32", "the gradient of model.layers.1.post_attention_layernorm.weight"),
    ],
)
def test_without_a_dynamic_scale_training_stops_with_the_layers_name(words, sick, tmp_path, scaling, where):
    plan = Training(**{**words, "save_every": 1}, scaling=scaling, dtype="fp32")
    with pytest.raises(FloatingPointError) as caught:
        run_training(plan, tmp_path / "run")
    assert f"step 3: {where} holds infinity or NaN, the loss is" in str(caught.value)
    assert str(caught.value).endswith("The last good checkpoint is " + str(tmp_path / "run/checkpoints/checkpoint-2"))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "often"])
def test_a_loss_scale_that_is_none(text):
    with pytest.raises(ValueError, match=f"loss scale '{text}': a number above 0, dynamic, or none"):
        Training(model="gpt-111m", loss_scale=text)


def test_the_papers_hyper_parameters():
    """Oracle: Tables 1 and 8 of the paper, its 512 sequences a step."""
    plan = Training(model="gpt-1.3b", batch=8, **named_preset("paper", "gpt-1.3b", 8))
    assert (plan.scaling, plan.formats, plan.dtype, plan.constant_loss_scale) == ("amax:margin=3", "fnuz", "fp16", 4096)
    assert (plan.window, plan.accumulate, plan.learning_rate, plan.weight_decay) == (528, 64, 3e-5, 0.0)


@pytest.mark.parametrize(
    ("name", "model", "batch", "message"),
    [
        ("other", "gpt-111m", 4, "unknown preset 'other': there is paper"),
        ("paper", "smollm2-135m", 4, "--preset paper has no row for smollm2-135m: its sizes are gpt-111m"),
        ("paper", "gpt-111m", 3, "takes 512 sequences a step, which --batch 3 does not divide"),
    ],
)
def test_a_preset_that_does_not_fit(name, model, batch, message):
    with pytest.raises(ValueError, match=message):
        named_preset(name, model, batch)
