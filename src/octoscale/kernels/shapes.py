"""A backend that computes nothing: shapes, dtypes and working memory, for a plan of what a step would hold.

    with table.instead("cpu", Choice(name="shapes", backend=shapes, reason="a plan")): ...

It looks at no value, so that fake tensors pass, and it says the same on every machine. The working memory of a product
is that of a GPU: both operands decoded to bfloat16, and the sum in float32 before its one rounding (portable.py).
"""

import torch
from torch import Tensor

from octoscale.kernels.base import Encoded, Scaled, Seen, codes_dtype
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import GRANULARITIES, Granularity
from octoscale.numerics.scaling import Amax

granularities = tuple(GRANULARITIES.values())


def observe(x: Tensor, *, exponents: bool) -> Seen:  # noqa: ARG001  a plan records nothing
    """See `Backend.observe`."""
    return Seen(x.new_empty((), dtype=torch.float32), None)


def encode(
    x: Tensor,
    fmt: Format,
    amax: Tensor | float,  # noqa: ARG001
    scale_bias: Tensor | int,  # noqa: ARG001
    *,
    counts: bool,  # noqa: ARG001
) -> Encoded:
    """See `Backend.encode`."""
    return Encoded(torch.empty_like(x, dtype=codes_dtype(fmt)), None)


def cast(x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
    """See `Backend.cast`."""
    seen = observe(x, exponents=exponents)
    return seen, encode(x, fmt, seen.amax, scale_bias, counts=counts)


def cast_groups(
    x: Tensor,
    fmt: Format,
    rule: Amax,  # noqa: ARG001
    granularity: Granularity,
    *,
    counts: bool,  # noqa: ARG001
    exponents: bool,  # noqa: ARG001
) -> tuple[Seen, Tensor, Encoded]:
    """See `Backend.cast_groups`."""
    shape = granularity.scale_shape(x.shape)
    amax, bias = (x.new_empty(shape, dtype=dtype) for dtype in (torch.float32, torch.int32))
    return Seen(amax, None), bias, Encoded(torch.empty_like(x, dtype=codes_dtype(fmt)), None)


def dequantize(q: Scaled, dtype: torch.dtype) -> Tensor:
    """See `Backend.dequantize`."""
    return torch.empty_like(q.codes, dtype=dtype)


def in_columns(codes_KN: Tensor) -> Tensor:
    """See `Backend.in_columns`: they may lie as they like."""
    return codes_KN


def matmul(
    a: Scaled | Tensor,
    b: Scaled,
    bias_N: Tensor | None,  # noqa: ARG001
    dtype: torch.dtype,
    *,
    fast: bool = False,  # noqa: ARG001
) -> Tensor:
    """See `Backend.matmul`."""
    operands = [a if isinstance(a, Tensor) else a.codes, b.codes]
    working = [x if x.dtype == torch.bfloat16 else torch.empty_like(x, dtype=torch.bfloat16) for x in operands]
    sum_MN = working[0].new_empty((operands[0].shape[0], operands[1].shape[1]), dtype=torch.float32)
    return sum_MN.to(dtype)
