"""What a change costs, with an interval. Oracles: sums by hand."""

import math

import pytest
import torch
from models import tiny_llama, tokens

from octoscale.advise.cost import Mean, cost_of, look, mean_of
from octoscale.conversion.convert import convert
from octoscale.numerics.recipe import Recipe
from octoscale.validation.paired import t_quantile
from octoscale.validation.perplexity import perplexity


def test_a_mean_of_windows():
    """1, 2, 3: mean 2, standard deviation 1, t of 2 degrees 4.303."""
    mean = mean_of([1.0, 2.0, 3.0])
    assert (mean.mean, mean.margin) == (2.0, pytest.approx(4.303 / math.sqrt(3), rel=1e-4))
    assert (mean.low, mean.high) == (2 - mean.margin, 2 + mean.margin)
    assert mean.excess == pytest.approx(math.exp(2) - 1)


@pytest.mark.parametrize(
    ("mean", "margin", "is_clear"), [(1, 0.5, True), (-1, 0.5, True), (1, 2, False), (0, 0, False)]
)
def test_a_mean_is_clear_if_its_interval_leaves_out_zero(mean, margin, is_clear):
    assert Mean(mean=mean, margin=margin).is_clear == is_clear


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_costs_more_than_any_bound(value):
    mean = mean_of([0.0, value])
    assert (mean.mean, mean.high, mean.excess, mean.is_clear) == (math.inf, math.inf, math.inf, True)
    assert mean.to_json() == {"loss": None, "low": None, "high": None, "perplexity_excess": None, "is_clear": True}


def test_the_losses_are_those_of_the_perplexity():
    model, windows = tiny_llama(), tokens(3, 12)
    losses = look(model, windows).losses
    assert (losses.shape, losses.dtype) == ((3, 11), torch.float64)
    assert math.exp(losses.mean()) == pytest.approx(perplexity(model, windows), rel=1e-6)


def both_of(model, other, windows):
    """Losses and divergences of each window in float64, over the whole vocabulary."""
    before, after = (
        model(input_ids=windows).logits[:, :-1].detach().double().log_softmax(-1) for model in (model, other)
    )
    picked = [x.gather(-1, windows[:, 1:, None])[..., 0] for x in (before, after)]
    return (picked[0] - picked[1]).mean(1), (before.exp() * (before - after)).sum(-1).mean(1)


@pytest.mark.parametrize(("num_likely", "share"), [(128, 1.0), (40, 0.5)])
def test_a_cost_is_the_difference_of_losses_and_the_divergence(monkeypatch, num_likely, share):
    """All 96 probabilities, or fewer and the sum of the others: then the divergence is smaller, and no more."""
    monkeypatch.setattr("octoscale.advise.cost.NUM_LIKELY", num_likely)
    model, other, windows = tiny_llama(), tiny_llama(seed=1), tokens(3, 12)
    cost = cost_of(other, windows, look(model, windows))
    losses, divergences = both_of(model, other, windows)
    assert cost.measured.mean == pytest.approx(float(losses.mean()), abs=1e-6)
    assert cost.measured.margin == pytest.approx(t_quantile(2) * float(losses.std()) / math.sqrt(3), rel=1e-4)
    exact = float(divergences.mean())
    assert share * exact - 1e-6 <= cost.expected.mean <= exact + 1e-6
    assert share < 1 or cost.expected.mean == pytest.approx(exact, rel=1e-4)


def test_a_model_beside_itself_costs_nothing():
    model, windows = tiny_llama(), tokens(3, 12)
    cost = cost_of(model, windows, look(model, windows))
    assert (cost.measured.mean, cost.expected.mean) == (0.0, 0.0)


def test_infinity_in_a_layer_is_an_infinite_cost():
    model, windows = tiny_llama(), tokens(3, 12)
    before = look(model, windows)
    model.model.norm.weight.data[0] = torch.inf
    assert cost_of(model, windows, before).expected.mean == math.inf
    model.model.layers[0].input_layernorm.weight.data[0] = torch.inf
    convert(model, Recipe.amax())
    cost = cost_of(model, windows, before)
    assert (cost.measured.mean, cost.expected.mean) == (math.inf, math.inf)
