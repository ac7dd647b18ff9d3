"""The C++ core for torch.compile: its operations as operators of torch.library, with a fast path for eager mode.

A tracer (torch.compile, export, fake tensors) cannot follow an address into the core. It meets the operators
octoscale::observe, encode, decode and matmul instead, each with the shapes of its results, and the choice of the scale
between the first two stays in plain torch, where a compiler can see it. Eager tensors go to the core directly: the
dispatcher alone would take longer than a small cast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from octoscale.kernels.base import NUM_EXPONENT_BINS, Cast
from octoscale.kernels.native import Native, Source, chosen, to_cast
from octoscale.numerics.formats import Format
from octoscale.numerics.scaling import History, Rule


@dataclass(frozen=True)
class Operators:
    """The backend that `backends.choose` returns for the core."""

    native: Native

    def quantize(
        self, x: Tensor, fmt: Format, rule: Rule, history: History | None, *, counts: bool, exponents: bool
    ) -> Cast:
        """See `Backend.quantize`."""
        if _is_eager(x):
            return self.native.quantize(x, fmt, rule, history, counts=counts, exponents=exponents)
        amax, histogram = torch.ops.octoscale.observe(x, exponents)
        scale_bias = rule.scale_bias(amax, fmt, history)
        codes, count = torch.ops.octoscale.encode(x, amax, scale_bias, getattr(torch, fmt.torch_name), counts)
        return to_cast(codes, scale_bias, amax, count if counts else None, histogram if exponents else None)

    def dequantize(self, codes: Tensor, scale_bias: Tensor, dtype: torch.dtype) -> Tensor:
        """See `Backend.dequantize`."""
        if _is_eager(codes):
            return self.native.dequantize(codes, scale_bias, dtype)
        return torch.ops.octoscale.decode(codes, scale_bias, dtype)  # type: ignore[no-any-return]

    def matmul(
        self, a_MK: Tensor, b_KN: Tensor, scale_bias: Tensor, bias_N: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """See `Backend.matmul`."""
        if _is_eager(a_MK):
            return self.native.matmul(a_MK, b_KN, scale_bias, bias_N, dtype)
        return torch.ops.octoscale.matmul(a_MK, b_KN, scale_bias, bias_N, dtype)  # type: ignore[no-any-return]


def _is_eager(x: Tensor) -> bool:
    """Whether this is a tensor with memory of its own, outside of any tracer.

    The wrappers of torch.func have the type Tensor, and no memory: an address of theirs would be null. Raises
    RuntimeError under torch.jit.trace, which would keep the scale of the one tensor that it saw.
    """
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter):
        return False
    if torch._C._is_tracing():
        raise RuntimeError("torch.jit.trace cannot record a scale that follows its input: use torch.compile or export")
    return not (torch._is_functional_tensor(x) or torch._C._functorch.is_functorch_wrapped_tensor(x))


@torch.library.custom_op("octoscale::observe", mutates_args=(), device_types="cpu")
def _observe(x: Tensor, exponents: bool) -> tuple[Tensor, Tensor]:
    amax, histogram = _native().observe(Source(x, x.dtype), exponents)
    return amax, _or_empty(histogram)


@_observe.register_fake
def _(x: Tensor, exponents: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty((), dtype=torch.float32), x.new_empty(NUM_EXPONENT_BINS * exponents, dtype=torch.int64)


@torch.library.custom_op("octoscale::encode", mutates_args=(), device_types="cpu")
def _encode(x: Tensor, amax: Tensor, scale_bias: Tensor, dtype: torch.dtype, counts: bool) -> tuple[Tensor, Tensor]:
    source = Source(x, dtype)
    count = _native().encode(source, amax, scale_bias, counts)
    return source.result, _or_empty(count)


@_encode.register_fake
def _(x: Tensor, amax: Tensor, scale_bias: Tensor, dtype: torch.dtype, counts: bool) -> tuple[Tensor, Tensor]:
    return _like(x, dtype), x.new_empty(3 * counts, dtype=torch.int64)


@torch.library.custom_op("octoscale::decode", mutates_args=(), device_types="cpu")
def _decode(codes: Tensor, scale_bias: Tensor, dtype: torch.dtype) -> Tensor:
    return _native().dequantize(codes, scale_bias, dtype)


@_decode.register_fake
def _(codes: Tensor, scale_bias: Tensor, dtype: torch.dtype) -> Tensor:
    return _like(codes, dtype)


@torch.library.custom_op("octoscale::matmul", mutates_args=(), device_types="cpu")
def _matmul(a: Tensor, b: Tensor, scale_bias: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return _native().matmul(a, b, scale_bias, bias, dtype)


@_matmul.register_fake
def _(a: Tensor, b: Tensor, scale_bias: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return a.new_empty((a.shape[0], b.shape[1]), dtype=dtype)


def _native() -> Native:
    return Native(chosen())


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The strides that `Source` gives to its result."""
    like = torch.empty_like(x, dtype=dtype)
    return like if like.stride() == x.stride() else x.new_empty(x.shape, dtype=dtype)


def _or_empty(x: Tensor | None) -> Tensor:
    """An operator's result is a tensor, always."""
    return torch.empty(0, dtype=torch.int64) if x is None else x
