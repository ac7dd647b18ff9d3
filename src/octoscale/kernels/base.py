"""What a backend does, and what it reports of a tensor that it casts."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from octoscale.numerics.formats import Format
from octoscale.numerics.scaling import History, Rule

#: `Observed.exponents` has one bin for each value of float32's exponent field: bin = exponent + EXPONENT_OFFSET.
#: Bin 0 holds zeros (and float32's own subnormals), the last bin holds inf and NaN.
EXPONENT_OFFSET, NUM_EXPONENT_BINS = 127, 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What a cast saw: each a tensor on the operand's device, so that nothing waits for it.

    amax: float32, no dimensions; not finite if any value is not; 0 for an empty tensor.
    saturated, flushed, nonfinite: int64, no dimensions; None unless counts were asked for.
    exponents: int64 [NUM_EXPONENT_BINS], how many values have each exponent before scaling; None unless asked for.
    """

    amax: Tensor
    saturated: Tensor | None = None
    flushed: Tensor | None = None
    nonfinite: Tensor | None = None
    exponents: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Cast:
    """A cast tensor as a backend returns it: FP8 codes in torch's dtype, the int32 scale_bias, what was seen."""

    codes: Tensor
    scale_bias: Tensor
    observed: Observed


class Backend(Protocol):
    """The three operations. `ops.py` has checked shapes, dtypes and devices before it calls them."""

    def quantize(
        self, x: Tensor, fmt: Format, rule: Rule, history: History | None, *, counts: bool, exponents: bool
    ) -> Cast:
        """amax, scale_bias, codes and, if asked for, counts and the histogram of exponents."""
        ...

    def dequantize(self, codes: Tensor, scale_bias: Tensor, dtype: torch.dtype) -> Tensor:
        """Codes * 2**-scale_bias in `dtype`."""
        ...

    def matmul(
        self, a_MK: Tensor, b_KN: Tensor, scale_bias: Tensor, bias_N: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """`(a @ b) * 2**-scale_bias + bias`, summed in float32, of codes; scale_bias is the sum of a's and b's.

        a may be bfloat16 instead, without a scale of its own.
        """
        ...
