"""Layers whose scale lies far from that of their kind: FP8-AMAX pays nothing for them, one constant scale breaks there.

A tensor is an outlier if the scale_bias that it asks for lies `FAR` or more from the median of its kind and role. Two
of one layer that lie on opposite sides by about as much make a *pair*: the weight is 2**d too large and the input 2**d
too small, or the other way round, so that the product is as usual. The layer of a pair is where the fault sits. Where
another layer's output made its input so (up_proj before down_proj, value before output projection), that one's weight
is an outlier too, to the other side: it is named with the pair, as what feeds it.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from octoscale.numerics.formats import Role

#: How many binades from the median are far: 2**6 = 64 times.
FAR = 6
#: By how much the two sides of a pair may differ.
_SLACK = 2


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The scale_bias that each tensor of one layer asks for; a tensor of zeros asks for none."""

    module: str
    layer: int | None
    kind: str
    biases: dict[Role, int]


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A layer whose scales lie far away: by role how far from the median, positive where the tensor is too small.

    fed_by: layers before it, with the opposite weights, that explain its input.
    """

    module: str
    away: dict[Role, int]
    fed_by: tuple[str, ...] = ()

    @property
    def is_pair(self) -> bool:
        """Whether weight and input lie on opposite sides by about as much."""
        return _cancel(self.away.get("weight", 0), self.away.get("input", 0))

    def __str__(self) -> str:
        parts = [
            f"the {role} asks for a scale_bias {away:+d} from its kind's median" for role, away in self.away.items()
        ]
        fed = f"; {' and '.join(self.fed_by)} before it, by as much to the other side" if self.fed_by else ""
        return f"{self.module}: {', '.join(parts)}{fed}"


def scale_outliers(layers: Sequence[Wanted]) -> list[Outlier]:
    """The outliers, pairs first, then by distance, then in the order of the model."""
    medians = _medians(layers)
    away = {each.module: _far_roles(each, medians) for each in layers}
    far = [Outlier(module=module, away=roles) for module, roles in away.items() if roles]
    places = {each.module: (index, each.layer) for index, each in enumerate(layers)}
    found = [_with_feeders(outlier, far, places) for outlier in far]
    explained = {module for outlier in found for module in outlier.fed_by}
    kept = [outlier for outlier in found if outlier.module not in explained]
    return sorted(kept, key=lambda outlier: (not outlier.is_pair, -max(map(abs, outlier.away.values()))))


def _with_feeders(outlier: Outlier, far: Iterable[Outlier], places: dict[str, tuple[int, int | None]]) -> Outlier:
    """A pair, with those layers before it, in the same decoder layer, whose weight is as far to the other side."""
    if not outlier.is_pair:
        return outlier
    place, layer = places[outlier.module]
    feeders = [
        other.module
        for other in far
        if places[other.module][0] < place
        and places[other.module][1] == layer
        and "input" not in other.away
        and _cancel(outlier.away["weight"], other.away["weight"])
    ]
    return replace(outlier, fed_by=tuple(feeders))


def _medians(layers: Sequence[Wanted]) -> dict[tuple[str, Role], int]:
    biases: dict[tuple[str, Role], list[int]] = {}
    for each in layers:
        for role, bias in each.biases.items():
            biases.setdefault((each.kind, role), []).append(bias)
    return {key: statistics.median_low(values) for key, values in biases.items()}


def _far_roles(each: Wanted, medians: Mapping[tuple[str, Role], int]) -> dict[Role, int]:
    away = {role: bias - medians[each.kind, role] for role, bias in each.biases.items()}
    return {role: distance for role, distance in away.items() if abs(distance) >= FAR}


def _cancel(a: int, b: int) -> bool:
    return a * b < 0 and abs(a + b) <= _SLACK
