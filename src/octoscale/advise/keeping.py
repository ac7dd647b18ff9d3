"""The shortest list of layers to keep out of FP8, so that the cost of the others falls under a bound.

    measure = Measure(model, recipe, rows, windows)
    measure.cost(["model.layers.28.mlp.down_proj"])      in FP8 but for that layer
    order = [*worths(measure, estimated[:20])]
    find_list(measure, order, limit=0.01, at_most=10)

The estimate says which layers come into question. Each of them is measured at both ends: alone in FP8, and kept while
all others are FP8. A layer is worth the mean of the two, which is its Shapley value where layers act on each other in
pairs. The list grows in that order until the expected cost is under the bound; then each of its layers is tried
without, for one that came early may have become needless. That is five or six forward passes of the text for each
layer that may be kept, where trying all layers for each place of the list takes hundreds.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from octoscale.advise.cost import Cost, Look, Mean, cost_of, look
from octoscale.advise.kept import Keep, cost_of_cell, cost_to_cell, make_now, number_to_cell
from octoscale.conversion.convert import ModuleReport, replace_linears, revert
from octoscale.layers.linear import to_fp8
from octoscale.numerics.recipe import Recipe


class Measure:
    """What a model in FP8 costs on a text, with any of its layers kept; each combination is measured once.

    rows: the layers that would be FP8. windows: int64 [W, T]. keep: how the result of each pass is kept, by `text`,
    the scaling and the layers. on_pass: called after each forward pass of all windows. num_passes counts those that
    were asked for, kept ones too.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        rows: Sequence[ModuleReport],
        windows: Tensor,
        *,
        text: str = "text",
        keep: Keep = make_now,
        on_pass: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.recipe, self.rows, self.windows = model, recipe, rows, windows
        self.num_passes = 0
        self._text, self._keep, self._on_pass = text, keep, on_pass
        self._known: dict[str, Cost] = {}
        self.own_loss = float(self._kept("as it is", lambda: number_to_cell(float(self.before.losses.mean()))))

    @cached_property
    def before(self) -> Look:
        """What the model says as it is. Who goes on with what was kept looks again, at the first cost that is missing.

        No layer may be FP8 then.
        """
        return look(self.model, self.windows)

    def cost(self, kept: Collection[str] = ()) -> Cost:
        """The cost of FP8 in all layers but those of these names."""
        return self._cost(self.recipe, {row.module for row in self.rows} - set(kept))

    def cost_alone(self, module: str) -> Cost:
        """The cost of FP8 in one layer, and no other."""
        return self._cost(self.recipe, {module})

    def cost_under(self, recipe: Recipe) -> Cost:
        """The cost of another recipe in all layers."""
        return self._cost(recipe, {row.module for row in self.rows})

    def _cost(self, recipe: Recipe, chosen: Collection[str]) -> Cost:
        key = f"{recipe.name} ({recipe.weight.format}){self._where(chosen)}"  # a name may leave the format out
        if key not in self._known:
            cell = self._kept(key, lambda: cost_to_cell(self._measured(recipe, chosen)))
            self._known[key] = cost_of_cell(cell)
        return self._known[key]

    def _where(self, chosen: Collection[str]) -> str:
        """The layers that are FP8 in words, the shorter list of both."""
        out = [row.module for row in self.rows if row.module not in chosen]
        if len(out) < len(chosen):
            return f" but in {', '.join(out)}" if out else ""
        return f" in {', '.join(row.module for row in self.rows if row.module in chosen) or 'nothing'}"

    def _measured(self, recipe: Recipe, chosen: Collection[str]) -> Cost:
        before = self.before
        with in_fp8(self.model, recipe, [row for row in self.rows if row.module in chosen]):
            return cost_of(self.model, self.windows, before)

    def _kept(self, key: str, make: Callable[[], Any]) -> Any:
        found = self._keep(f"{self._text}: {key}", make)
        self.num_passes += 1
        self._on_pass()
        return found


@contextmanager
def in_fp8(model: nn.Module, recipe: Recipe, rows: Sequence[ModuleReport]) -> Iterator[None]:
    """While the block runs, these layers are FP8."""
    replace_linears(model, rows, lambda module, name: to_fp8(module, name, recipe))
    try:
        yield
    finally:
        revert(model)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found. kept: the list, None if none reaches the bound. steps: the lists tried, with their costs."""

    kept: tuple[str, ...] | None
    steps: tuple[tuple[tuple[str, ...], Cost], ...]


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What a layer is worth keeping for. alone: the cost of FP8 in it and no other. bought: what goes away of the
    expected cost of FP8 everywhere if it is kept.
    """

    alone: Cost
    bought: Mean

    @property
    def value(self) -> float:
        """The mean of both in nats a token; the cost alone where the other is not finite."""
        alone, bought = self.alone.expected.mean, self.bought.mean
        return (alone + bought) / 2 if math.isfinite(bought) else alone


def worths(measure: Measure, modules: Sequence[str]) -> dict[str, Worth]:
    """What each of these layers is worth, by two passes of the text each; the most worth first."""
    whole = measure.cost().expected
    found = {
        module: Worth(alone=measure.cost_alone(module), bought=whole.minus(measure.cost([module]).expected))
        for module in modules
    }
    return dict(sorted(found.items(), key=lambda each: -each[1].value))


def find_list(measure: Measure, order: Sequence[str], *, limit: float, at_most: int) -> Found:
    """The shortest list found, by the order of `order`, whose expected cost is at most `limit` of the perplexity."""
    steps: list[tuple[tuple[str, ...], Cost]] = []

    def passes(kept: Sequence[str]) -> bool:
        cost = measure.cost(kept)
        steps.append((tuple(kept), cost))
        return cost.expected.excess <= limit

    kept: list[str] = []
    reached = passes(kept)
    for module in order[:at_most]:
        if reached:
            break
        kept.append(module)
        reached = passes(kept)
    if not reached:
        return Found(kept=None, steps=tuple(steps))
    for module in kept[-2::-1]:  # without the last one it was above
        shorter = [each for each in kept if each != module]
        if passes(shorter):
            kept = shorter
    return Found(kept=tuple(kept), steps=tuple(steps))
