"""The oracle: exact encode, decode and round for any FP8 format, one number at a time, in plain Python.

It is slow, and written to be checked by eye against the standard: every other implementation (torch, the C++ core)
is tested bit for bit against it. A double holds each FP8 value, each float32 and each sum below exactly, so nothing
here is ever rounded twice.

The golden table, decided once (x is the value that is cast, after scaling):

    x                                    code                                   counted as
    -----------------------------------  -------------------------------------  -----------
    |x| <= max                           nearest value, ties to even
    max < |x| < inf                      max with the sign of x                 saturated
    +inf, -inf, NaN                      the format's NaN code (`nan_code`)     nonfinite
    x != 0 that rounds to zero           +0; -0 for x < 0 where there is a -0   flushed
    -0.0                                 -0 where the format has one, else +0

Infinity becomes NaN even in e5m2, which has an infinity: one rule for four formats, and a product with it is NaN.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from octoscale.numerics.formats import Format
from octoscale.system.errors import UserError


def decode(code: int, fmt: Format) -> float:
    """The value of a code in 0..255: exact, NaN and infinity included; ValueError for any other code."""
    if not 0 <= code <= 0xFF:
        raise UserError(f"code {code} is not in 0..255")
    if code in fmt.nan_codes:
        return math.nan
    sign = -1.0 if code & 0x80 else 1.0
    if code in fmt.inf_codes:
        return sign * math.inf
    exponent_field, mantissa = divmod(code & 0x7F, 1 << fmt.mantissa_bits)
    if exponent_field == 0:
        return sign * math.ldexp(mantissa, fmt.min_subnormal_exponent)
    return sign * math.ldexp((1 << fmt.mantissa_bits) + mantissa, exponent_field - fmt.bias - fmt.mantissa_bits)


def encode(x: float, fmt: Format) -> int:
    """The code of `x`: nearest, ties to even, saturating; the golden table above says what is special."""
    if not math.isfinite(x):
        return fmt.nan_code
    negative = math.copysign(1.0, x) < 0
    code = min(_round_to_code(abs(x), fmt), fmt.max_code)
    return code | 0x80 if negative and (code or fmt.has_negative_zero) else code


def round(x: float, fmt: Format) -> float:
    """The FP8 value nearest to `x`: `decode(encode(x))`."""
    return decode(encode(x, fmt), fmt)


def scale_bias(amax: float, fmt: Format, margin: int = 0, *, down: bool = False) -> int:
    """FP8-AMAX's scale_bias: the largest b with `amax * 2**b <= fmt.max`, less `margin`, within [-126, 126].

    An amax that is 0, infinite or NaN gives 0. down: of both only the largest power of two below counts, as in OCP's
    MX: `floor(log2(amax)) + b <= emax`.
    """
    if amax == 0 or not math.isfinite(amax):
        return 0
    largest = fmt.max
    if down:
        amax, largest = (math.ldexp(0.5, math.frexp(x)[1]) for x in (amax, fmt.max))
    bias = -2000
    while math.ldexp(amax, bias + 1) <= largest:
        bias += 1
    return max(-126, min(126, bias - margin))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a cast did to a tensor: `amax` of the finite and non-finite values, and how many were hurt."""

    amax: float
    saturated: int
    flushed: int
    nonfinite: int


def quantize(values: Iterable[float], fmt: Format, scale_bias: int) -> tuple[list[int], Counts]:
    """The codes of `x * 2**scale_bias` for each x, and the counts. amax is NaN if any value is NaN; 0 for no values."""
    codes, amax, saturated, flushed, nonfinite = [], 0.0, 0, 0, 0
    for x in values:
        code = encode(math.ldexp(x, scale_bias), fmt)
        codes.append(code)
        amax = math.nan if math.isnan(x) or math.isnan(amax) else max(amax, abs(x))
        nonfinite += not math.isfinite(x)
        saturated += math.isfinite(x) and abs(math.ldexp(x, scale_bias)) > fmt.max
        flushed += x != 0 and math.isfinite(x) and decode(code, fmt) == 0
    return codes, Counts(amax=amax, saturated=saturated, flushed=flushed, nonfinite=nonfinite)


def exponent_counts(values: Iterable[float]) -> dict[int, int]:
    """How many values have each binary exponent, floor(log2(|x|)); zeros and non-finite values are left out."""
    return dict(Counter(math.frexp(x)[1] - 1 for x in values if x != 0 and math.isfinite(x)))


def _round_to_code(magnitude: float, fmt: Format) -> int:
    """The code of the nearest value on the format's grid, continued past its largest value. Ties go to even."""
    if magnitude == 0:
        return 0
    exponent = max(math.frexp(magnitude)[1] - 1, fmt.min_normal_exponent)
    steps = math.ldexp(magnitude, fmt.mantissa_bits - exponent)
    whole = math.floor(steps)
    remainder = steps - whole
    rounded = whole + (remainder > 0.5 or (remainder == 0.5 and whole % 2 == 1))
    return rounded + ((exponent - fmt.min_normal_exponent) << fmt.mantissa_bits)
