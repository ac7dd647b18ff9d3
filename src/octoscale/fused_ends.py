"""What follows the decoder's layers, its last norm and the head: one call of the C++ core each, for a few rows."""

from typing import Any

import torch
from torch import Tensor, nn

from octoscale.backends import token

_MOST_ROWS = 16
_USUAL_LINEAR = nn.Linear.forward


class FusedNorm:
    """The forward of an RMSNorm with a weight, in bfloat16."""

    def __init__(self, norm: nn.Module) -> None:
        self._norm: Any = norm
        self._usual = type(self._norm).forward

    def __call__(self, x: Tensor) -> Tensor:
        """As the norm's own forward."""
        if type(self._norm).forward is not self._usual or not _serves(x, self._norm.weight):
            return type(self._norm).forward(self._norm, x)  # type: ignore[no-any-return]
        out = torch.empty_like(x)
        token.rms_norm(x, self._norm.weight.detach(), self._norm.variance_epsilon, out)  # held, whatever moves it
        return out


class FusedHead:
    """The forward of the layer that gives the logits, in bfloat16."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head

    def __call__(self, x: Tensor) -> Tensor:
        """As nn.Linear's own forward."""
        weight = self._head.weight.detach()  # held while the core reads it, whatever moves the parameter
        if nn.Linear.forward is _USUAL_LINEAR and _serves(x, weight):
            rows = x.view(-1, x.shape[-1])
            out = torch.empty(*x.shape[:-1], weight.shape[0], dtype=torch.bfloat16)
            if token.linear_bf16(rows, weight, out.view(len(rows), -1)):
                return out
        return nn.Linear.forward(self._head, x)


def _serves(x: Tensor, weight: Tensor) -> bool:
    """Whether these are few rows, of the kind that the core takes, at inference."""
    if not (x.dtype == weight.dtype == torch.bfloat16 and x.device.type == weight.device.type == "cpu"):
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return x.is_contiguous() and weight.is_contiguous() and 0 < x.numel() <= _MOST_ROWS * x.shape[-1]
