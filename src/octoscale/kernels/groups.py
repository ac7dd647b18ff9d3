"""Scales for less than a tensor, in plain torch: the amax of each group, its scale over its values, and products.

    amaxes(x, BLOCK)                     float32, in the granularity's scale_shape
    spread(scales, BLOCK, x.shape)       each scale at all values of its group
    matmul(a, b, ...)                    a product of operands that bring such scales

Where a scale does not change along the sum it is a factor of the whole sum, and stands in the epilogue. Where it does,
each run of the sum that has one scale would be scaled and added up in float32; as scales are powers of two, that is the
sum of the same products in some order. So operands are decoded *with* their scales, relative to the largest one of
their row (of b: column), which is a factor again: values are then exact in float32 and bfloat16, and so are products,
as long as the scales of a row lie within 2**`WIDEST` of each other. Where they do not, products and sums are float64's.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from octoscale.kernels.base import Scaled
from octoscale.numerics.granularity import TENSOR, Granularity
from octoscale.numerics.scaling import power_of_two

#: How far the scale_biases of two operands may reach, together, along the sum. The smallest product of two codes is
#: 2**-34 (e5m2fnuz squared): 2**-126 with these, which a dot product in bfloat16 that knows no subnormals holds, too.
WIDEST = 92

#: A factor of 2**60 leaves any sum of products of two codes within float32, as a normal number; so it does where the
#: scales inside reach no further than this.
_MODEST, _MODEST_REACH = 60, 32

Decode = Callable[[Tensor, Tensor | None, Granularity], Tensor]
Multiply = Callable[["Relative", "Relative", Tensor | None, torch.dtype], Tensor | None]


def amaxes(x: Tensor, granularity: Granularity) -> Tensor:
    """The largest magnitude of each group, float32; NaN wins over everything; 0 for a group without values."""
    shape = granularity.scale_shape(x.shape)
    if x.numel() == 0:
        return torch.zeros(shape, dtype=torch.float32, device=x.device)
    found = x.abs()
    for dim, size in zip((-1, -2), reversed(granularity.group), strict=False):
        if x.ndim >= -dim:
            found = _largest(found, dim, size)
    return found.float()


def _largest(x: Tensor, dim: int, size: int | None) -> Tensor:
    """The largest of each `size` values along a dimension; the last ones may be fewer."""
    length = x.shape[dim]
    if size is None or size >= length:
        return x.amax(dim, keepdim=True)
    if size == 1:
        return x
    whole, at = length // size * size, x.ndim + dim
    parts = [x.narrow(dim, 0, whole).reshape(*x.shape[:at], -1, size, *x.shape[at + 1 :]).amax(at + 1)]
    if whole < length:
        parts.append(x.narrow(dim, whole, length - whole).amax(dim, keepdim=True))
    return torch.cat(parts, dim)


def spread(scales: Tensor, granularity: Granularity, shape: Sequence[int]) -> Tensor:
    """The scale of each value of a tensor of this shape; broadcast, not copied, where a group is a whole dimension."""
    for dim, size in zip((-1, -2), reversed(granularity.group), strict=False):
        if size is not None and size > 1 and len(shape) >= -dim and scales.shape[dim] > 1:
            scales = scales.repeat_interleave(size, dim).narrow(dim, 0, shape[dim])
    return scales.expand(tuple(shape))


def whole(a: Scaled | Tensor, b: Scaled) -> bool:
    """Whether each operand of a product has one scale at most."""
    return b.granularity is TENSOR and (isinstance(a, Tensor) or a.granularity is TENSOR)


def matmul(
    a: Scaled | Tensor, b: Scaled, bias_N: Tensor | None, dtype: torch.dtype, decode: Decode, multiply: Multiply
) -> Tensor:
    """See `Backend.matmul`, of operands with any granularity.

    decode(codes, beyond, granularity): codes, or bfloat16 values, as float32, times 2**-beyond of each group; None: 0.
    multiply(left, right, bias_N, dtype): the product of two that lie within `WIDEST`. None if it has no kernel for
    scales that change along the sum.
    """
    left, right = _relative(a, 1), _relative(b, 0)
    reach = left.reach + right.reach
    found = multiply(left, right, bias_N, dtype) if reach <= WIDEST else None
    if found is not None:
        return found
    if reach > WIDEST:
        sums = _in_float64(left, decode) @ _in_float64(right, decode)
        out_MN = (sums * _power_of_two_64(-left.base - right.base)).float()
        return (out_MN if bias_N is None else out_MN.add_(bias_N)).to(dtype)
    sums = mm(_in_float32(left, decode), _in_float32(right, decode))
    return finish(sums, left.base, right.base, bias_N, dtype, reach)


def unscale(sum_MN: Tensor, scale_bias: Tensor, bias_N: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`sum * 2**-scale_bias + bias` in `dtype`, in place where it can be; scale_bias is that of two operands.

    It may need two factors. The smaller one goes first, so that only the last one rounds.
    """
    last = (-scale_bias).clamp(-126, 126)
    out_MN = sum_MN.mul_(power_of_two(-scale_bias - last)).mul_(power_of_two(last))
    return (out_MN if bias_N is None else out_MN.add_(bias_N)).to(dtype)


class Relative(NamedTuple):
    """An operand whose scale_bias is `base`, a factor of sums, plus `beyond`, of each group; None: it is 0 everywhere.

    reach: the largest of `beyond`.
    """

    codes: Tensor
    base: Tensor
    beyond: Tensor | None
    reach: int
    granularity: Granularity


def _relative(operand: Scaled | Tensor, along: int) -> Relative:
    """along: the dimension of the sum."""
    if isinstance(operand, Tensor):
        return Relative(operand, torch.zeros((1, 1), dtype=torch.int32, device=operand.device), None, 0, TENSOR)
    codes, granularity, biases = operand.codes, operand.granularity, operand.scale_bias
    of_sums = list(codes.shape)
    of_sums[along] = 1
    if biases.ndim == 0 or biases.numel() == 0:
        return Relative(codes, biases.new_zeros(of_sums) if biases.ndim else biases.view(1, 1), None, 0, granularity)
    base = biases.amin(along, keepdim=True)
    beyond = biases - base
    reach = int(beyond.amax()) if biases.shape[along] > 1 else 0
    factor = spread(base, granularity, of_sums)
    return Relative(codes, factor, beyond if reach else None, reach, granularity)


def _in_float32(operand: Relative, decode: Decode) -> Tensor:
    """The values relative to the base: exact, for WIDEST is far from the end of float32's range."""
    return decode(operand.codes, operand.beyond, operand.granularity)


def _in_float64(operand: Relative, decode: Decode) -> Tensor:
    values = decode(operand.codes, None, operand.granularity).double()
    if operand.beyond is None:
        return values
    return values * spread(_power_of_two_64(-operand.beyond), operand.granularity, values.shape)


def mm(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """float32 sums of products of values that are bfloat16, too: a GPU multiplies them as such."""
    with torch.autocast(a_MK.device.type, enabled=False):
        if a_MK.device.type == "cuda":
            return torch.mm(a_MK.bfloat16(), b_KN.bfloat16(), out_dtype=torch.float32)
        return torch.mm(a_MK, b_KN)


def finish(
    sums: Tensor, rows: Tensor, columns: Tensor, bias_N: Tensor | None, dtype: torch.dtype, reach: int = 0
) -> Tensor:
    """`sums * 2**-(rows + columns) + bias` in `dtype`, in place where it can be.

    The first factor rounds nothing, as sums of codes are 0 or 2**-34 up, and 2**-reach of that with scales inside.
    """
    if reach > _MODEST_REACH or bool((rows.abs() > _MODEST).any()):
        return unscale(sums, rows + columns, bias_N, dtype)
    out_MN = sums.mul_(power_of_two(-rows)).mul_(power_of_two(-columns))
    return (out_MN if bias_N is None else out_MN.add_(bias_N)).to(dtype)


def _power_of_two_64(exponent: Tensor) -> Tensor:
    """2**exponent in [-1022, 1023], float64, from its bits."""
    return ((exponent.long() + 1023) << 52).view(torch.float64)
