"""Over which values one scale reaches: the granularity of a quantized tensor, and the shape that its scales have.

    TENSOR.scale_shape((4, 8))        (): one number for all values, the paper's, and the default

A granularity is a row of data. Rows, blocks and groups of 32 along the sum become rows of `GRANULARITIES`, with the
shape of their scales; a backend says which of them it multiplies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octoscale.system.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Granularity:
    """name: as in a recipe. scale_shape: from the shape of a tensor to the shape of its scales."""

    name: str
    scale_shape: Callable[[Sequence[int]], tuple[int, ...]]

    def __str__(self) -> str:
        return self.name


def _one(_: Sequence[int]) -> tuple[int, ...]:
    return ()


TENSOR = Granularity(name="tensor", scale_shape=_one)

#: All that there are, by name.
GRANULARITIES = {granularity.name: granularity for granularity in (TENSOR,)}


def get_granularity(name: str) -> Granularity:
    """The granularity of this name. UserError, with the names that there are, for another."""
    if name not in GRANULARITIES:
        raise UserError(f"unknown granularity {name!r}: one of {', '.join(GRANULARITIES)}")
    return GRANULARITIES[name]
