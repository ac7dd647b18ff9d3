"""What a layer asks other ranks for, where a tensor of its products is only a part of one.

    Ranks()                                       nothing: all of a product is here
    Ranks(amax={"weight": largest})               its weight is in parts; the scale is that of the whole
    Ranks(sum_output=add)                         the sum in its product is in parts, and has to be added up

Whoever shards a model fills it in (distributed/); a layer only calls it, at the same moment on all ranks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.distributed.tensor import DTensor

from octoscale.kernels.ops import Everywhere
from octoscale.numerics.formats import Role

#: From a partial sum in float32 to the sum over ranks.
Add = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """amax: by role, from the amax of what is here to that of the whole. sum_*: for products that are in parts."""

    amax: Mapping[Role, Everywhere] = field(default_factory=dict)
    sum_output: Add | None = None
    sum_grad_input: Add | None = None

    @property
    def is_alone(self) -> bool:
        """Whether a call says nothing to others."""
        return not (self.amax or self.sum_output or self.sum_grad_input)


def here(parameter: Tensor) -> Tensor:
    """A parameter, or this rank's part of it under tensor parallel; gradients find their way back."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
