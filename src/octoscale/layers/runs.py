"""A product with a weight whose scales are of blocks, and no powers of two: each run of the sum has its own factor.

    y[b, n] = sum over runs r of  factor[n's block, r] * sum over k in r of x[b, k] * w[n, k]

A run is what one column of blocks spans: 128 input features, fewer at the end. Inside of it, scale and factor of a
weight's row do not change, so the inner sum is a product of codes as any other, in float32, and the factor rounds it
once more: 2**-24 of it, at most. Runs are added up in float32. That is how the kernels of DeepSeek-V3 sum, too.

Gradients flow to x run by run: a run's gradient is multiplied with its factors in float32, then cast.
"""

from dataclasses import replace

import torch
from torch import Tensor

from octoscale.kernels.groups import spread
from octoscale.kernels.ops import Quantized
from octoscale.layers.linear import Products
from octoscale.layers.state import LayerState
from octoscale.numerics.granularity import BLOCK, BLOCK_SIDE, SQUARE


def sum_of_runs(x: Tensor, weight: Tensor, x8: Quantized, w8: Quantized, factor: Tensor, layer: LayerState) -> Tensor:
    """`x @ w^T`, float32 [..., N].

    x [..., K] and its cast x8, of any granularity; weight, its codes, [N, K] or Conv1D's [K, N], and w8, the same with
    scale_bias of blocks; factor: float32, in the shape of that scale_bias.
    """
    along = 0 if layer.is_conv1d else 1
    num_outputs = weight.shape[1 - along]
    total: Tensor | None = None
    for number, x_run in enumerate(torch.split(x, BLOCK_SIDE, -1)):
        w_run = _run_of(w8, number, along)
        sums = Products.apply(x_run, w_run.codes, None, _run_of(x8, number, -1), w_run, layer, torch.float32)  # type: ignore[no-untyped-call]
        factors = factor.select(along, number)
        part = sums * spread(factors[:, None], SQUARE, (num_outputs, 1))[:, 0]
        total = part if total is None else total + part
    return x.new_zeros((*x.shape[:-1], num_outputs), dtype=torch.float32) if total is None else total


def _run_of(q: Quantized, number: int, along: int) -> Quantized:
    """The part of an operand that belongs to a run of the sum."""
    codes = q.codes.narrow(along, *_span(number, BLOCK_SIDE, q.codes.shape[along]))
    if q.granularity.name != BLOCK.name:
        return replace(q, codes=codes, observed=None)
    return replace(q, codes=codes, scale_bias=q.scale_bias.narrow(along, number, 1), observed=None)


def _span(number: int, size: int, length: int) -> tuple[int, int]:
    """Start and length of one of several spans of a size; the last one may be shorter."""
    return number * size, min(size, length - number * size)
