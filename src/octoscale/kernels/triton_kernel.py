"""The kernel of triton_cast.py: one visit to each value, in integers.

A float32 is sign, exponent and significand; so is an FP8 value. Scaling adds to the exponent, and rounding shifts the
significand right to the grid of the format. No float is multiplied, rounded or compared here, so that nothing depends
on what a GPU does to subnormals, nor on its own cast, and the bits are those of numerics/reference.py on every device
and in Triton's interpreter. To be imported where triton is: `triton_cast.why_not` says where that is.
"""

from typing import Any

import triton
import triton.language as tl

#: Blocks of values, and addresses of them. In quotes: triton's compiler would look them up.
Block = Any
Address = Any


@triton.jit(do_not_specialize=["scale_bias"])  # type: ignore[untyped-decorator]
def visit(
    x: "Address",
    codes: "Address",
    scale_bias: "Any",
    amax: "Address",
    counts: "Address",
    exponents: "Address",
    num: "Any",
    OBSERVE: tl.constexpr,
    EXPONENTS: tl.constexpr,
    ENCODE: tl.constexpr,
    COUNT: tl.constexpr,
    BIAS_IS_LOADED: tl.constexpr,
    MANTISSA_BITS: tl.constexpr,
    MIN_EXPONENT: tl.constexpr,
    MAX_CODE: tl.constexpr,
    NAN_CODE: tl.constexpr,
    HAS_NEGATIVE_ZERO: tl.constexpr,
    NUM_BINS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A block of the `num` values at x: what is asked for of amax, histogram, codes and counts.

    amax: int32, the bits of a float32, which for magnitudes are in the order of their values; NaN is above all. counts:
    int64, as base.COUNTS. exponents: int64 [NUM_BINS]. These three are added to, and begin as zero.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    lanes = tl.arange(0, BLOCK)
    inside = lanes < num - start
    bits = _float32_bits(tl.load(x + start + lanes, mask=inside, other=0.0))
    magnitude = bits & 0x7FFFFFFF
    if OBSERVE:
        tl.atomic_max(amax, tl.max(magnitude, axis=0), sem="relaxed")
    if EXPONENTS:
        bins = tl.histogram(magnitude >> 23, NUM_BINS, mask=inside)
        tl.atomic_add(exponents + tl.arange(0, NUM_BINS), bins.to(tl.int64), mask=bins > 0, sem="relaxed")
    if ENCODE:
        bias = scale_bias
        if BIAS_IS_LOADED:
            bias = tl.load(scale_bias)
        code, ceiling = _rounded(magnitude, bias, MANTISSA_BITS, MIN_EXPONENT)
        is_finite = magnitude < 0x7F800000
        if COUNT:
            _add(counts, is_finite & (ceiling > MAX_CODE))
            _add(counts + 1, (magnitude > 0) & (code == 0))
            _add(counts + 2, is_finite == 0)
        code = tl.minimum(code, MAX_CODE)
        is_signed = bits < 0
        if not HAS_NEGATIVE_ZERO:
            is_signed = is_signed & (code > 0)
        code = tl.where(is_finite, tl.where(is_signed, code | 0x80, code), NAN_CODE)
        tl.store(codes + start + lanes, code.to(tl.uint8), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _float32_bits(x: "Block") -> "Block":
    """The bits, int32, of the float32 that has the same value: exact for bfloat16 and float16, too."""
    if x.dtype == tl.bfloat16:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32) << 16
    else:
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
    return bits


@triton.jit  # type: ignore[untyped-decorator]
def _rounded(magnitude: "Block", scale_bias: "Any", MANTISSA_BITS: tl.constexpr, MIN_EXPONENT: tl.constexpr) -> "Block":
    """The code nearest to `magnitude * 2**scale_bias`, ties to even, and the next one that is not below it.

    Both on the format's grid continued past its largest value, so that the second says whether that is exceeded.
    """
    # A subnormal float32 is its mantissa, an integer, times 2**-149. As a float32 of its own, that integer is normal.
    is_subnormal = magnitude < 0x00800000
    normal = tl.where(is_subnormal, magnitude.to(tl.float32).to(tl.int32, bitcast=True), magnitude)
    exponent = (normal >> 23) - 127 + scale_bias - tl.where(is_subnormal, 149, 0)
    significand = (normal & 0x007FFFFF) | 0x00800000  # zero becomes 2**-276, and is flushed as all that is so small
    raised = tl.maximum(exponent, MIN_EXPONENT)
    shift = tl.minimum(23 - MANTISSA_BITS + raised - exponent, 25)  # 25 leaves nothing of 24 bits
    below = (raised - MIN_EXPONENT) << MANTISSA_BITS
    unit = tl.full(shift.shape, 1, tl.int32) << shift
    is_odd = (significand >> shift) & 1
    nearest = (significand + (unit >> 1) - 1 + is_odd) >> shift
    ceiling = (significand + unit - 1) >> shift
    return nearest + below, ceiling + below


@triton.jit  # type: ignore[untyped-decorator]
def _add(count: "Address", is_one: "Block") -> None:
    """Count those of a block, if there are any: most blocks have none, and all blocks write to one place."""
    number = tl.sum(is_one.to(tl.int32), axis=0)
    tl.atomic_add(count, number.to(tl.int64), mask=number > 0, sem="relaxed")
