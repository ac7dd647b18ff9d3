"""bench growth measures what it names. Oracle: arithmetic, and the modules that a step runs."""

import pytest
import torch

from octoscale.bench import growth
from octoscale.layers.linear import Fp8Linear
from octoscale.numerics.recipe import Recipe
from octoscale.report import terminal


def test_the_ratios_follow_from_the_seconds(monkeypatch):
    monkeypatch.setattr(growth, "LAYERS", ("gpt-10m",))
    of_turns = {growth.BF16: [2.0, 4.0, 4.0], growth.FP8: [3.0, 6.0, 9.0]}  # ratios 1.5, 1.5, 2.25
    monkeypatch.setattr(growth, "_on_ranks", lambda *_: of_turns)
    report = growth.growth(rounds=1)
    layer = report["seconds"]["a layer of gpt-10m"]
    expected = [layer[growth.FP8] / layer[growth.BF16], 1.5, 1.5]
    assert list(report["ratios"].values()) == pytest.approx(expected)
    assert list(report["ratios"]) == [f"time_over_bf16, {what}" for what in ("a layer of gpt-10m", "1 rank", "2 ranks")]
    quartiles = report["quartiles of the turns' ratios"]
    assert quartiles["a layer of gpt-10m"] == {"lower": expected[0], "upper": expected[0]}
    assert quartiles["2 ranks"] == {"lower": 1.5, "upper": 1.875}
    assert terminal.bench_table(report).row_count > 6


@pytest.mark.parametrize("recipe", [None, Recipe.amax()])
def test_a_step_of_a_layer_casts_its_weights_anew(recipe, monkeypatch):
    """As after an optimizer's step."""
    made = []
    model_of = growth._model
    monkeypatch.setattr(growth, "_model", lambda *args: made.append(model_of(*args)) or made[-1])
    step = growth._layer_step("gpt-10m", recipe)
    layers = [layer for layer in made[0].modules() if isinstance(layer, Fp8Linear)]
    assert len(layers) == (0 if recipe is None else 4)
    casts = []
    for _ in range(2):
        step()
        casts.append([layer.fp8.runtime.weight[1] for layer in layers])
        assert all(parameter.grad is None for parameter in made[0].transformer.h[0].parameters())
    assert all(first is not second for first, second in zip(*casts, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("number", growth.RANKS)
def test_ranks_take_a_step_together(number):
    seconds = growth._on_ranks(number, 2)
    assert set(seconds) == {growth.BF16, growth.FP8}
    assert torch.tensor(list(seconds.values())).shape == (2, 2)
    assert all(second > 0 for of_turns in seconds.values() for second in of_turns)
