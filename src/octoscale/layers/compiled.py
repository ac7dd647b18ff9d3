"""The products of Fp8Linear for torch.compile and torch.export: operators whose shapes they know, and no more.

    octoscale::cast              x -> codes, scale_bias
    octoscale::fp8_linear        the forward product, from the codes of x and weight
    octoscale::fp8_linear_grads  the two backward products, with the cast of the gradient

Inside they are what eager mode calls, so that all bits are the same. A compiled graph has no state: the weight is cast
in each call, and what the layers would share, a compiler finds by itself (equal casts of one tensor become one). It
looks at no value either, so that infinity and NaN raise no error in inference; they still turn the product into NaN.
An operand travels as the text that it prints, `e4m3fn amax:margin=3`, for operators take no objects.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from octoscale.kernels import ops
from octoscale.kernels.base import codes_dtype
from octoscale.kernels.ops import Quantized
from octoscale.numerics.formats import Format, get_format
from octoscale.numerics.recipe import FAST, Recipe, parse_scaling
from octoscale.numerics.scaling import Rule

SEPARATOR = "; "


def fp8_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, terms: str, fast: str, is_conv1d: bool, dtype: torch.dtype
) -> Tensor:
    """`x @ w + bias` in `dtype`; terms: the operands of weight, input and grad_output, joined by `SEPARATOR`.

    fast: the passes that may keep fewer bits of their sums, as in a recipe.
    """
    for_weight, for_input, _ = terms.split(SEPARATOR)
    x8, x_bias = torch.ops.octoscale.cast(x.detach(), for_input)
    w8, w_bias = torch.ops.octoscale.cast(weight.detach(), for_weight)
    y: Tensor = torch.ops.octoscale.fp8_linear(x, weight, bias, x8, x_bias, w8, w_bias, terms, fast, is_conv1d, dtype)
    return y


@lru_cache
def operand_of(text: str) -> tuple[Format, Rule]:
    """The format and the rule that an operand's text names."""
    name, _, rule = text.partition(" ")
    recipe = parse_scaling(rule)
    assert isinstance(recipe, Recipe)
    recipe.check_whole("an operator of torch.compile")
    return get_format(name), recipe.weight.rule


@torch.library.custom_op("octoscale::cast", mutates_args=())
def _cast(x: Tensor, operand: str) -> tuple[Tensor, Tensor]:
    cast = ops.quantize(x.contiguous(), *operand_of(operand))
    return cast.codes, cast.scale_bias


@_cast.register_fake
def _(x: Tensor, operand: str) -> tuple[Tensor, Tensor]:
    codes = x.new_empty(x.shape, dtype=codes_dtype(operand_of(operand)[0]))
    return codes, x.new_empty((), dtype=torch.int32)


@torch.library.custom_op("octoscale::fp8_linear", mutates_args=())
def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    x8: Tensor,
    x_bias: Tensor,
    w8: Tensor,
    w_bias: Tensor,
    terms: str,
    fast: str,
    is_conv1d: bool,
    dtype: torch.dtype,
) -> Tensor:
    for_weight, for_input, _ = terms.split(SEPARATOR)
    a, b = _quantized(x8, x_bias, for_input).flatten_rows(), _quantized(w8, w_bias, for_weight)
    is_fast = "forward" in FAST[fast]
    y_BN = ops.matmul(a, b if is_conv1d else b.t(), dtype=dtype, bias=bias, fast=is_fast)
    return ops.reshaped(y_BN, (*x8.shape[:-1], y_BN.shape[-1]))


@_linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    x8: Tensor,
    x_bias: Tensor,
    w8: Tensor,
    w_bias: Tensor,
    terms: str,
    fast: str,
    is_conv1d: bool,
    dtype: torch.dtype,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[1 if is_conv1d else 0]), dtype=dtype)


@torch.library.custom_op("octoscale::fp8_linear_grads", mutates_args=())
def _grads(
    grad: Tensor,
    x8: Tensor,
    x_bias: Tensor,
    w8: Tensor,
    w_bias: Tensor,
    terms: str,
    fast: str,
    is_conv1d: bool,
    x_dtype: torch.dtype | None,
    w_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """The gradients of x and weight in these dtypes; an empty tensor for one that is not wanted, dtype None."""
    for_weight, for_input, for_grad = terms.split(SEPARATOR)
    w_q, x_q = _quantized(w8, w_bias, for_weight), _quantized(x8, x_bias, for_input).flatten_rows()
    g8 = ops.quantize(grad.contiguous(), *operand_of(for_grad)).flatten_rows()
    dx, dw = grad.new_empty(0), grad.new_empty(0)
    is_fast = "backward" in FAST[fast]
    if x_dtype is not None:
        dx = ops.reshaped(ops.matmul(g8, w_q.t() if is_conv1d else w_q, dtype=x_dtype, fast=is_fast), x8.shape)
    if w_dtype is not None:
        a, b = (x_q, g8) if is_conv1d else (g8, x_q)
        dw = ops.matmul(a.t(), b, dtype=w_dtype, fast=is_fast)
    return dx, dw


@_grads.register_fake
def _(
    grad: Tensor,
    x8: Tensor,
    x_bias: Tensor,
    w8: Tensor,
    w_bias: Tensor,
    terms: str,
    fast: str,
    is_conv1d: bool,
    x_dtype: torch.dtype | None,
    w_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    shapes = ((x8.shape, x_dtype), (w8.shape, w_dtype))
    dx, dw = (grad.new_empty(0) if dtype is None else grad.new_empty(shape, dtype=dtype) for shape, dtype in shapes)
    return dx, dw


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, x8, x_bias, w8, w_bias, ctx.terms, ctx.fast, ctx.is_conv1d, _ = inputs
    ctx.save_for_backward(x8, x_bias, w8, w_bias)
    ctx.x_dtype = x.dtype if ctx.needs_input_grad[0] else None
    ctx.w_dtype = weight.dtype if ctx.needs_input_grad[1] else None
    ctx.bias_dtype = bias.dtype if bias is not None and ctx.needs_input_grad[2] else None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dx = dw = db = None
    if ctx.x_dtype is not None or ctx.w_dtype is not None:
        dx, dw = torch.ops.octoscale.fp8_linear_grads(
            grad, *ctx.saved_tensors, ctx.terms, ctx.fast, ctx.is_conv1d, ctx.x_dtype, ctx.w_dtype
        )
    if ctx.bias_dtype is not None:
        db = grad.reshape(-1, grad.shape[-1]).sum(0, dtype=torch.float32).to(ctx.bias_dtype)
    return (dx if ctx.x_dtype else None, dw if ctx.w_dtype else None, db, *[None] * 8)


_linear.register_autograd(_backward, setup_context=_setup)


def _quantized(codes: Tensor, scale_bias: Tensor, operand: str) -> Quantized:
    return Quantized(codes=codes, scale_bias=scale_bias, format=operand_of(operand)[0])
