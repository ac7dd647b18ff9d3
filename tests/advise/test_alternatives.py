"""Other scalings. Oracles: the definition, counted by hand."""

import pytest

from octoscale.advise.alternatives import MOST_SCALINGS, alternatives, best_constant
from octoscale.advise.estimate import LayerEstimate
from octoscale.conversion.convert import ModuleReport
from octoscale.numerics.recipe import Recipe, parse_scaling


def estimates(recipe, *amaxes):
    row = ModuleReport(module="a", type="Linear", shape=(2, 2), kind="other", layer=0, converted=True, reason="")
    made = []
    for weight, value in amaxes:
        estimate = LayerEstimate(row=row, recipe=recipe)
        estimate.casts["weight"].amax, estimate.casts["input"].amax = weight, value
        made.append(estimate)
    return made


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (
            Recipe.amax(),
            [
                "amax:formats=fnuz",
                "amax:margin=1",
                "amax:margin=2",
                "amax:margin=3",
                "amax:row",
                "amax:block",
                "amax:mx",
                "amax:mx,round=up",
                "cscale:2",
                "cscale:3",
                "cscale:4",
            ],
        ),
        (
            Recipe.cscale(3, formats="fnuz", skip=["x"]),
            [
                "cscale:3",
                *(f"amax:margin={margin},formats=fnuz" for margin in (1, 2, 3)),
                "amax:formats=fnuz",
                *(f"amax:{scales_for},formats=fnuz" for scales_for in ("row", "block", "mx", "mx,round=up")),
                "cscale:1,formats=fnuz",
                "cscale:2,formats=fnuz",
            ],
        ),
        (
            Recipe.amax(granularity="mx", round="up"),
            [
                "amax:mx,round=up,formats=fnuz",
                *(f"amax:mx,margin={margin},round=up" for margin in (1, 2, 3)),
                *("amax", "amax:row", "amax:block", "amax:mx"),
                *("cscale:2", "cscale:3", "cscale:4"),
            ],
        ),
        (
            parse_scaling("weight=amax:block,input=amax:row"),
            [
                "weight=amax:block,input=amax:row,formats=fnuz",
                *(f"amax:row,margin={margin}" for margin in (1, 2, 3)),
                *("amax", "amax:row", "amax:block", "amax:mx", "amax:mx,round=up"),
                *("cscale:2", "cscale:3", "cscale:4"),
            ],
        ),
        (
            parse_scaling("cscale:weight=3,input=-1"),
            [
                "cscale:weight=3,input=-1,formats=fnuz",
                *(f"amax:margin={margin}" for margin in (1, 2, 3)),
                *("amax", "amax:row", "amax:block", "amax:mx", "amax:mx,round=up"),
                *("cscale:2", "cscale:3", "cscale:4"),
            ],
        ),
    ],
    ids=str,
)
def test_formats_margins_granularities_and_constants(recipe, names):
    """An amax of 1 asks for 8 in e4m3fn, 7 in e4m3fnuz: -2 to 8 serve it, in the middle 3; -3 to 7, so 2."""
    made = alternatives(recipe, estimates(recipe, (1.0, 1.0), (1.0, 0.0)))
    assert [each.name for each in made] == names
    assert all(each.skip == recipe.skip for each in made)
    assert len(made) <= MOST_SCALINGS


@pytest.mark.parametrize(
    ("wanted", "constant"), [([8], 3), ([8, 8, 0], -1), ([20, 19, 0], 14), ([0, 0, 20], -5), ([], 0)]
)
def test_the_constant_that_serves_most(wanted, constant):
    """[8, 8, 0]: -2 to 0 serve all three. [20, 19, 0]: 10 to 19 serve two, in the middle 14."""
    assert best_constant(wanted) == constant


def test_other_scalings_are_summed_as_the_recipe_is():
    """Else advice would compare the sums of a GPU with those of float32."""
    found = alternatives(parse_scaling("amax:accumulate=hopper,fast=none"), [])
    assert found
    assert {(each.accumulate, each.fast) for each in found} == {("hopper", "none")}
    assert {each.weight.format for each in found} == {"e4m3fn"}  # a Hopper takes no others
    assert all(each.is_whole for each in found)
    assert all(parse_scaling(each.name) == each for each in found)
