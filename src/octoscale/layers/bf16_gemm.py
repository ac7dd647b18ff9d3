"""bfloat16 linear layers on a CPU that has no bfloat16 dot products: 5 to 80 times faster, by way of float32.

Where oneDNN cannot multiply bfloat16 (no AVX-512 BF16 or AMX), torch falls back to slow loops. A bfloat16 GEMM is a
sum of exact float32 products, accumulated in float32 and rounded once; so a float32 GEMM on the same operands, rounded
to bfloat16, is the same computation, up to the order of its sum. So are both products of its backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.kernels.portable import cpu_has_bf16_gemm
from octoscale.layers.origin import is_conv1d


@contextmanager
def bf16_through_float32(model: nn.Module) -> Iterator[bool]:
    """While the block runs, plain linear layers on the CPU multiply in float32 where they would in bfloat16.

    They are `nn.Linear` and transformers' `Conv1D` with bfloat16 weights, or float32 ones under bfloat16 autocast.
    Yields whether that is so: a CPU with a bfloat16 GEMM of its own needs none of it, and nothing is changed.
    """
    layers = [] if cpu_has_bf16_gemm() else [layer for layer in model.modules() if _may_be_slow(layer)]
    for layer in layers:
        layer.forward = partial(_conv1d if is_conv1d(layer) else _linear, layer)
    try:
        yield bool(layers)
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _may_be_slow(layer: nn.Module) -> bool:
    is_part = getattr(type(layer), "is_part_of_conv1d", False)
    if "forward" in layer.__dict__ or not (type(layer) is nn.Linear or (is_conv1d(layer) and not is_part)):
        return False
    weight = layer._parameters.get("weight")
    return weight is not None and weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float32)


def _linear(layer: Any, input: Tensor) -> Tensor:
    return _forward(layer, input)


def _conv1d(layer: Any, x: Tensor) -> Tensor:
    return _forward(layer, x)


def _forward(layer: Any, x: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if not _is_in_bf16(x, weight) or not _is_plain(weight):
        out: Tensor = type(layer).forward(layer, x)
        return out
    w_NK = weight.t() if is_conv1d(layer) else weight
    with torch.autocast("cpu", enabled=False):
        to_round = (x, w_NK, bias) if bias is not None else (x, w_NK)
        out = _Product.apply(*(tensor.to(torch.bfloat16) for tensor in to_round))  # type: ignore[no-untyped-call]
    return out


def _is_in_bf16(x: Tensor, weight: Tensor) -> bool:
    """Whether torch would multiply in bfloat16: by autocast, or as both are."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and x.dtype in _CAST
    return x.dtype == weight.dtype == torch.bfloat16


#: What autocast casts.
_CAST = (torch.float32, torch.bfloat16, torch.float16)


def _is_plain(weight: Tensor) -> bool:
    """A part of a weight on many ranks is multiplied by its own class."""
    return type(weight) in (Tensor, nn.Parameter)


class _Product(torch.autograd.Function):
    """x @ w^T + bias, of bfloat16 tensors [..., K], [N, K] and [N], rounded once; as torch, it keeps bfloat16 ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, w_NK)
        bias = None if bias_N is None else bias_N.float()
        return nn.functional.linear(x.float(), w_NK.float(), bias).to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, w_NK = ctx.saved_tensors
        for_x, for_w, *for_bias = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            g_MN = gradients[0].reshape(-1, len(w_NK)).float()
            x_MK = x.reshape(-1, w_NK.shape[1]).float()
            return (
                (g_MN @ w_NK.float()).to(torch.bfloat16).view(x.shape) if for_x else None,
                (g_MN.t() @ x_MK).to(torch.bfloat16) if for_w else None,
                *(g_MN.sum(0).to(torch.bfloat16) if wanted else None for wanted in for_bias),
            )
