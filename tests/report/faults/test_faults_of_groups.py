"""Faults planted in runs whose tensors have several scales. Oracle: who planted them, as in test_faults.py."""

from dataclasses import replace

import pytest
from seeded import (
    OUT,
    QUERY,
    Expected,
    cast_twice,
    flushed_inputs,
    growing_outlier,
    model_of,
    nan_in_weight,
    pinned_cast,
    stale_cast,
    zero_gradients,
)
from small_runs import at, train
from test_faults import names

from octoscale import Amax, Recipe, diagnose

MODULE = OUT.format(1)


def wrong_margin(folder, module=MODULE, role="input", step=2, granularity="row"):
    """A layer whose scales leave a binade free that the recipe does not."""
    recipe, model = Recipe.amax(granularity=granularity), model_of(module)

    def take(model):
        state = model.get_submodule(module).fp8
        rule = Amax(granularity=granularity, margin=2)
        state.recipe = replace(recipe, **{role: replace(recipe.operand(role), rule=rule)})
        state.runtime.weight = (None, None)

    train(model, recipe, folder, steps=5, plant=at(step, take))
    return Expected(rule="foreign_scale", module=module, role=role, step=step)


FAST = [(stale_cast, {}), (wrong_margin, {})]
SLOW = [
    (nan_in_weight, {}),
    (pinned_cast, {}),
    (growing_outlier, {}),
    (wrong_margin, {"module": QUERY.format(0), "role": "grad_output"}),
    (wrong_margin, {"role": "weight"}),
    (zero_gradients, {}),
    (cast_twice, {"how": "calls"}),
]


def check(plant, words, granularity, tmp_path):
    expected = plant(tmp_path / "run", granularity=granularity, **words)
    found = diagnose(tmp_path / "run")
    assert [finding for finding in found if names(finding, expected)], found
    assert (found[0].rule, found[0].module) == (expected.rule, expected.module)
    assert found[0].remedy


@pytest.mark.parametrize(("plant", "words"), FAST, ids=lambda each: getattr(each, "__name__", str(each)))
def test_a_fault_under_a_scale_a_row_is_named_with_its_tensor_and_its_step(plant, words, tmp_path):
    check(plant, words, "row", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "words"),
    [*SLOW, (flushed_inputs, {"how": "outlier", "size": 20})],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_more_faults_under_a_scale_a_row_are_named(plant, words, tmp_path):
    check(plant, words, "row", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["block", "mx"])
@pytest.mark.parametrize(("plant", "words"), [*FAST, *SLOW], ids=lambda each: getattr(each, "__name__", str(each)))
def test_a_fault_under_blocks_and_mx_is_named_too(plant, words, granularity, tmp_path):
    check(plant, words, granularity, tmp_path)
