"""What other scalings there are beside the one that advice is wanted on: formats, margins, the best constant.

    alternatives(Recipe.amax(), estimates)
        [amax:formats=fnuz, amax:margin=1, amax:margin=2, amax:margin=3, cscale:-1, cscale:0, cscale:1]

A constant serves all tensors at once. One that asks for scale_bias b is served by the constants from b - `ROOM` to b:
above it saturates, below it too much is flushed. The best constant serves most tensors; of several, the middle one.
That is a guess from scales alone: its neighbors are asked too.
"""

from collections.abc import Sequence

from octoscale.advise.estimate import LayerEstimate
from octoscale.numerics.formats import FORMAT_SETS
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Amax, Constant, Rule

#: Binades below the wanted scale_bias in which a tensor of usual spread loses little: of the 17 of E4, 7 stay for it.
ROOM = 10
MARGINS = (1, 2, 3)
#: Other formats, margins with none, the constants.
MOST_SCALINGS = 1 + (1 + len(MARGINS)) + 3


def alternatives(recipe: Recipe, estimates: Sequence[LayerEstimate]) -> list[Recipe]:
    """Other scalings of all roles, with the same layers left out; the recipe itself is not among them.

    A tensor core whose sums are imitated takes no other formats.
    """
    formats = formats_of(recipe)
    other = next(name for name in FORMAT_SETS if name != formats)
    rule = recipe.input.rule
    rules: list[tuple[Rule, str]] = [] if recipe.accumulate else [(rule, other)]
    rules += [(Amax(margin=margin), formats) for margin in ((0, *MARGINS) if isinstance(rule, Constant) else MARGINS)]
    wanted = [estimate.wanted(role) for estimate in estimates for role, cast in estimate.casts.items() if cast.amax > 0]
    best = best_constant(wanted)
    rules += [(Constant(bias), formats) for bias in (best - 1, best, best + 1)]
    sums = {"fast": recipe.fast, "accumulate": recipe.accumulate}
    made = [_recipe(rule, formats, recipe.skip).summed(**sums) for rule, formats in rules]
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


def formats_of(recipe: Recipe) -> str:
    """The name of the format set that a recipe's weights are of."""
    return next(name for name, formats in FORMAT_SETS.items() if formats["weight"] == recipe.weight.format)


def _recipe(rule: Rule, formats: str, skip: Sequence[str]) -> Recipe:
    if isinstance(rule, Constant):
        return Recipe.cscale(rule.bias, formats=formats, skip=skip)
    assert isinstance(rule, Amax)
    return Recipe.amax(margin=rule.margin, formats=formats, skip=skip)
