"""What a backend does: look at a tensor, encode it, decode it, multiply. No backend knows how a scale is chosen.

    seen = backend.observe(x, exponents=False)                     seen.amax
    encoded = backend.encode(x, fmt, seen.amax, scale_bias, ...)   encoded.codes, encoded.counts
    backend.cast_groups(x, fmt, rule, BLOCK, ...)                  a scale for each group: all at once
    backend.dequantize(q, dtype)
    backend.matmul(a, b, bias, dtype)

The rule stands between the first two, in ops.py, and so does whatever else must happen to an amax before it becomes a
scale: a reduction over ranks. Where the scale is known beforehand, `cast` does both in one visit.

Where a scale reaches less far than the tensor, amax and scale_bias are tensors with one number for each group, in the
shape that the granularity says. There the backend applies the rule itself: a group is small enough to stay in a cache
from the look at it to its codes.

Numbers of one element are plain on a CPU, where looking at one is cheaper than a tensor of it: amax a float, scale_bias
an int. On a device, and for a compiler, they are tensors without dimensions, and nothing waits for them.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.granularity import Granularity
from octoscale.numerics.scaling import Amax
from octoscale.system.errors import UserError

#: `Observed.exponents` has one bin for each value of float32's exponent field: bin = exponent + EXPONENT_OFFSET.
#: Bin 0 holds zeros (and float32's own subnormals), the last bin holds inf and NaN.
EXPONENT_OFFSET, NUM_EXPONENT_BINS = 127, 256

#: The counts of `Encoded.counts`, in their order.
COUNTS = ("saturated", "flushed", "nonfinite")


def codes_dtype(fmt: Format) -> torch.dtype:
    """Torch's dtype for the codes of a format; UserError where torch has none of its name."""
    dtype: torch.dtype | None = getattr(torch, fmt.torch_name, None)
    if dtype is None:
        raise UserError(
            f"no tensor can hold codes of {fmt.name}: torch {torch.__version__} has no dtype {fmt.torch_name}; "
            "only octoscale.numerics.reference computes in this format"
        )
    return dtype


def held_formats() -> dict[torch.dtype, Format]:
    """The formats whose codes a tensor can hold, by torch's dtype. The C++ core numbers them in this order."""
    return {getattr(torch, fmt.torch_name): fmt for fmt in FORMATS.values() if hasattr(torch, fmt.torch_name)}


class Seen(NamedTuple):
    """What `observe` finds.

    amax: float32; not finite if any value is not; 0 for an empty tensor. Of each group, where there are several.
    exponents: int64 [NUM_EXPONENT_BINS], how many values have each exponent before scaling; None unless asked for.
    """

    amax: Tensor | float
    exponents: Tensor | None


class Encoded(NamedTuple):
    """What `encode` makes: FP8 codes in torch's dtype; counts, int64 [3] as `COUNTS`, None unless asked for."""

    codes: Tensor
    counts: Tensor | None


class Scaled(Protocol):
    """An operand in FP8 with its scale, as `ops.Quantized` is: `x ~ codes * 2**-scale_bias`."""

    @property
    def codes(self) -> Tensor:
        """FP8, in torch's dtype."""
        ...

    @property
    def scale_bias(self) -> Tensor:
        """int32, in the shape that the granularity says."""
        ...

    @property
    def granularity(self) -> Granularity:
        """Over which values one scale reaches."""
        ...


class Casts(Protocol):
    """From values to codes."""

    def observe(self, x: Tensor, *, exponents: bool) -> Seen:
        """The largest magnitude and, if asked for, the histogram of exponents."""
        ...

    def encode(
        self,
        x: Tensor,
        fmt: Format,
        amax: Tensor | float,
        scale_bias: Tensor | int,
        *,
        counts: bool,
    ) -> Encoded:
        """`cast(x * 2**scale_bias)` and, if asked for, what the cast did to the values. amax: what `observe` found."""
        ...

    def cast(self, x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
        """Both, for a scale that is known beforehand."""
        ...

    def cast_groups(
        self, x: Tensor, fmt: Format, rule: Amax, granularity: Granularity, *, counts: bool, exponents: bool
    ) -> tuple[Seen, Tensor, Encoded]:
        """Both, with the scale_bias that the rule has for each group, which stands between them."""
        ...


class Backend(Casts, Protocol):
    """The operations. `ops.py` has checked shapes, dtypes, devices and granularities before it calls them."""

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        """Those of the operands that it multiplies and decodes."""
        ...

    def dequantize(self, q: Scaled, dtype: torch.dtype) -> Tensor:
        """`codes * 2**-scale_bias` in `dtype`."""
        ...

    def matmul(
        self, a: Scaled | Tensor, b: Scaled, bias_N: Tensor | None, dtype: torch.dtype, *, fast: bool = False
    ) -> Tensor:
        """`(a @ b) * 2**-(a's scale_bias + b's) + bias` of matrices [M, K] and [K, N], summed in float32.

        a may be bfloat16 values instead, without a scale. fast: sums may keep fewer bits, where that is faster. Scales
        that change along the sum stand at the products instead (groups.py).
        """
        ...

    def in_columns(self, codes_KN: Tensor) -> Tensor:
        """The codes as `matmul` wants those of b to lie, the same object if they do: it would copy them each time."""
        ...
