"""What follows the decoder's layers, its last norm and the head: one call of the C++ core each, for a few rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from octoscale.inference.known_layers import why_patched
from octoscale.inference.usual_path import is_intercepted, is_of_a_library
from octoscale.kernels import decoder

_MOST_ROWS = 16


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
        decoder.rms_norm(x, self._norm.weight.detach(), self._norm.variance_epsilon, out)  # held, whatever moves it
        return out


class FusedHead:
    """The forward of the layer that gives the logits, in bfloat16."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head
        self._usual = self._functions()

    def __call__(self, x: Tensor) -> Tensor:
        """As nn.Linear's own forward."""
        head = self._head
        weight = head.weight.detach()  # held while the core reads it, whatever moves the parameter
        if head.bias is None and self._functions() == self._usual and _serves(x, weight):
            rows = x.view(-1, x.shape[-1])
            out = torch.empty(*x.shape[:-1], weight.shape[0], dtype=torch.bfloat16)
            if decoder.linear_bf16(rows, weight, out.view(len(rows), -1)):
                return out
        return type(head).forward(head, x)

    def _functions(self) -> tuple[object, object]:
        return type(self._head).forward, functional.linear


def why_head_unknown(head: object) -> str | None:
    """Why the layer that gives the logits is not what the core computes; None if it is."""
    if type(head) is not nn.Linear or head.bias is not None:
        return f"the head is a {type(head).__name__}, or has a bias"
    if "forward" in head.__dict__ or not is_of_a_library(functional.linear):
        return "the forward of the head was replaced"
    return why_patched(nn.Linear, "the head")


def _serves(x: Tensor, weight: Tensor) -> bool:
    """Whether these are few rows, of the kind that the core takes, at inference."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_intercepted() or type(x) is not Tensor:
        return False
    if not (x.dtype == weight.dtype == torch.bfloat16 and x.device.type == weight.device.type == "cpu"):
        return False
    return (
        x.shape[-1] == weight.shape[-1]
        and x.is_contiguous()
        and weight.is_contiguous()
        and 0 < x.numel() <= _MOST_ROWS * x.shape[-1]
    )
