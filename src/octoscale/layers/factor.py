"""A scale of a file as a power of two and a factor: scale = factor * 2**-scale_bias, 1 <= factor < 2.

    split_scale(scale, what)       numbers, once, for eager mode: what cannot be a scale is refused by its name
    split_scales(scales, what)     the same of several scales, as tensors
    split_in_graph(scale)          the same in each call of a graph, in which the scale may have another value by then

The scales that octoscale writes are powers of two; their factor is 1.
"""

import math

import torch
from torch import Tensor

from octoscale.numerics.scaling import MAX_SCALE_BIAS, MIN_SCALE_BIAS, Amount
from octoscale.system.errors import UserError

_IN_A_GRAPH = "a scale in a graph (call the model without torch.compile: it names the layer)"


def split_scale(scale: Tensor, what: str) -> tuple[int, float]:
    """scale_bias and factor of a scale of one value. UserError naming `what` unless it is positive and finite."""
    if scale.numel() != 1:
        raise UserError(
            f"{what} has shape {list(scale.shape)}: one scale for a tensor is one number, no rows or blocks"
        )
    value = float(scale.item())
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{what} is {value}: a scale is a positive, finite number; the checkpoint is damaged")
    mantissa, exponent = math.frexp(value)
    bias = 1 - exponent
    if not MIN_SCALE_BIAS <= bias <= MAX_SCALE_BIAS:
        raise UserError(f"{what} is {value}: outside of 2**{-MAX_SCALE_BIAS}..2**{-MIN_SCALE_BIAS}")
    return bias, 2 * mantissa


def split_scales(scales: Tensor, what: str) -> tuple[Tensor, Amount]:
    """scale_bias, int32, and factor, float32, of each scale, in their shape; the factor is 1.0 if that of all is.

    UserError naming `what` and the first that cannot be a scale.
    """
    values = scales.detach().float()
    mantissa, exponent = torch.frexp(values)
    bias = (1 - exponent).to(torch.int32)
    fits = values.isfinite() & (values > 0) & (bias >= MIN_SCALE_BIAS) & (bias <= MAX_SCALE_BIAS)
    if not bool(fits.all()):
        place = (~fits).nonzero()[0].tolist()
        split_scale(values[tuple(place)], f"{what}{place}")  # says what is wrong with it
    factor = 2 * mantissa
    return bias, 1.0 if bool((factor == 1).all()) else factor


def split_in_graph(scale: Tensor) -> tuple[Tensor, Amount]:
    """scale_bias, int32 without dimensions, and factor, a plain number on a CPU; UserError there as `split_scale`.

    On a device nothing waits for a number: the factor is a tensor, NaN for a scale that cannot be one.
    """
    if scale.device.type == "cpu":
        bias, factor = split_scale(scale, _IN_A_GRAPH)
        return torch.scalar_tensor(bias, dtype=torch.int32), factor
    return split_on_device(scale)


def split_on_device(scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same as tensors without dimensions, by torch's operations alone."""
    value = scale.reshape(())
    mantissa, exponent = torch.frexp(value)
    bias = 1 - exponent
    is_scale = value.isfinite() & (value > 0) & (bias >= MIN_SCALE_BIAS) & (bias <= MAX_SCALE_BIAS)
    return torch.where(is_scale, bias, 0).to(torch.int32), torch.where(is_scale, 2 * mantissa, math.nan)


def is_one(factor: Amount) -> bool:
    """Whether a factor is known to be 1, so that a multiplication can be left out."""
    return not isinstance(factor, Tensor) and factor == 1
