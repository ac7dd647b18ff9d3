"""Of a tensor, the part that one rank holds: a range in each dimension.

cut = Cut.along(1, 64, 128, (256, 128))       columns 64 to 127 of a matrix
cut.of(whole)                                 that part, in memory of its own
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Of a tensor of shape `whole`: from `start` to before `stop` in each dimension; either may be the length."""

    whole: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def along(cls, dim: int, start: int, stop: int, whole: Sequence[int]) -> "Cut":
        """A range in one dimension, and all of the others."""
        starts, stops = [0] * len(whole), list(whole)
        starts[dim], stops[dim] = start, stop
        return cls(whole=tuple(whole), start=tuple(starts), stop=tuple(stops))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def where(self) -> tuple[slice, ...]:
        """As an index; dimensions at the end of which all is wanted are left out."""
        ranges = [slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True)]
        while ranges and ranges[-1] == slice(0, self.whole[len(ranges) - 1]):
            ranges.pop()
        return tuple(ranges)

    def of(self, whole: Tensor) -> Tensor:
        """This part of a tensor, in memory of its own."""
        return whole[self.where].clone(memory_format=torch.contiguous_format)


def share_of(length: int, number: int, size: int) -> tuple[int, int]:
    """From where to before where the share of rank `number` of `size` reaches, as torch's `Shard` cuts.

    The last ranks may have less than others, or nothing.
    """
    each = -(-length // size)
    start = min(each * number, length)
    return start, min(start + each, length)
