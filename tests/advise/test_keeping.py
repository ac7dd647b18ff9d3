"""The search for the shortest list. Oracles: costs that add up, and all lists; a model in FP8, converted by hand."""

import itertools
import math

import pytest
import torch
from models import tiny_llama, tokens

from octoscale.advise.cost import Cost, Mean, cost_of, look, mean_of
from octoscale.advise.keeping import Measure, Worth, find_list, worths
from octoscale.conversion.convert import convert, preview, revert
from octoscale.layers.linear import Fp8Linear
from octoscale.numerics.recipe import Recipe


class Sums:
    """Costs that are known: each layer's own, and what pairs add while both are in FP8."""

    def __init__(self, pairs=None, **alone):
        self.alone, self.pairs, self.asked = alone, pairs or {}, []

    def cost(self, kept):
        self.asked.append(tuple(kept))
        left = set(self.alone) - set(kept)
        extra = sum(cost for pair, cost in self.pairs.items() if set(pair) <= left)
        mean = Mean(mean=sum(self.alone[name] for name in sorted(left)) + extra, margin=0.0)
        return Cost(measured=Mean(mean=math.nan, margin=0.0), expected=mean)

    def shortest(self, limit):
        lists = (names for size in range(len(self.alone) + 1) for names in itertools.combinations(self.alone, size))
        return next(len(names) for names in lists if math.expm1(self.cost(names).expected.mean) <= limit)


@pytest.mark.parametrize("limit", [0.5, 0.2, 0.1, 0.05, 0.02, 0.001])
def test_with_costs_that_add_up_and_their_order_no_list_is_shorter(limit):
    costs = Sums(a=0.05, b=0.2, c=0.01, d=0.1)
    found = find_list(costs, "bdac", limit=limit, at_most=4)
    assert len(found.kept) == costs.shortest(limit)
    assert math.expm1(costs.cost(found.kept).expected.mean) <= limit


def test_nothing_to_keep_is_one_pass():
    costs = Sums(a=0.001)
    found = find_list(costs, "a", limit=0.01, at_most=10)
    assert (found.kept, costs.asked) == ((), [()])


def test_no_list_of_so_many_layers():
    found = find_list(Sums(a=0.1, b=0.1, c=0.1), "abc", limit=0.01, at_most=2)
    assert found.kept is None
    assert [kept for kept, _ in found.steps] == [(), ("a",), ("a", "b")]


def test_a_layer_that_became_needless_leaves_the_list():
    """a looks costly, but all of it goes away once b is kept."""
    costs = Sums(a=0.001, b=0.001, c=0.05, pairs={("a", "b"): 0.2})
    found = find_list(costs, "abc", limit=0.01, at_most=3)
    assert len(found.kept) == 2
    assert "c" in found.kept
    assert costs.shortest(0.01) == 2


def test_a_cost_is_that_of_the_converted_model():
    model, windows, recipe = tiny_llama(), tokens(2, 12), Recipe.cscale(7)
    rows, before = preview(model, recipe).converted, look(model, windows)
    measure = Measure(model, recipe, rows, windows)
    for kept in ((), ("model.layers.1.mlp.down_proj",), ("model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj")):
        convert(model, Recipe.cscale(7, skip=kept))
        expected = cost_of(model, windows, before)
        revert(model)
        assert measure.cost(kept) == measure.cost(list(kept)) == expected
    alone = rows[3].module
    convert(model, Recipe.cscale(7, skip=[row.module for row in rows if row.module != alone]))
    expected = cost_of(model, windows, before)
    revert(model)
    assert measure.cost_alone(alone) == expected
    assert measure.num_passes == 1 + 4
    assert not any(isinstance(module, Fp8Linear) for module in model.modules())
    assert torch.equal(look(model, windows).losses, before.losses)


def test_what_layers_are_worth_alone_and_beside_the_others():
    model, windows, recipe = tiny_llama(), tokens(2, 12), Recipe.cscale(7)
    rows = preview(model, recipe).converted
    measure, modules = Measure(model, recipe, rows, windows), [row.module for row in rows[:6]]
    found = worths(measure, modules)
    assert sorted(found) == sorted(modules)
    assert [worth.value for worth in found.values()] == sorted((worth.value for worth in found.values()), reverse=True)
    for module, worth in found.items():
        assert worth.alone == measure.cost_alone(module)
        saved = [a - b for a, b in zip(*(measure.cost(kept).expected.values for kept in ((), [module])), strict=True)]
        assert worth.bought == mean_of(saved)
    assert measure.num_passes == 1 + 1 + 2 * 6


@pytest.mark.parametrize(("bought", "value"), [(0.5, 0.3), (0.0, 0.05), (math.inf, 0.1)])
def test_a_layer_is_worth_the_mean_of_both_ends(bought, value):
    """Alone it costs 0.1."""
    alone = Cost(measured=Mean(mean=9.0, margin=0.0), expected=Mean(mean=0.1, margin=0.01))
    assert Worth(alone=alone, bought=Mean(mean=bought, margin=0.0)).value == pytest.approx(value)
