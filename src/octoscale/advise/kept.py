"""What passes of a text found, as it is kept for a command that goes on after a kill: all of it, to the last bit.

    keep = cells.get_or_make                                       or make_now, where nothing is kept
    cost_of_cell(keep("search: amax", lambda: cost_to_cell(...)))  the cost, from its cell or measured now

A cell is what JSON can say: a number that is not finite is a text there. What a model says of a text as it is (`Look`)
takes megabytes and is not kept: who goes on reads it again, which is one pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from octoscale.advise.cost import Cost, Mean
from octoscale.advise.estimate import CastSums, LayerEstimate
from octoscale.conversion.convert import ModuleReport
from octoscale.numerics.recipe import Recipe

#: The value of a key, made if there is none.
Keep = Callable[[str, Callable[[], Any]], Any]


def make_now(_: str, make: Callable[[], Any]) -> Any:
    """A value that nothing keeps."""
    return make()


def cost_to_cell(cost: Cost) -> dict[str, Any]:
    """All of a cost."""
    return {"measured": _mean_to_cell(cost.measured), "expected": _mean_to_cell(cost.expected)}


def cost_of_cell(cell: Mapping[str, Any]) -> Cost:
    """What `cost_to_cell` made."""
    return Cost(measured=_mean_of_cell(cell["measured"]), expected=_mean_of_cell(cell["expected"]))


def estimates_to_cell(estimates: Sequence[LayerEstimate]) -> list[dict[str, Any]]:
    """All of the estimates but what a recipe and `preview` say anyway."""
    return [
        {
            "module": estimate.module,
            "num_tokens": estimate.num_tokens,
            "first": _plain(estimate.first),
            "second": _plain(estimate.second),
            "casts": {role: _plain(asdict(cast)) for role, cast in estimate.casts.items()},
        }
        for estimate in estimates
    ]


def estimates_of_cell(
    cell: Sequence[Mapping[str, Any]], recipe: Recipe, rows: Sequence[ModuleReport]
) -> list[LayerEstimate]:
    """What `estimates_to_cell` made, of the same recipe and layers."""
    assert [kept["module"] for kept in cell] == [row.module for row in rows]
    return [
        LayerEstimate(
            row=row,
            recipe=recipe,
            num_tokens=kept["num_tokens"],
            first=_numbers(kept["first"]),
            second=_numbers(kept["second"]),
            casts={role: CastSums(**_sums(cast)) for role, cast in kept["casts"].items()},
        )
        for row, kept in zip(rows, cell, strict=True)
    ]


def number_to_cell(value: float) -> float | str:
    """A number; read it with float()."""
    return value if math.isfinite(value) else str(value)


def _mean_to_cell(mean: Mean) -> dict[str, Any]:
    return _plain(asdict(mean)) | {"values": [number_to_cell(value) for value in mean.values]}


def _mean_of_cell(cell: Mapping[str, Any]) -> Mean:
    return Mean(mean=float(cell["mean"]), margin=float(cell["margin"]), values=tuple(map(float, cell["values"])))


def _plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: number_to_cell(value) if isinstance(value, float) else value for name, value in numbers.items()}


def _numbers(cell: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in cell.items()}


def _sums(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {**cell, **{name: float(cell[name]) for name in ("signal", "noise", "amax")}}
