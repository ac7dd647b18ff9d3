"""The products of a model's layers as it reads a text: operands in FP8, and what the same values give uncast.

    forward_products(model, recipe, windows, tell, rows=64)     tell(product) for each layer and window
    backward_products(model, recipe, window, tell, rows=64)     both gradients' products of each layer

The operands are the very codes that the layers multiply, of some rows: a row of an output, or of a gradient of an
input, is a token's; a row of a gradient of a weight is an output feature's, and its sum runs over the tokens. The model
computes with the sums of its recipe, and is left as it was.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.conversion.convert import convert, revert
from octoscale.conversion.record import fp8_layers
from octoscale.kernels.ops import Quantized
from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.state import nonfinite_error
from octoscale.numerics.recipe import Recipe
from octoscale.runs.scales import LayerName
from octoscale.validation.perplexity import window_loss


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """One product: a [M, K] and b [K, N], and a bias [N] or None.

    result: one of formats.RESULTS. high: float64 [M, N], what the values before the casts give, the bias included.
    """

    layer: LayerName
    result: str
    a: Quantized
    b: Quantized
    high: Tensor
    bias: Tensor | None = None


#: What is told of each product.
Tell = Callable[[Product], None]


def forward_products(
    model: nn.Module,
    recipe: Recipe,
    windows: Tensor,
    tell: Tell,
    *,
    rows: int,
    on_window: Callable[[int], None] = lambda _: None,
) -> None:
    """Read windows, int64 [W, T], and tell of each layer's product; `rows` of its rows, spread over all windows.

    on_window: called with the number of windows that were read. Raises as `convert`, and NonFiniteError.
    """
    each = math.ceil(rows / len(windows))

    def watch(layer: Fp8Linear, args: tuple[Any, ...], _: Tensor) -> None:
        x = args[0].detach()
        x8 = layer.fp8.cast_input(args[0], inference=True).flatten_rows()
        kept = spread(x8.codes.shape[0], each)
        w8, w_KN = _weights(layer)
        bias = None if layer.bias is None else layer.bias.detach()
        high = x.flatten(0, -2)[kept].double() @ w_KN.double()
        high = high if bias is None else high + bias.double()
        tell(Product(layer=layer.fp8.name, result="output", a=some(x8, kept), b=w8, high=high, bias=bias))

    with _watched(model, recipe, watch), torch.no_grad():
        for index, window in enumerate(windows):
            window_loss(model, window)
            on_window(index + 1)


def backward_products(model: nn.Module, recipe: Recipe, window: Tensor, tell: Tell, *, rows: int) -> None:
    """Read a window, int64 [T], and tell of the two products of each layer that the gradient of its loss takes.

    Raises as `convert`, and NonFiniteError. The model's gradients are None afterwards.
    """

    def watch(layer: Fp8Linear, args: tuple[Any, ...], output: Tensor) -> None:
        x8 = layer.fp8.cast_input(args[0], inference=True).flatten_rows()
        on_grad = partial(take, layer, args[0].detach().flatten(0, -2), x8, *_weights(layer))
        output.register_hook(on_grad)  # type: ignore[no-untyped-call]

    def take(layer: Fp8Linear, x_BK: Tensor, x8_BK: Quantized, w8_KN: Quantized, w_KN: Tensor, grad: Tensor) -> None:
        if not bool(grad.isfinite().all()):
            raise nonfinite_error(layer.fp8.name.module, "grad_output")
        g8_BN = layer.fp8.cast_grad_output(grad, 0).flatten_rows()
        g_BN = grad.flatten(0, -2)
        kept = spread(g_BN.shape[0], rows)
        high = g_BN[kept].double() @ w_KN.t().double()
        tell(Product(layer=layer.fp8.name, result="grad_input", a=some(g8_BN, kept), b=w8_KN.t(), high=high))
        kept = spread(g_BN.shape[1], rows)
        high = g_BN.t()[kept].double() @ x_BK.double()
        tell(Product(layer=layer.fp8.name, result="grad_weight", a=some(g8_BN.t(), kept), b=x8_BK, high=high))

    try:
        with _watched(model, recipe, watch), torch.enable_grad():
            window_loss(model, window).mean().backward()  # type: ignore[no-untyped-call]
    finally:
        model.zero_grad(set_to_none=True)


@contextmanager
def _watched(model: nn.Module, recipe: Recipe, watch: Callable[..., None]) -> Iterator[None]:
    """The model in FP8, each of whose layers tells of its calls, while the block runs."""
    convert(model, recipe)
    hooks = [layer.register_forward_hook(watch) for layer in fp8_layers(model)]
    try:
        with bf16_through_float32(model):
            yield
    finally:
        for hook in hooks:
            hook.remove()
        revert(model)


def spread(count: int, wanted: int) -> Tensor:
    """Up to `wanted` of `count` indices, as far from each other as can be: int64, ascending."""
    return torch.linspace(0, count - 1, min(wanted, count), dtype=torch.float64).round().long()


def some(x: Quantized, rows: Tensor) -> Quantized:
    """Rows of a matrix, with its scale."""
    return replace(x, codes=x.codes.view(torch.uint8)[rows].view(x.codes.dtype), observed=None)


def _weights(layer: Fp8Linear) -> tuple[Quantized, Tensor]:
    """The weight as the layer multiplies it, and as it was before the cast; both [K, N]."""
    weight = layer.weight.detach()
    w8 = layer.fp8.cast_weight(layer.weight, inference=True)
    return (w8, weight) if layer.fp8.is_conv1d else (w8.t(), weight.t())
