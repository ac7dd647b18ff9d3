"""The ways in which one product may be summed, side by side.

    float32             the sums of the backend, in whatever order it takes
    hopper              that tensor core's, from the first product to the last in one sum, as use_fast_accum asks for
    hopper, promoted    the same, but a new sum begins after each 128 products, and the sums are added in float32

A tensor core that keeps no fewer bits than float32 has one way: there is nothing to promote to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octoscale.kernels.ops import Quantized, matmul
from octoscale.numerics.accumulators import get_accumulator


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of summing, and how it is called. accumulate: whose sums, "" for float32's. fast: in one sum."""

    name: str
    accumulate: str = ""
    fast: bool = True

    def sums(self, a: Quantized, b: Quantized, bias: Tensor | None = None) -> Tensor:
        """`a @ b + bias`, [M, K] and [K, N], unscaled; float32, before the rounding to a layer's dtype."""
        return matmul(a, b, dtype=torch.float32, bias=bias, fast=self.fast, accumulate=self.accumulate)


FLOAT32 = Way(name="float32")


def ways_of(accumulators: Sequence[str]) -> list[Way]:
    """Float32's way, then those of each tensor core. UserError for an unknown name."""
    found = [FLOAT32]
    for name in accumulators:
        found.append(Way(name=name, accumulate=name))
        if get_accumulator(name).chain:
            found.append(Way(name=f"{name}, promoted", accumulate=name, fast=False))
    return found


def exact(a: Quantized, b: Quantized, bias: Tensor | None = None) -> Tensor:
    """`a @ b + bias` in float64.

    The sum itself is exact for products of two E4 codes, up to 2**16 of them: each is a multiple of 2**-20, or of
    2**-18, and below 2**18 in magnitude, so that all sums fit into 53 bits, in any order.
    """
    values: Tensor = a.codes.double() @ b.codes.double() * 2.0 ** -float(a.scale_bias + b.scale_bias)
    return values if bias is None else values + bias.double()
