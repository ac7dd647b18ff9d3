"""A rank's columns or rows of a linear layer in high precision, in a training: what FP8 is compared with on many ranks.

    part = trained_part(layer)        the same parameters; part.ranks says what it asks the other ranks for

Legend as in linear.py. A layer asks at the places at which Fp8Linear asks, and its weight may be a DTensor:

    weight in parts of K    y_BN  = add(x_BK @ w_KN) + bias       the sum in y is in parts
    weight in parts of N    dx_BK = add(g_BN @ w_KN^T)            the sum in dx is in parts

The products are torch's, in the dtype of x or autocast's: partial sums are rounded to it, then added up in float32, and
rounded once more. In float32 nothing differs from one process but the order of sums.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from octoscale.layers.origin import is_conv1d
from octoscale.layers.ranks import Add, Ranks, here


class TrainedPart(nn.Linear):
    """An nn.Linear of which this rank has some outputs or inputs: weight [N, K], of one of them only what is here."""

    ranks: Ranks

    def forward(self, x: Tensor) -> Tensor:
        """`x @ w^T + bias` as this rank's style has it (tensor_parallel.py)."""
        return _product(x, here(self.weight), self.bias, self.ranks)


class TrainedPartConv1D(nn.Module):
    """The same of GPT-2's Conv1D: weight [K, N]."""

    is_part_of_conv1d = True  # for origin.py
    ranks: Ranks
    weight: nn.Parameter
    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """`x @ w + bias`."""
        return _product(x, here(self.weight).t(), self.bias, self.ranks)


def trained_part(layer: nn.Module) -> TrainedPart | TrainedPartConv1D:
    """A layer with the parameters, hooks and mode of this one, which can be a part; it is left as it was."""
    cls: Any = TrainedPartConv1D if is_conv1d(layer) else TrainedPart
    part: TrainedPart | TrainedPartConv1D = cls.__new__(cls)
    part.__dict__.update(layer.__dict__)
    part._parameters = dict(layer._parameters)
    part.ranks = Ranks()
    return part


def _product(x: Tensor, w_NK: Tensor, bias: Tensor | None, ranks: Ranks) -> Tensor:
    b = None if bias is None else here(bias)
    if ranks.sum_grad_input is not None:
        x = _SumInBackward.apply(x, ranks.sum_grad_input)  # type: ignore[no-untyped-call]
    if ranks.sum_output is None:
        return functional.linear(x, w_NK, b)
    partial = functional.linear(x, w_NK)
    whole = _Sum.apply(partial, ranks.sum_output)  # type: ignore[no-untyped-call]
    return (whole if b is None else whole + b.to(partial.dtype)).to(partial.dtype)  # type: ignore[no-any-return]


class _Sum(torch.autograd.Function):
    """The sum over ranks in float32; its gradient is that of each part."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, add: Add) -> Tensor:
        ctx.dtype = partial.dtype
        return add(partial.to(torch.float32, copy=True))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


class _SumInBackward(torch.autograd.Function):
    """The same tensor, of whose gradient each rank has a part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, add: Add) -> Tensor:
        ctx.add = add
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.add(grad.to(torch.float32, copy=True)).to(grad.dtype), None
