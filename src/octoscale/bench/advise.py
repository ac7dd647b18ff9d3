"""How well advise chooses: its estimates beside measured costs, its list beside that of exhaustive greedy.

    octoscale bench advise --tokens 1024 --keep 3

*Measured cost* of a layer: that layer alone in FP8. *Exhaustive greedy* tries, for each place of the list, every layer
that is not in it yet, and keeps the best. *Benefit* of a list: how much of the cost of FP8 goes away, in nats a token:
on the text that it was chosen on, and on another, which tells what is left of it where chance had no choice.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from octoscale.bench.kernels import Report, machine
from octoscale.conversion.convert import preview
from octoscale.models import loading
from octoscale.models.texts import read_text, token_windows
from octoscale.numerics.formats import PRECISIONS
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.system.errors import UserError
from octoscale.validation.estimate import LayerEstimate, estimate_costs
from octoscale.validation.keeping import Measure
from octoscale.validation.rankings import rankings, spearman


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
    estimates = estimate_costs(loaded.model, search.windows, recipe, rows)
    say(f"{len(rows)} layers alone, on two texts")
    alone = [[each.cost_alone(row.module).mean for row in rows] for each in (search, other)]
    lists = {name: order[:keep] for name, order in rankings(estimates).items()}
    before = search.num_passes
    lists["exhaustive greedy"] = _exhaustive(search, keep, say)
    return {
        "what": f"{model}, {scaling}, {dtype}, {tokens} tokens of {text} and the next {tokens}, {keep} layers kept",
        "machine": machine(),
        "rank correlation": _correlations(estimates, *alone),
        "cost": {"on its text": search.cost().mean, "on the other": other.cost().mean},
        "interval, half": {"on its text": search.cost().margin, "on the other": other.cost().margin},
        "benefit": {name: _benefits(kept, search, other) for name, kept in lists.items()},
        "passes": {"exhaustive greedy": float(search.num_passes - before)},
    }


def _correlations(estimates: Sequence[LayerEstimate], alone: list[float], elsewhere: list[float]) -> dict[str, Any]:
    """Of each estimate with the measured cost on its own text and on the other; and of these two with each other."""
    columns = {
        "first order": [each.first["both"] for each in estimates],
        "second order": [each.second["both"] for each in estimates],
        "both orders": [each.first["both"] + each.second["both"] for each in estimates],
        "measured": alone,
    }
    return {
        name: {"on its text": spearman(column, alone), "on the other": spearman(column, elsewhere)}
        for name, column in columns.items()
    }


def _exhaustive(measure: Measure, keep: int, say: Callable[[str], None]) -> list[str]:
    kept: list[str] = []
    for _ in range(keep):
        left = [row.module for row in measure.rows if row.module not in kept]
        kept.append(min(left, key=lambda module: measure.cost([*kept, module]).mean))
        say(f"exhaustive greedy keeps {kept[-1]}: {measure.cost(kept).mean:.5f}")
    return kept


def _benefits(kept: Sequence[str], search: Measure, other: Measure) -> dict[str, float]:
    return {
        "on its text": search.cost().mean - search.cost(kept).mean,
        "on the other": other.cost().mean - other.cost(kept).mean,
    }
