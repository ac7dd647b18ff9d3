"""What other scalings there are beside the one that advice is wanted on: formats, margins, granularities, constants.

    alternatives(Recipe.amax(), estimates)
        [amax:formats=fnuz, amax:margin=1, amax:margin=2, amax:margin=3,
         amax:row, amax:block, amax:mx, amax:mx,round=up, cscale:-1, cscale:0, cscale:1]

A constant serves all tensors at once. One that asks for scale_bias b is served by the constants from b - `ROOM` to b:
above it saturates, below it too much is flushed. The best constant serves most tensors; of several, the middle one.
That is a guess from scales alone: its neighbors are asked too.
"""

from collections.abc import Sequence
from dataclasses import replace

from octoscale.advise.estimate import LayerEstimate
from octoscale.numerics.formats import FORMAT_SETS
from octoscale.numerics.granularity import GRANULARITIES, MX
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import ROUNDINGS, Amax, Constant, Rule

#: Binades below the wanted scale_bias in which a tensor of usual spread loses little: of the 17 of E4, 7 stay for it.
ROOM = 10
MARGINS = (1, 2, 3)
#: One scale for a tensor, a row, a block or 32 values, whose scale is rounded in either way.
SCALES_FOR = (
    *(Amax(granularity=name) for name in GRANULARITIES if name != MX.name),
    *(Amax(granularity=MX.name, round=how) for how in ROUNDINGS),
)
#: Other formats, margins, granularities, the constants.
MOST_SCALINGS = 1 + len(MARGINS) + len(SCALES_FOR) + 3


def alternatives(recipe: Recipe, estimates: Sequence[LayerEstimate]) -> list[Recipe]:
    """Other scalings of all roles, with the same layers left out; the recipe itself is not among them.

    Margins have the granularity of the recipe's inputs. A tensor core whose sums are imitated takes no other formats,
    and one scale a tensor.
    """
    formats = recipe.formats
    other = next(name for name in FORMAT_SETS if name != formats)
    rule = recipe.input.rule
    amax = rule if isinstance(rule, Amax) else Amax()
    rules: list[tuple[Rule, str]] = [(replace(amax, margin=margin), formats) for margin in MARGINS]
    rules += [(each, formats) for each in (SCALES_FOR[:1] if recipe.accumulate else SCALES_FOR)]
    wanted = [estimate.wanted(role) for estimate in estimates for role, cast in estimate.casts.items() if cast.amax > 0]
    best = best_constant(wanted)
    rules += [(Constant(bias), formats) for bias in (best - 1, best, best + 1)]
    sums = {"fast": recipe.fast, "accumulate": recipe.accumulate}
    made = [_recipe(rule, formats, recipe.skip).summed(**sums) for rule, formats in rules]
    if not recipe.accumulate:
        made.insert(0, _in_formats(recipe, other).summed(**sums))
    return [each for each in made if (each.weight, each.input) != (recipe.weight, recipe.input)]


def best_constant(wanted: Sequence[int]) -> int:
    """The constant that serves most of the tensors which ask for these scale_biases; the middle one of several."""
    if not wanted:
        return 0
    served = {
        constant: sum(bias - ROOM <= constant <= bias for bias in wanted)
        for constant in range(min(wanted) - ROOM, max(wanted) + 1)
    }
    best = [constant for constant, count in served.items() if count == max(served.values())]
    return best[(len(best) - 1) // 2]


def _in_formats(recipe: Recipe, formats: str) -> Recipe:
    """The same rules in other formats."""
    weight, input = recipe.weight.rule, recipe.input.rule
    if weight == input:
        return _recipe(input, formats, recipe.skip)
    return Recipe.by_role(weight=weight, input=input, formats=formats, skip=recipe.skip)


def _recipe(rule: Rule, formats: str, skip: Sequence[str]) -> Recipe:
    if isinstance(rule, Constant):
        return Recipe.cscale(rule.bias, formats=formats, skip=skip)
    assert isinstance(rule, Amax)
    return Recipe.amax(margin=rule.margin, formats=formats, skip=skip, granularity=rule.granularity, round=rule.round)
