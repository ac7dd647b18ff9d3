"""What does FP8 cost a model, where, and which layers should stay out of it?

    findings = advise(model, Recipe.amax(), search=windows, verify=others, limit=0.01, at_most=10)
    findings.kept        the layers to keep; () if nothing need be kept, None if no such list reaches the limit

One backward pass estimates the cost of each layer (estimate.py); forward passes confirm it and find the shortest list
of layers to keep (keeping.py). Another text then tells what the list is worth, beside lists of the same length that
cheap rankings would give (rankings.py), and beside other scalings (alternatives.py). Layers whose scale lies far from
that of their kind are named in any case (outliers.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from octoscale.advise.alternatives import MOST_SCALINGS, alternatives
from octoscale.advise.cost import Cost
from octoscale.advise.estimate import LayerEstimate, estimate_costs
from octoscale.advise.keeping import Found, Measure, Worth, find_list, worths
from octoscale.advise.kept import Keep, estimates_of_cell, estimates_to_cell, make_now
from octoscale.advise.outliers import Outlier, Wanted, scale_outliers
from octoscale.advise.rankings import CHEAP, ESTIMATE, rankings
from octoscale.conversion.convert import ModuleReport, preview
from octoscale.numerics.recipe import Recipe

#: Called with the passes of a text done, and those that there may be at most.
Progress = Callable[[int, int], None]

#: The order of layers that a list is taken from here: the estimate's, confirmed.
ADVICE = "advice"
#: How many times as many layers are measured as may be kept.
POOL = 2
#: How many forward passes the backward pass of the estimate takes, about.
_BACKWARD = 6


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What `advise` found. Costs are of the text that verifies, unless they say search.

    before: the model's own mean loss on either text. whole, left: the cost of FP8 everywhere, and with the list kept.
    worth: what the costliest layers by the estimate are worth, on the text of the search, the best first. others: the
    list of each ranking, as long as ours, and the cost that it leaves; our order's too, if no list is found.
    scalings: each other recipe, its cost.
    """

    before: dict[str, float]
    whole_in_search: Cost
    whole: Cost
    estimates: Sequence[LayerEstimate]
    worth: Mapping[str, Worth]
    found: Found
    left_in_search: Cost | None
    left: Cost | None
    others: Mapping[str, tuple[tuple[str, ...], Cost]]
    scalings: Mapping[str, Cost]
    outliers: Sequence[Outlier]
    num_passes: int

    @property
    def kept(self) -> tuple[str, ...] | None:
        """The list."""
        return self.found.kept


def advise(
    model: nn.Module,
    recipe: Recipe,
    *,
    search: Tensor,
    verify: Tensor,
    limit: float,
    at_most: int,
    keep: Keep = make_now,
    progress: Progress | None = None,
) -> Findings:
    """Find the shortest list of layers to keep out of FP8, so that the perplexity rises by `limit` at most.

    search, verify: windows of the two texts, int64 [W, T], at least 2 each. The model, in eval mode, is left as it was.
    keep: how what each pass found is kept; with what a stopped search kept, the findings are the same.
    Raises UserError as `preview` does, and FloatingPointError for a model whose own losses are not finite.
    """
    rows = _distinct(model, recipe)
    count = _Count(progress, most_passes(at_most))
    measure, other = (
        Measure(model, recipe, rows, windows, text=text, keep=keep, on_pass=count)
        for text, windows in (("search", search), ("verify", verify))
    )
    before = {name: _own_loss(each) for name, each in (("search", measure), ("verify", other))}
    estimates = _estimates(model, search, recipe, rows, keep)
    count(_BACKWARD)
    orders = rankings(estimates)
    worth = worths(measure, orders.pop(ESTIMATE)[: POOL * at_most])
    orders[ADVICE] = list(worth)
    found = find_list(measure, orders[ADVICE], limit=limit, at_most=at_most)
    compared = len(found.kept) if found.kept else at_most
    lists = {name: tuple(order[:compared]) for name, order in orders.items() if name != ADVICE or found.kept is None}
    return Findings(
        before=before,
        whole_in_search=measure.cost(),
        whole=other.cost(),
        estimates=estimates,
        worth=worth,
        found=found,
        left_in_search=None if found.kept is None else measure.cost(found.kept),
        left=None if found.kept is None else other.cost(found.kept),
        others={name: (kept, other.cost(kept)) for name, kept in lists.items()} if found.kept != () else {},
        scalings={each.name: other.cost_under(each) for each in alternatives(recipe, estimates)},
        outliers=scale_outliers([_wanted(estimate) for estimate in estimates]),
        num_passes=measure.num_passes + other.num_passes,
    )


def most_passes(at_most: int) -> int:
    """How many forward passes of a text `advise` makes at most, its backward pass counted as `_BACKWARD`."""
    search = 2 + at_most + max(0, at_most - 1) + 2 * POOL * at_most
    return search + _BACKWARD + 3 + len(CHEAP) + 1 + MOST_SCALINGS


class _Count:
    """Counts passes for whoever shows progress."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, passes: int = 1) -> None:
        self._done += passes
        if self._progress is not None:
            self._progress(self._done, self._total)


def _distinct(model: nn.Module, recipe: Recipe) -> list[ModuleReport]:
    """The layers that the recipe puts into FP8; one that stands in several places by its first name."""
    rows = {model.get_submodule(row.module): row for row in reversed(preview(model, recipe).converted)}
    return list(reversed(rows.values()))


def _own_loss(measure: Measure) -> float:
    if not math.isfinite(measure.own_loss):
        raise FloatingPointError("the model is at fault, not FP8: its own losses hold infinity or NaN")
    return measure.own_loss


def _estimates(
    model: nn.Module, windows: Tensor, recipe: Recipe, rows: Sequence[ModuleReport], keep: Keep
) -> list[LayerEstimate]:
    cell = keep("search: estimate", lambda: estimates_to_cell(estimate_costs(model, windows, recipe, rows)))
    return estimates_of_cell(cell, recipe, rows)


def _wanted(estimate: LayerEstimate) -> Wanted:
    """The scales that a layer asks for."""
    biases = {role: estimate.wanted(role) for role, cast in estimate.casts.items() if cast.amax > 0}
    return Wanted(module=estimate.module, layer=estimate.row.layer, kind=estimate.row.kind, biases=biases)
