"""How well advise chooses: its estimates beside the costs of each layer, its list beside that of exhaustive greedy.

    octoscale bench advise --tokens 1024 --keep 3

The *cost* of a layer is that of FP8 in that layer alone, expected and measured (advise/cost.py). *Exhaustive
greedy* tries, for each place of the list, every layer that is not in it yet, and keeps the best. The *benefit* of a
list is how much of the cost of FP8 goes away, in nats a token: on the text that it was chosen on, and on another, which
tells what is left of it where chance had no choice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from octoscale.advise.cost import Cost
from octoscale.advise.estimate import LayerEstimate, estimate_costs
from octoscale.advise.findings import POOL
from octoscale.advise.keeping import Measure, worths
from octoscale.advise.rankings import ESTIMATE, rankings, spearman
from octoscale.bench.kernels import Report, machine
from octoscale.conversion.convert import preview
from octoscale.models import loading
from octoscale.models.texts import read_text, token_windows
from octoscale.numerics.formats import PRECISIONS
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.system.errors import UserError

DRAWN = "drawn tokens"


def advise(
    model: str, *, scaling: str, text: str, tokens: int, window: int, keep: int, dtype: str, say: Callable[[str], None]
) -> Report:
    """Rank correlations of estimates with measured costs, benefits of lists of `keep` layers, forward passes. Long."""
    loaded = loading.load(model, getattr(torch, PRECISIONS[dtype]))
    recipe = parse_scaling(scaling)
    if not isinstance(recipe, Recipe) or loaded.encode is None:
        raise UserError(f"a scaling in FP8 and a model with a tokenizer, not {scaling} and {model}")
    windows = token_windows(read_text(text), loaded.encode, window=window, num_tokens=2 * tokens, source=text)
    rows = preview(loaded.model, recipe).converted
    search, other = (Measure(loaded.model, recipe, rows, part) for part in windows.tensor_split(2))
    estimates = {
        labels: estimate_costs(loaded.model, search.windows, recipe, rows, drawn=labels == DRAWN)
        for labels in (DRAWN, "the text's tokens")
    }
    say(f"{len(rows)} layers alone, on two texts")
    alone = [[each.cost_alone(row.module) for row in rows] for each in (search, other)]
    orders = rankings(estimates[DRAWN])
    lists = {name: order[:keep] for name, order in orders.items()}
    lists["advice"] = [*worths(search, orders[ESTIMATE][: POOL * keep])][:keep]
    before = search.num_passes
    lists["exhaustive greedy"] = _exhaustive(search, keep, say)
    return {
        "what": f"{model}, {scaling}, {dtype}, {tokens} tokens of {text} and the next {tokens}, {keep} layers kept",
        "machine": machine(),
        "rank correlation": _correlations(estimates, *alone),
        "cost": {name: _cost(each.cost()) for name, each in (("on its text", search), ("on the other", other))},
        "benefit": {name: _benefits(kept, search, other) for name, kept in lists.items()},
        "forward passes": {"advice": 2.0 * POOL * keep + keep, "exhaustive greedy": float(search.num_passes - before)},
    }


def _correlations(estimates: Mapping[str, Sequence[LayerEstimate]], *alone: Sequence[Cost]) -> dict[str, Any]:
    """Of each estimate with the costs on its own text and on the other; and of costs with each other."""
    costs = {
        f"{what}, on {where}": [getattr(cost, what).mean for cost in costs]
        for where, costs in zip(("its text", "the other"), alone, strict=True)
        for what in ("expected", "measured")
    }
    columns = {
        f"{order} order, {labels}": [getattr(each, order)["both"] for each in made]
        for labels, made in estimates.items()
        for order in ("first", "second")
    }
    columns |= {f"{name} (cost)": column for name, column in costs.items()}
    return {name: {key: spearman(column, cost) for key, cost in costs.items()} for name, column in columns.items()}


def _cost(cost: Cost) -> dict[str, float]:
    both = {"expected": cost.expected, "measured": cost.measured}
    return {name: mean.mean for name, mean in both.items()} | {
        f"{name}, +-": mean.margin for name, mean in both.items()
    }


def _exhaustive(measure: Measure, keep: int, say: Callable[[str], None]) -> list[str]:
    kept: list[str] = []
    for _ in range(keep):
        left = [row.module for row in measure.rows if row.module not in kept]
        kept.append(min(left, key=lambda module: measure.cost([*kept, module]).expected.mean))
        say(f"exhaustive greedy keeps {kept[-1]}: {measure.cost(kept).expected.mean:.5f}")
    return kept


def _benefits(kept: Sequence[str], search: Measure, other: Measure) -> dict[str, float]:
    return {
        f"{what}, {where}": getattr(each.cost(), what).mean - getattr(each.cost(kept), what).mean
        for where, each in (("on its text", search), ("on the other", other))
        for what in ("expected", "measured")
    }
