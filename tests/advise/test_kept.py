"""What is kept of passes. Oracle: what was kept, compared after JSON has been there and back."""

import json
import math

import pytest
from models import tiny_gpt2, tiny_llama, tokens

from octoscale.advise.cost import Cost, cost_of, look, mean_of
from octoscale.advise.estimate import estimate_costs
from octoscale.advise.keeping import in_fp8
from octoscale.advise.kept import cost_of_cell, cost_to_cell, estimates_of_cell, estimates_to_cell, number_to_cell
from octoscale.conversion.convert import preview
from octoscale.numerics.recipe import Recipe


def there_and_back(cell):
    return json.loads(json.dumps(cell, allow_nan=False))


@pytest.mark.parametrize("value", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, math.inf, -math.inf, math.nan])
def test_a_number_comes_back_to_the_last_bit(value):
    found = float(there_and_back(number_to_cell(value)))
    assert found.hex() == value.hex()


def test_a_cost_comes_back():
    model, windows = tiny_llama(), tokens(3, 12)
    rows, before = preview(model, Recipe.cscale(7)).converted, look(model, windows)
    with in_fp8(model, Recipe.cscale(7), rows):
        cost = cost_of(model, windows, before)
    assert cost.measured.mean != 0
    assert cost_of_cell(there_and_back(cost_to_cell(cost))) == cost


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_a_cost_that_is_not_finite_comes_back(value):
    cost = Cost(measured=mean_of([0.25, value]), expected=mean_of([0.5, 0.125]))
    found = cost_of_cell(there_and_back(cost_to_cell(cost)))
    assert found == cost
    assert found.measured.to_json() == cost.measured.to_json()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("recipe", [Recipe.amax(), Recipe.cscale(-3)], ids=str)
def test_estimates_come_back(make, recipe):
    model, windows = make(), tokens(3, 12)
    rows = preview(model, recipe).converted
    estimates = estimate_costs(model, windows, recipe, rows)
    assert any(estimate.cost > 0 for estimate in estimates)
    assert estimates_of_cell(there_and_back(estimates_to_cell(estimates)), recipe, rows) == estimates
