"""The C++ core for torch.compile: its operations as operators of torch.library, with a fast path for eager mode.

A tracer (torch.compile, export, fake tensors) cannot follow an address into the core. It meets the operators
octoscale::observe, encode, decode and matmul instead, each with the shapes of its results, and the choice of the scale
between the first two stays in plain torch, where a compiler can see it. Eager tensors go to the core directly: the
dispatcher alone would take longer than a small cast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from octoscale.kernels.base import NUM_EXPONENT_BINS, Encoded, Scaled, Seen, codes_dtype
from octoscale.kernels.eager import is_eager
from octoscale.kernels.native import Native, Rows, Source, chosen
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import TENSOR, Granularity
from octoscale.numerics.scaling import Amax, Amount, Bias
from octoscale.system.errors import UserError


@dataclass(frozen=True)
class Operators:
    """The backend that `backends.choose` returns for the core."""

    native: Native

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        """See `Backend.granularities`."""
        return self.native.granularities

    def observe(self, x: Tensor, *, exponents: bool) -> Seen:
        """See `Backend.observe`."""
        if is_eager(x):
            return self.native.observe(x, exponents=exponents)
        amax, histogram = torch.ops.octoscale.observe(x, exponents)
        return Seen(amax, histogram if exponents else None)

    def encode(self, x: Tensor, fmt: Format, amax: Amount, scale_bias: Bias, *, counts: bool) -> Encoded:
        """See `Backend.encode`."""
        if not isinstance(amax, Tensor):
            return self.native.encode(x, fmt, amax, scale_bias, counts=counts)
        codes, count = torch.ops.octoscale.encode(x, amax, scale_bias, codes_dtype(fmt), counts)
        return Encoded(codes, count if counts else None)

    def cast(self, x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
        """See `Backend.cast`."""
        if is_eager(x):
            return self.native.cast(x, fmt, scale_bias, counts=counts, exponents=exponents)
        seen = self.observe(x, exponents=exponents)
        bias = torch.full((), scale_bias, dtype=torch.int32, device=x.device)
        return seen, self.encode(x, fmt, seen.amax, bias, counts=counts)

    def cast_groups(
        self, x: Tensor, fmt: Format, rule: Amax, granularity: Granularity, *, counts: bool, exponents: bool
    ) -> tuple[Seen, Tensor, Encoded]:
        """See `Backend.cast_groups`."""
        if not is_eager(x):
            _check_whole(granularity)
        return self.native.cast_groups(x, fmt, rule, granularity, counts=counts, exponents=exponents)

    def dequantize(self, q: Scaled, dtype: torch.dtype) -> Tensor:
        """See `Backend.dequantize`."""
        if is_eager(q.codes):
            return self.native.dequantize(q, dtype)
        _check_whole(q.granularity)
        return torch.ops.octoscale.decode(q.codes, q.scale_bias, dtype)  # type: ignore[no-any-return]

    def matmul(
        self,
        a: Scaled | Tensor,
        b: Scaled,
        bias_N: Tensor | None,
        dtype: torch.dtype,
        *,
        fast: bool = False,  # noqa: ARG002  sums are float32's
    ) -> Tensor:
        """See `Backend.matmul`."""
        a_MK = a if isinstance(a, Tensor) else a.codes
        if is_eager(a_MK):
            return self.native.matmul(a, b, bias_N, dtype)
        _check_whole(b.granularity if isinstance(a, Tensor) or a.granularity is TENSOR else a.granularity)
        a_bias = None if isinstance(a, Tensor) else a.scale_bias
        return torch.ops.octoscale.matmul(a_MK, a_bias, b.codes, b.scale_bias, bias_N, dtype)  # type: ignore[no-any-return]

    def in_columns(self, codes_KN: Tensor) -> Tensor:
        """See `Backend.in_columns`: they may lie as they like."""
        return codes_KN


def _check_whole(granularity: Granularity) -> None:
    """UserError where a tracer would need an operator of several scales."""
    if granularity is not TENSOR:
        raise UserError(f"no graph holds scales of granularity {granularity}: keep what is traced under amax, or eager")


@dataclass(frozen=True, eq=False)
class _Operand:
    """`Scaled` inside an operator, which takes tensors alone."""

    codes: Tensor
    scale_bias: Tensor
    granularity: Granularity = TENSOR


@torch.library.custom_op("octoscale::observe", mutates_args=(), device_types="cpu")
def _observe(x: Tensor, exponents: bool) -> tuple[Tensor, Tensor]:
    seen = _native().observe_rows(Rows(x), exponents)
    return torch.scalar_tensor(float(seen.amax), dtype=torch.float32), _or_empty(seen.exponents)


@_observe.register_fake
def _(x: Tensor, exponents: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty((), dtype=torch.float32), x.new_empty(NUM_EXPONENT_BINS * exponents, dtype=torch.int64)


@torch.library.custom_op("octoscale::encode", mutates_args=(), device_types="cpu")
def _encode(x: Tensor, amax: Tensor, scale_bias: Tensor, dtype: torch.dtype, counts: bool) -> tuple[Tensor, Tensor]:
    source = Source(x, dtype)
    count = _native().encode_rows(source, float(amax.item()), int(scale_bias.item()), counts)
    return source.result, _or_empty(count)


@_encode.register_fake
def _(x: Tensor, amax: Tensor, scale_bias: Tensor, dtype: torch.dtype, counts: bool) -> tuple[Tensor, Tensor]:
    return _like(x, dtype), x.new_empty(3 * counts, dtype=torch.int64)


@torch.library.custom_op("octoscale::decode", mutates_args=(), device_types="cpu")
def _decode(codes: Tensor, scale_bias: Tensor, dtype: torch.dtype) -> Tensor:
    return _native().decode(codes, int(scale_bias.item()), dtype)


@_decode.register_fake
def _(codes: Tensor, scale_bias: Tensor, dtype: torch.dtype) -> Tensor:
    return _like(codes, dtype)


@torch.library.custom_op("octoscale::matmul", mutates_args=(), device_types="cpu")
def _matmul(
    a: Tensor, a_bias: Tensor | None, b: Tensor, b_bias: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    return _native().matmul(a if a_bias is None else _Operand(a, a_bias), _Operand(b, b_bias), bias, dtype)


@_matmul.register_fake
def _(a: Tensor, a_bias: Tensor | None, b: Tensor, b_bias: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
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
