"""The products of StoredLinear for torch.compile and torch.export: operators that read its scales in each call.

    octoscale::stored_cast          x, the scale of the file -> codes, scale_bias; dynamic inputs take octoscale::cast
    octoscale::stored_linear        the product, from the codes of x and the parameters of the layer
    octoscale::stored_linear_grad   the gradient of x; the weight has none
    octoscale::weight_only          the product where the weight alone is FP8
    octoscale::weight_only_grad     its gradient of x: an operator, for a compiler would let autocast round it

A scale is a parameter, and a graph gets it as one: no number of it is baked in, so that another file can be loaded into
the same graph. Inside, the operators do what eager mode does, to the bit; that depends on whether a scale is a power of
two, which only they can see. On a device nobody looks: there, a factor is multiplied with, 1 or not.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from octoscale.kernels import ops
from octoscale.kernels.base import codes_dtype
from octoscale.kernels.ops import Quantized
from octoscale.layers.compiled import SEPARATOR, operand_of
from octoscale.layers.factor import is_one, split_in_graph
from octoscale.numerics.recipe import FAST
from octoscale.numerics.scaling import Amount


def stored_linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    bias: Tensor | None,
    terms: str,
    fast: str,
    is_conv1d: bool,
    dtype: torch.dtype,
) -> Tensor:
    """`x @ w + bias` in `dtype`, both operands in FP8. input_scale: of static inputs; terms, fast: as `fp8_linear`."""
    for_input = terms.split(SEPARATOR)[1]
    if input_scale is None:
        x8, x_bias = torch.ops.octoscale.cast(x.detach(), for_input)
    else:
        x8, x_bias = torch.ops.octoscale.stored_cast(x.detach(), input_scale, for_input)
    y: Tensor = torch.ops.octoscale.stored_linear(
        x, x8, x_bias, weight, scale, input_scale, bias, terms, fast, is_conv1d, dtype
    )
    return y


def weight_only(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, operand: str, is_conv1d: bool, dtype: torch.dtype
) -> Tensor:
    """`x @ w + bias` in `dtype`, where x stays what it is. operand: what the weight is, as a recipe prints it."""
    is_inference = not torch.is_grad_enabled()
    y: Tensor = torch.ops.octoscale.weight_only(x, weight, scale, bias, operand, is_conv1d, dtype, is_inference)
    return y


def values_product(x: Tensor, w_NK: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`x @ w^T + bias` in float32, rounded once to `dtype`; autocast rounds neither of them."""
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x.float(), w_NK, None if bias is None else bias.float()).to(dtype)


@torch.library.custom_op("octoscale::stored_cast", mutates_args=())
def _cast(x: Tensor, scale: Tensor, operand: str) -> tuple[Tensor, Tensor]:
    scale_bias, factor = split_in_graph(scale)
    values = x.contiguous() if is_one(factor) else (x.float() / factor).contiguous()
    cast = ops.encode(values, operand_of(operand)[0], scale_bias, ops.observe(values))
    return cast.codes, scale_bias


@_cast.register_fake
def _(x: Tensor, scale: Tensor, operand: str) -> tuple[Tensor, Tensor]:
    codes = x.new_empty(x.shape, dtype=codes_dtype(operand_of(operand)[0]))
    return codes, x.new_empty((), dtype=torch.int32)


@torch.library.custom_op("octoscale::stored_linear", mutates_args=())
def _linear(
    x: Tensor,
    x8: Tensor,
    x_bias: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    bias: Tensor | None,
    terms: str,
    fast: str,
    is_conv1d: bool,
    dtype: torch.dtype,
) -> Tensor:
    for_weight, for_input, _ = terms.split(SEPARATOR)
    w8, factor = _weight(weight, scale, for_weight)
    factor *= _factor(input_scale)
    x_BK = Quantized(codes=x8, scale_bias=x_bias, format=operand_of(for_input)[0]).flatten_rows()
    w_KN, is_fast = w8 if is_conv1d else w8.t(), "forward" in FAST[fast]
    if is_one(factor):
        y_BN = ops.matmul(x_BK, w_KN, dtype=dtype, bias=bias, fast=is_fast)
    else:
        y_BN = _finished(ops.matmul(x_BK, w_KN, dtype=torch.float32, fast=is_fast) * factor, bias, dtype)
    return ops.reshaped(y_BN, (*x8.shape[:-1], y_BN.shape[-1]))


@_linear.register_fake
def _(
    x: Tensor,
    x8: Tensor,
    x_bias: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    bias: Tensor | None,
    terms: str,
    fast: str,
    is_conv1d: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _new_output(x, weight, is_conv1d, dtype)


@torch.library.custom_op("octoscale::stored_linear_grad", mutates_args=())
def _grad(
    grad: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    terms: str,
    fast: str,
    is_conv1d: bool,
    x_dtype: torch.dtype,
) -> Tensor:
    for_weight, _, for_grad = terms.split(SEPARATOR)
    w8, factor = _weight(weight, scale, for_weight)
    input_factor = _factor(input_scale)
    factor *= input_factor
    g8 = ops.quantize((grad if is_one(factor) else grad.float() * factor).contiguous(), *operand_of(for_grad))
    w_NK, is_fast = w8.t() if is_conv1d else w8, "backward" in FAST[fast]
    if is_one(input_factor):
        dx_BK = ops.matmul(g8.flatten_rows(), w_NK, dtype=x_dtype, fast=is_fast)
    else:
        dx_BK = (ops.matmul(g8.flatten_rows(), w_NK, dtype=torch.float32, fast=is_fast) / input_factor).to(x_dtype)
    return ops.reshaped(dx_BK, (*grad.shape[:-1], dx_BK.shape[-1]))


@_grad.register_fake
def _(
    grad: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    terms: str,
    fast: str,
    is_conv1d: bool,
    x_dtype: torch.dtype,
) -> Tensor:
    return _new_output(grad, weight, not is_conv1d, x_dtype)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, _, _, weight, scale, input_scale, bias, ctx.terms, ctx.fast, ctx.is_conv1d, _ = inputs
    ctx.save_for_backward(weight, scale, input_scale)
    ctx.x_dtype = x.dtype if ctx.needs_input_grad[0] else None
    ctx.bias_dtype = bias.dtype if bias is not None and ctx.needs_input_grad[6] else None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dx = None
    if ctx.x_dtype is not None:
        words = (ctx.terms, ctx.fast, ctx.is_conv1d, ctx.x_dtype)
        dx = torch.ops.octoscale.stored_linear_grad(grad, *ctx.saved_tensors, *words)
    return (dx, *[None] * 5, _bias_grad(ctx, grad), *[None] * 4)


_linear.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("octoscale::weight_only", mutates_args=())
def _weight_only(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    operand: str,
    is_conv1d: bool,
    dtype: torch.dtype,
    is_inference: bool,
) -> Tensor:
    w8, factor = _weight(weight, scale, operand)
    w_NK = w8.t() if is_conv1d else w8
    if is_inference and x.dtype == torch.bfloat16 and is_one(factor):
        return ops.linear(x, w_NK, bias=bias, dtype=dtype)
    if is_inference and x.dtype == torch.bfloat16 and isinstance(factor, Tensor):
        return _finished(ops.linear(x, w_NK, dtype=torch.float32) * factor, bias, dtype)
    return values_product(x, w_NK.dequantize(torch.float32) * factor, bias, dtype)


@_weight_only.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    operand: str,
    is_conv1d: bool,
    dtype: torch.dtype,
    is_inference: bool,
) -> Tensor:
    return _new_output(x, weight, is_conv1d, dtype)


@torch.library.custom_op("octoscale::weight_only_grad", mutates_args=())
def _weight_only_grad(
    grad: Tensor, weight: Tensor, scale: Tensor, operand: str, is_conv1d: bool, x_dtype: torch.dtype
) -> Tensor:
    w8, factor = _weight(weight, scale, operand)
    w_KN = w8 if is_conv1d else w8.t()
    return values_product(grad.contiguous(), w_KN.dequantize(torch.float32) * factor, None, x_dtype)


@_weight_only_grad.register_fake
def _(grad: Tensor, weight: Tensor, scale: Tensor, operand: str, is_conv1d: bool, x_dtype: torch.dtype) -> Tensor:
    return _new_output(grad, weight, not is_conv1d, x_dtype)


def _setup_weight_only(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, scale, bias, ctx.operand, ctx.is_conv1d, _, _ = inputs
    ctx.save_for_backward(weight, scale)
    ctx.x_dtype = x.dtype if ctx.needs_input_grad[0] else None
    ctx.bias_dtype = bias.dtype if bias is not None and ctx.needs_input_grad[3] else None


def _backward_weight_only(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dx = None
    if ctx.x_dtype is not None:
        words = (ctx.operand, ctx.is_conv1d, ctx.x_dtype)
        dx = torch.ops.octoscale.weight_only_grad(grad, *ctx.saved_tensors, *words)
    return (dx, None, None, _bias_grad(ctx, grad), *[None] * 4)


_weight_only.register_autograd(_backward_weight_only, setup_context=_setup_weight_only)


def _bias_grad(ctx: Any, grad: Tensor) -> Tensor | None:
    if ctx.bias_dtype is None:
        return None
    return grad.reshape(-1, grad.shape[-1]).sum(0, dtype=torch.float32).to(ctx.bias_dtype)


def _weight(weight: Tensor, scale: Tensor, operand: str) -> tuple[Quantized, Amount]:
    """The weight, and the factor that its scale leaves."""
    scale_bias, factor = split_in_graph(scale)
    return Quantized(codes=weight.detach(), scale_bias=scale_bias, format=operand_of(operand)[0]), factor


def _factor(scale: Tensor | None) -> Amount:
    return 1.0 if scale is None else split_in_graph(scale)[1]


def _finished(y: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A float32 product with its bias, rounded."""
    return (y if bias is None else y + bias.detach()).to(dtype)


def _new_output(x: Tensor, weight: Tensor, is_conv1d: bool, dtype: torch.dtype) -> Tensor:
    """What comes out of a weight [N, K], or Conv1D's [K, N]."""
    return x.new_empty((*x.shape[:-1], weight.shape[1 if is_conv1d else 0]), dtype=dtype)
