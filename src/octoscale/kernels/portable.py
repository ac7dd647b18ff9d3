"""Plain torch: every format, every device, bit-exact, no C++. The backend of last resort, and an oracle of fast ones.

Three facts make it exact:
- a multiplication by 2**scale_bias only moves the exponent, so scaling in bfloat16 or float32 rounds nothing;
- values are clamped to the largest finite value before the cast, so torch's casts, which differ on overflow, agree;
- every FP8 value is a bfloat16 and every product of two a float32, so a GEMM on the decoded codes that accumulates in
  float32 is the FP8 GEMM, up to the order of its sum.
"""

import math
from functools import cache

import torch
from torch import Tensor

from octoscale.kernels import groups
from octoscale.kernels.base import NUM_EXPONENT_BINS, Encoded, Scaled, Seen, codes_dtype
from octoscale.kernels.eager import is_eager
from octoscale.kernels.groups import amaxes, spread, unscale, whole
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import GRANULARITIES, TENSOR, Granularity
from octoscale.numerics.scaling import Amax, Amount, Bias, amax_to_scale_bias, plain, power_of_two

_SIGN_AND_7_BITS = -0x8000 + 0x3F80  # of an int16 that holds a code shifted by 7


granularities = tuple(GRANULARITIES.values())


def observe(x: Tensor, *, exponents: bool) -> Seen:
    """See `Backend.observe`. One pass over memory for amax, a few more for the histogram."""
    return Seen(plain(_amax(x)), _exponents(x) if exponents else None)


def encode(x: Tensor, fmt: Format, amax: Amount, scale_bias: Bias, *, counts: bool) -> Encoded:
    """See `Backend.encode`. What no value can need is left out, where amax is known without waiting for a device."""
    factor = power_of_two(scale_bias)
    return _encode(x, _wide(x) * factor, fmt, amax * factor, counts)


def _encode(x: Tensor, scaled: Tensor, fmt: Format, largest: Amount, counts: bool) -> Encoded:
    """largest: the largest magnitude of `scaled`; not finite if any is not."""
    all_finite = not isinstance(largest, Tensor) and math.isfinite(largest)
    none_too_large = all_finite and bool(largest <= fmt.max)
    codes = (scaled if none_too_large else scaled.clamp(-fmt.max, fmt.max)).to(codes_dtype(fmt))
    if not all_finite:
        codes = torch.where(x.isfinite(), codes.view(torch.uint8), fmt.nan_code).view(codes.dtype)
    return Encoded(codes, _count(x, None if none_too_large else scaled, codes, fmt) if counts else None)


def cast(x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
    """See `Backend.cast`."""
    seen = observe(x, exponents=exponents)
    return seen, encode(x, fmt, seen.amax, scale_bias, counts=counts)


def cast_groups(
    x: Tensor, fmt: Format, rule: Amax, granularity: Granularity, *, counts: bool, exponents: bool
) -> tuple[Seen, Tensor, Encoded]:
    """See `Backend.cast_groups`."""
    seen = Seen(amaxes(x, granularity), _exponents(x) if exponents else None)
    assert isinstance(seen.amax, Tensor)
    bias = amax_to_scale_bias(seen.amax, fmt, rule.margin, down=rule.round == "down")
    wide, factor = _wide(x), power_of_two(bias)
    scaled = wide * spread(factor.to(wide.dtype), granularity, x.shape)
    return seen, bias, _encode(x, scaled, fmt, _largest(seen.amax * factor), counts)


def dequantize(q: Scaled, dtype: torch.dtype) -> Tensor:
    """See `Backend.dequantize`."""
    wide = torch.float32 if dtype == torch.float16 else dtype
    factor = power_of_two(-q.scale_bias)
    if q.granularity is not TENSOR:
        factor = spread(factor, q.granularity, q.codes.shape)
    return _decode(q.codes, wide).mul_(factor).to(dtype)


def matmul(
    a: Scaled | Tensor,
    b: Scaled,
    bias_N: Tensor | None,
    dtype: torch.dtype,
    *,
    fast: bool = False,  # noqa: ARG001  sums are float32's
) -> Tensor:
    """See `Backend.matmul`.

    A CPU with bf16 dot products returns bfloat16 results rounded before the unscaling; as that is a power of two, the
    bits are the same unless the result is a bfloat16 subnormal (below 2**-126).
    """
    if not whole(a, b):
        return groups.matmul(a, b, bias_N, dtype, _decoded, lambda *_: None)
    a_MK, b_KN = a if isinstance(a, Tensor) else a.codes, b.codes
    scale_bias = b.scale_bias if isinstance(a, Tensor) else a.scale_bias + b.scale_bias
    with torch.autocast(a_MK.device.type, enabled=False):
        if a_MK.device.type == "cuda":
            sum_MN = torch.mm(a_MK.to(torch.bfloat16), b_KN.to(torch.bfloat16), out_dtype=torch.float32)
        elif dtype == torch.bfloat16 and bias_N is None and (a_MK.device.type != "cpu" or cpu_has_bf16_gemm()):
            sum_MN = torch.mm(_decode(a_MK, torch.bfloat16), _decode(b_KN, torch.bfloat16))
        else:
            sum_MN = torch.mm(_decode(a_MK, torch.float32), _decode(b_KN, torch.float32))
        return unscale(sum_MN, scale_bias, bias_N, dtype)


def _decoded(codes: Tensor, beyond: Tensor | None, granularity: Granularity) -> Tensor:
    """See `groups.matmul`."""
    values = _decode(codes, torch.float32)
    return values if beyond is None else values * spread(power_of_two(-beyond), granularity, codes.shape)


def in_columns(codes_KN: Tensor) -> Tensor:
    """See `Backend.in_columns`: they may lie as they like."""
    return codes_KN


@cache
def cpu_has_bf16_gemm() -> bool:
    """Whether torch multiplies bfloat16 matrices on this CPU faster than float32 ones (oneDNN on AVX-512 and up)."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(available and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _wide(x: Tensor) -> Tensor:
    """In a dtype whose range x * 2**scale_bias does not leave, unless it leaves float32's."""
    return x.float() if x.dtype == torch.float16 else x


def _largest(amaxes: Tensor) -> Amount:
    """Of groups."""
    return plain(amaxes.amax() if amaxes.numel() else amaxes.new_zeros(()))


def _amax(x: Tensor) -> Tensor:
    """The largest magnitude, float32 without dimensions; NaN wins over everything; 0 for an empty tensor."""
    if x.numel() == 0:
        return torch.zeros((), dtype=torch.float32, device=x.device)
    low, high = torch.aminmax(x)
    return torch.maximum(low.abs(), high.abs()).float()


def _decode(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """The values of codes in float32 or bfloat16, exactly; bfloat16 values are themselves.

    On a CPU, E4 goes by way of float16: shifted by 7 bits, a code is a float16 whose exponent is off by the difference
    of the biases, subnormals included. Several times as fast as torch's own cast. NaN, the one exception, takes that.
    """
    if codes.dtype == torch.bfloat16:
        return codes.to(dtype)
    known = codes.device.type == "cpu" and codes.numel() > 0
    if known and codes.dtype == torch.float8_e4m3fn and _is_not((codes.view(torch.uint8) << 1).amax(), 0xFE):
        bias_difference = 15 - 7
    elif known and codes.dtype == torch.float8_e4m3fnuz and _is_not(codes.view(torch.int8).amin(), -0x80):
        bias_difference = 15 - 8
    else:
        return codes.to(dtype)
    bits = codes.view(torch.int8).to(torch.int16).bitwise_left_shift_(7).bitwise_and_(_SIGN_AND_7_BITS)
    return bits.view(torch.float16).float().mul_(2.0**bias_difference).to(dtype)


def _is_not(number: Tensor, other: int) -> bool:
    """Whether this is known to be another number; to a tracer, none is known."""
    found = plain(number)
    return not isinstance(found, Tensor) and found != other


def _count(x: Tensor, scaled: Tensor | None, codes: Tensor, fmt: Format) -> Tensor:
    """The counts of `Encoded` in the order of `COUNTS`, as reference.py's golden table defines them.

    `scaled` is None if all values are known to be finite and none too large.
    """
    saturated = nonfinite = torch.zeros((), dtype=torch.int64, device=x.device)
    if scaled is not None:
        finite = x.isfinite()
        saturated = torch.count_nonzero((scaled.abs() > fmt.max) & finite)
        nonfinite = x.numel() - torch.count_nonzero(finite)
    bits = codes.view(torch.uint8)
    num_nonzero_codes = torch.count_nonzero(bits & 0x7F if fmt.has_negative_zero else bits)
    return torch.stack([saturated, torch.count_nonzero(x) - num_nonzero_codes, nonfinite])


def _exponents(x: Tensor) -> Tensor:
    """How many values have each float32 exponent field; int64 [NUM_EXPONENT_BINS]."""
    wide = x.float().contiguous() if x.dtype != torch.bfloat16 else x.contiguous()
    integer, mantissa_bits = (torch.int16, 7) if wide.dtype == torch.bfloat16 else (torch.int32, 23)
    fields = (wide.view(integer) >> mantissa_bits).to(torch.uint8).flatten()  # the sign bit is cut off
    if x.device.type == "cpu" and is_eager(x):
        return torch.bincount(fields, minlength=NUM_EXPONENT_BINS)
    # bincount would wait for a device to say how many bins there are.
    one = torch.ones((), dtype=torch.int64, device=x.device)
    return one.new_zeros(NUM_EXPONENT_BINS).scatter_add_(0, fields.long(), one.expand(fields.numel()))
