"""bench growth measures what it names. Oracle: arithmetic, and the modules that a step runs."""

import pytest
import torch

from octoscale.bench import growth
from octoscale.layers.linear import Fp8Linear
from octoscale.numerics.recipe import Recipe
from octoscale.report import terminal


def test_the_ratios_follow_from_the_seconds(monkeypatch):
    monkeypatch.setattr(growth, "LAYERS", ("gpt-10m",))
    monkeypatch.setattr(growth, "_on_ranks", lambda number, _: {growth.BF16: 2.0 * number, growth.FP8: 3.0 * number})
    report = growth.growth(rounds=1)
    layer = report["seconds"]["a layer of gpt-10m"]
    expected = [layer[growth.FP8] / layer[growth.BF16], 1.5, 1.5]
    assert list(report["ratios"].values()) == pytest.approx(expected)
    assert list(report["ratios"]) == [f"time_over_bf16, {what}" for what in ("a layer of gpt-10m", "1 rank", "2 ranks")]
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
    seconds = growth._on_ranks(number, 1)
    assert set(seconds) == {growth.BF16, growth.FP8}
    assert all(second > 0 for second in torch.tensor(list(seconds.values())))
