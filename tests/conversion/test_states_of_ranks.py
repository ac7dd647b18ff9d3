"""One FP8 state of several ranks'. Oracle: by hand."""

import pytest
from models import tiny_llama

from octoscale.conversion.convert import convert
from octoscale.conversion.state import fp8_state, largest_state, load_fp8_state
from octoscale.numerics.recipe import Recipe


def state(**histories):
    return {"recipe": "r", "histories": {name: {"input": past} for name, past in histories.items()}}


def test_of_each_step_the_largest_amax_is_kept():
    found = largest_state([state(a=[1.0, 5.0, 2.0]), state(a=[3.0, 4.0, 2.5])])
    assert found == state(a=[3.0, 5.0, 2.5])


def test_a_layer_that_one_rank_never_ran_is_not_lost():
    """An expert of a mixture."""
    assert largest_state([state(a=[1.0]), state(b=[2.0])]) == state(a=[1.0], b=[2.0])
    assert largest_state([state(), state(b=[2.0])]) == state(b=[2.0])


def test_the_last_steps_are_the_same_ones():
    assert largest_state([state(a=[1.0, 5.0]), state(a=[7.0, 3.0, 4.0])]) == state(a=[7.0, 3.0, 5.0])


def test_no_state_is_none():
    assert largest_state([{}, {}]) == {}


def test_a_state_of_before_scales_had_a_granularity_fits():
    """Oracle: the text that such a version wrote."""
    model, operand = tiny_llama(), "Operand(format='{}', rule=Amax(margin=1))"
    convert(model, Recipe.amax(margin=1))
    formats = {"weight": "e4m3fn", "input": "e4m3fn", "grad_output": "e5m2"}
    roles = ", ".join(f"{role}={operand.format(name)}" for role, name in formats.items())
    old = f"Recipe(name='amax:margin=1', {roles}, skip=())"
    assert fp8_state(model)["recipe"] == old
    finer = tiny_llama()
    convert(finer, Recipe.amax(margin=1, granularity="row"))
    with pytest.raises(ValueError, match="this FP8 state is of another recipe"):
        load_fp8_state(finer, {"recipe": old, "histories": {}})


def test_a_state_of_before_recipes_said_how_they_sum_fits():
    model = tiny_llama()
    convert(model, Recipe.delayed(history=2))
    saved = fp8_state(model)
    assert "fast" not in saved["recipe"]
    assert "delayed:history=2" in saved["recipe"]
    load_fp8_state(model, saved)
