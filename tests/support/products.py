"""How far a product of codes may lie from the exact one.

The bound. u = 2**-24 is float32's unit roundoff, v that of the output (2**-24, 2**-11, 2**-8).
An FP8 value has at most 4 significant bits, so each product a_k * b_k has at most 8: exact in float32, and a multiple
of 2**-34, so no sum of them is subnormal. The K - 1 additions, in any order and with or without fused multiply-add,
give
    |s' - s| <= gamma_K * sum_k |a_k| |b_k|,        gamma_K = K u / (1 - K u)                 (Higham, section 3.1)
The multiplication by 2**-B, B the sum of the two scale_biases, is exact. A bias vector is one more float32 addition,
and the output one more rounding, each relative to its own result; eta is the output's smallest subnormal:
    y = (s' 2**-B + bias)(1 + u),  out = y (1 + v) + eta/2
"""

import torch
from torch import Tensor

from octoscale.kernels.ops import Quantized

UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST = {torch.float32: 2.0**-149, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}


def assert_product_within_bound(a: Quantized, b: Quantized, out: Tensor, bias: Tensor | None = None) -> None:
    a64, b64 = a.codes.double(), b.codes.double()
    unscale = 2.0 ** -float(a.scale_bias + b.scale_bias)
    u, v = UNIT_ROUNDOFF[torch.float32], UNIT_ROUNDOFF[out.dtype]
    gamma = a64.shape[1] * u / (1 - a64.shape[1] * u)
    error = gamma * (a64.abs() @ b64.abs()) * unscale
    exact = (a64 @ b64) * unscale
    if bias is not None:
        exact = exact + bias.double()
        error = error + u * (exact.abs() + error)
    error = error + v * (exact.abs() + error) + SMALLEST[out.dtype] / 2
    assert out.shape == exact.shape
    assert ((out.double() - exact).abs() <= error).all()
