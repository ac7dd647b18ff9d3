"""The three products of an FP8 layer in float64, on codes that torch's own casts make. The oracle of the sweep.

Codes: numerics/reference.py chooses a tensor's scale from its largest magnitude, torch rounds to nearest, ties to even.
A product of two FP8 values is exact in float32, so the layer differs from float64 by its sum and its last rounding:

    |y - y64| <= (n + 2) * 2**-24 * (|x| @ |w| + |bias|) + 2**-p * |y64|        n terms, p bits of the dtype's mantissa
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from octoscale.numerics import reference
from octoscale.numerics.formats import get_format

_ROUNDING = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@dataclass(frozen=True)
class Bounded:
    """What a product is in float64, and how far a float32 sum, rounded to a dtype, may be from it."""

    value: Tensor
    magnitude: Tensor
    terms: int

    def contains(self, found: Tensor) -> bool:
        bound = (self.terms + 2) * 2.0**-24 * self.magnitude + _ROUNDING[found.dtype] * self.value.abs() + 2.0**-120
        return bool(((found.double() - self.value).abs() <= bound).all())

    def worst(self, found: Tensor) -> float:
        """The largest error, beside the largest value."""
        return float((found.double() - self.value).abs().max() / self.value.abs().max())


def values(x: Tensor, format: str) -> Tensor:
    """The values of the FP8 codes of a tensor under FP8-AMAX, in float64."""
    fmt = get_format(format)
    bias = reference.scale_bias(float(x.abs().max()) if x.numel() else 0.0, fmt)
    scaled = (x.float() * 2.0**bias).clamp(-fmt.max, fmt.max)
    return scaled.to(getattr(torch, fmt.torch_name)).double() * 2.0**-bias


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Bounded:
    """`a @ b + bias` of float64 matrices."""
    value, magnitude = a @ b, a.abs() @ b.abs()
    if bias is not None:
        value, magnitude = value + bias.double(), magnitude + bias.double().abs()
    return Bounded(value, magnitude, a.shape[-1])


def rows(x: Tensor) -> Tensor:
    """All leading dimensions as rows of a matrix."""
    return x.reshape(-1, x.shape[-1])
