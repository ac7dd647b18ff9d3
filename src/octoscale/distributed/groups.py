"""The largest amax of several ranks: what a scale is chosen from where a tensor is in parts.

    everywhere = Largest(group)
    everywhere(3.0)             5.0, if another rank of the group has 5.0

Infinity and NaN on any rank are infinity on all: no library promises that NaN wins a maximum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from octoscale.conversion.record import fp8_layers
from octoscale.kernels.ops import Everywhere
from octoscale.numerics.formats import Role
from octoscale.numerics.scaling import Amount

#: The roles whose tensors are other ones on each rank, for its batch is another.
_OF_A_BATCH: tuple[Role, ...] = ("input", "grad_output")


@dataclass(frozen=True)
class Largest:
    """Called by all ranks of these groups, one group after the other, in the same order: they wait for each other."""

    groups: Sequence[dist.ProcessGroup]

    def __call__(self, amax: Amount) -> Amount:
        """The largest: a float of a float, a tensor of a tensor, in its shape."""
        if isinstance(amax, Tensor):
            return self.of(amax)
        return float(self.of(torch.tensor(amax, dtype=torch.float32)).item())

    def __deepcopy__(self, _: object) -> "Largest":
        return self  # a copy of a model asks the same ranks

    def of(self, amaxes: Tensor) -> Tensor:
        """The same for each number of a tensor, with one message a group."""
        largest = torch.where(amaxes.isfinite(), amaxes, torch.inf).float()
        for group in self.groups:
            dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        return largest


def share_scales(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Scale inputs and gradients of the FP8 layers by the largest amax of a group's ranks, not by this rank's own.

    All of them call the model equally often, for they wait for each other at every cast.
    """
    for layer in fp8_layers(model):
        ranks = layer.fp8.ranks
        amax = dict(ranks.amax)
        for role in _OF_A_BATCH:
            amax[role] = _with(amax.get(role), group)
        layer.fp8.ranks = replace(ranks, amax=amax)


def _with(largest: Everywhere | None, group: dist.ProcessGroup) -> Largest:
    """The largest of these groups, and of one more."""
    return Largest([*(largest.groups if isinstance(largest, Largest) else ()), group])
