"""What a change costs, with an interval. Oracles: Student's distribution integrated, sums by hand."""

import math

import pytest
import torch
from models import tiny_llama, tokens

from octoscale.validation.cost import Cost, paired_cost, student, token_losses
from octoscale.validation.perplexity import perplexity


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 15, 31, 100, 1000])
def test_95_percent_of_students_distribution_lie_inside(freedom):
    """Simpson's rule on the density, from 0 to the quantile."""
    end, steps = student(freedom), 20_000
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = [scale * (1 + (end * i / steps) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(steps + 1)]
    inside = end / steps / 3 * (density[0] + 4 * sum(density[1:-1:2]) + 2 * sum(density[2:-1:2]) + density[-1])
    assert 2 * inside == pytest.approx(0.95, abs=5e-5)


def test_a_cost_is_the_mean_difference_of_windows():
    """Differences 1, 2, 3 of three windows: mean 2, standard deviation 1, t of 2 degrees 4.303."""
    before = torch.arange(12.0).view(3, 4)
    cost = paired_cost(before + torch.tensor([[1.0], [2.0], [3.0]]), before)
    assert (cost.mean, cost.margin) == (2.0, pytest.approx(4.303 / math.sqrt(3)))
    assert cost.low == 2 - cost.margin
    assert cost.high == 2 + cost.margin
    assert cost.excess == pytest.approx(math.exp(2) - 1)


@pytest.mark.parametrize(
    ("mean", "margin", "is_clear"), [(1, 0.5, True), (-1, 0.5, True), (1, 2, False), (0, 0, False)]
)
def test_a_cost_is_clear_if_its_interval_leaves_out_zero(mean, margin, is_clear):
    assert Cost(mean=mean, margin=margin).is_clear == is_clear


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_costs_more_than_any_bound(value):
    before = torch.zeros(2, 3)
    cost = paired_cost(torch.tensor([[0.0, value, 0.0], [0.0, 0.0, 0.0]]), before)
    assert (cost.mean, cost.high, cost.excess, cost.is_clear) == (math.inf, math.inf, math.inf, True)
    assert cost.to_json() == {"loss": None, "low": None, "high": None, "perplexity_excess": None, "is_clear": True}


def test_token_losses_are_those_of_the_perplexity():
    model, windows, seen = tiny_llama(), tokens(3, 12), []
    losses = token_losses(model, windows, lambda: seen.append(1))
    assert losses.shape == (3, 11)
    assert losses.dtype == torch.float64
    assert math.exp(losses.mean()) == pytest.approx(perplexity(model, windows), rel=1e-12)
    assert len(seen) == 3
