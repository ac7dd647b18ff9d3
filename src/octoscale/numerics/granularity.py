"""Over which values one scale reaches: the granularity of a quantized tensor, and the shape that its scales have.

    word      one scale for                                                                    scales of [M, K]
    tensor    all values: the paper's, and the default                                         no dimensions
    row       a vector along the sum: a token of an input, an output channel of a weight       [M, 1]
    block     128 values along the sum of an input or gradient; 128 x 128 values of a weight   [M, ceil(K / 128)]
    mx        32 values along the sum, as the OCP Microscaling Formats v1.0 have it            [M, ceil(K / 32)]

The *sum* is that of the product which an operand is for: y_MN = sum over K of a_MK * b_KN. A granularity is a row of
data: the group of values, rows by columns, that share a scale. `along` gives the one for an operand as it lies: the sum
in `output` runs along the last dimension of an input [..., K] and of a weight [N, K], and along the first one of
Conv1D's weight [K, N], whose groups then stand upright. Sizes that are no multiple of a group end in smaller ones.

    ROW.scale_shape((2, 5, 8))        (2, 5, 1)
    BLOCK.scale_shape((5, 300))       (5, 3): of 128, 128 and 44 values
    BLOCK.t()                         groups of 128 x 1: what the transpose has, and what a sum along rows asks for
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from octoscale.numerics.formats import Role
from octoscale.system.errors import UserError

#: Values on each side of a block, and in a group of MX.
BLOCK_SIDE, MX_SIZE = 128, 32


@dataclass(frozen=True, kw_only=True)
class Granularity:
    """name: as in a recipe. group: how many rows and columns of a matrix share a scale; None: all of them."""

    name: str
    group: tuple[int | None, int | None]

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scales of a tensor: one for each group, smaller ones at the ends included.

        Dimensions before the last two are rows, too, in groups of one; one row needs no dimension for it.
        ValueError where groups of several rows meet no matrix.
        """
        if self == TENSOR:
            return ()
        rows, columns = self.group
        if rows != 1 and len(shape) != 2:
            raise UserError(f"groups of {self} are of a matrix, and this tensor is {list(shape)}: view it as a matrix")
        ends = [(rows, size) for size in shape[-2:-1]] + [(columns, size) for size in shape[-1:]]
        return (*shape[:-2], *(1 if of_group is None else -(-size // of_group) for of_group, size in ends))

    def t(self) -> "Granularity":
        """That of the transpose; the same where rows and columns of a group are alike."""
        rows, columns = self.group
        return self if rows == columns else replace(self, group=(columns, rows))

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return (_made, (self.name, self.group))


def _made(name: str, group: tuple[int | None, int | None]) -> Granularity:
    """The one object where there is one: what has one scale a tensor is known by being `TENSOR`."""
    return TENSOR if name == TENSOR.name else Granularity(name=name, group=group)


TENSOR = Granularity(name="tensor", group=(None, None))
ROW = Granularity(name="row", group=(1, None))
BLOCK = Granularity(name="block", group=(1, BLOCK_SIDE))
MX = Granularity(name="mx", group=(1, MX_SIZE))
#: That of a weight under `block`.
SQUARE = Granularity(name="block", group=(BLOCK_SIDE, BLOCK_SIDE))

#: All that there are, by name, for a sum along the last dimension.
GRANULARITIES = {granularity.name: granularity for granularity in (TENSOR, ROW, BLOCK, MX)}


def get_granularity(name: str) -> Granularity:
    """The granularity of this name, for a sum along the last dimension. UserError, with the names, for another."""
    if name not in GRANULARITIES:
        raise UserError(f"unknown granularity {name!r}: one of {', '.join(GRANULARITIES)}")
    return GRANULARITIES[name]


def along(name: str, role: Role, *, sum_first: bool = False) -> Granularity:
    """The granularity of an operand as it lies. sum_first: the sum runs along its first dimension, not its last."""
    granularity = SQUARE if role == "weight" and name == SQUARE.name else get_granularity(name)
    return granularity.t() if sum_first else granularity
