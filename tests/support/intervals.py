"""Bounds of a product from float64 on the same codes: what rounding and the order of sums may change."""

import math

import torch
from torch import Tensor

from octoscale.numerics import reference
from octoscale.numerics.formats import get_format
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Constant


def reference_cast(x: Tensor, operand: Operand) -> Tensor:
    """The values that `x` has in FP8, in float64: each cast by numerics/reference.py, decoded and unscaled (exact)."""
    values, fmt = x.detach().double(), get_format(operand.format)
    rule = operand.rule
    bias = rule.bias if isinstance(rule, Constant) else None
    if bias is None:
        amax = values.abs().max().item() if values.numel() else 0.0
        bias = reference.scale_bias(amax, fmt, rule.margin)
    codes, _ = reference.quantize(values.flatten().tolist(), fmt, bias)
    decoded = [math.ldexp(reference.decode(code, fmt), -bias) for code in codes]
    return torch.tensor(decoded, dtype=torch.float64).view(x.shape)


def interval(a: Tensor, b: Tensor, dtype: torch.dtype, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The smallest and the largest result that `a @ b + bias` can have, summed in float32 and rounded once to `dtype`.

    Derivation. a and b are FP8 codes times powers of two: each product of two codes has at most 8 significant bits,
    so it is exact in float32, and unscaling by 2**-(b1 + b2) moves only exponents. What is left are at most
    n = K float32 additions (K - 1 of products, one of the bias), in any order, each with a relative error of at most
    u = 2**-24: |sum - exact| <= gamma_n * (sum |a||b| + |bias|), gamma_n = n u / (1 - n u) (Higham, Accuracy and
    Stability, section 4.2). Rounding is monotonic, so the one rounding to `dtype` maps the ends of this interval to
    the ends of the allowed results, with no further slack. (float64's own error is 2**-29 of gamma: half an n more.)
    """
    terms = a.shape[1] + 0.5
    gamma = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    offset = 0.0 if bias is None else bias.detach().double()
    exact, size = a @ b + offset, a.abs() @ b.abs() + abs(offset)
    return (exact - gamma * size).to(dtype), (exact + gamma * size).to(dtype)


def assert_within(got: Tensor, bounds: tuple[Tensor, Tensor]) -> None:
    low, high = bounds
    assert got.dtype == low.dtype
    got = got.reshape(low.shape)
    assert bool(((low <= got) & (got <= high)).all()), f"off by {torch.maximum(low - got, got - high).max()}"
