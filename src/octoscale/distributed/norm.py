"""The norm of all gradients, where their parts lie on several ranks.

Squares are summed in float64, so that the order in which they are hardly shows: one process and many clip alike.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The 2-norm over all values, float32, no dimensions, the same on all ranks; not finite if a value is not."""
    sums: dict[tuple[tuple[DeviceMesh, int], ...], Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))
    for gradient in gradients:
        here = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        square = torch.linalg.vector_norm(here.float(), dtype=torch.float64).square()
        sums[_shared_over(gradient)] = sums[_shared_over(gradient)].to(square.device) + square
    for dimensions, square in sums.items():
        for mesh, dimension in dimensions:
            dist.all_reduce(square, group=mesh.get_group(dimension))
    return sum(sums.values(), torch.zeros((), dtype=torch.float64)).sqrt().float()


def _shared_over(gradient: Tensor) -> tuple[tuple[DeviceMesh, int], ...]:
    """The dimensions of a mesh over which the ranks hold different parts."""
    if not isinstance(gradient, DTensor):
        return ()
    mesh = gradient.device_mesh
    return tuple((mesh, i) for i, placement in enumerate(gradient.placements) if not placement.is_replicate())
