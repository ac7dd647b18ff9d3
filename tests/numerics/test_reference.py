"""The cast, bit for bit: every implementation against independent oracles, and every backend against `reference`.

Oracles: ml_dtypes, gfloat, torch's own casts, Fraction; and, where the project decides for itself (overflow, infinity,
NaN), the golden table of numerics/reference.py, written out here as data.

Inputs: all 65,536 bfloat16 and float16 values, and `edges`: every value of a format, every tie between two of them
(half the smallest subnormal and the overflow tie included), each with its two neighbors in the dtype that is cast.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial

import gfloat
import implementations
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.formats import format_info_ocp_e4m3, format_info_ocp_e5m2
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from octoscale.kernels import ops
from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.numerics import reference
from octoscale.numerics.formats import Format, get_format
from octoscale.numerics.scaling import MAX_SCALE_BIAS, MIN_SCALE_BIAS, Constant

BIT_DTYPES = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
SCALE_BIASES = (-126, -37, -1, 0, 5, 41, 126)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a cast returns, in one shape for every implementation; `exponents` as in `Observed`."""

    codes: np.ndarray
    amax: float
    saturated: int
    flushed: int
    nonfinite: int
    exponents: np.ndarray


def cast_by_reference(x: Tensor, fmt: Format, scale_bias: int = 0) -> Outcome:
    values = x.double().flatten().tolist()
    codes, counts = reference.quantize(values, fmt, scale_bias)
    exponents = np.zeros(NUM_EXPONENT_BINS, dtype=np.int64)
    for exponent, num_values in reference.exponent_counts(values).items():
        exponents[max(exponent + EXPONENT_OFFSET, 0)] += num_values  # bin 0: float32's subnormals, and zeros
    exponents[0] += values.count(0)
    exponents[-1] = counts.nonfinite
    return Outcome(codes=np.array(codes, dtype=np.uint8), exponents=exponents, **vars(counts))


def cast_by_backend(name: str, x: Tensor, fmt: Format, scale_bias: int = 0) -> Outcome:
    """Through `ops.quantize`, whatever backend this machine would choose."""
    with implementations.using(name):
        q = ops.quantize(x, fmt, Constant(scale_bias), counts=True, exponents=True)
    seen = q.observed
    return Outcome(
        codes=q.codes.view(torch.uint8).flatten().numpy(),
        amax=seen.amax.item(),
        saturated=seen.saturated.item(),
        flushed=seen.flushed.item(),
        nonfinite=seen.nonfinite.item(),
        exponents=seen.exponents.numpy(),
    )


Cast = Callable[..., Outcome]
BACKENDS: dict[str, Cast] = {name: partial(cast_by_backend, name) for name in implementations.BACKENDS}
IMPLEMENTATIONS: dict[str, Cast] = {"reference": cast_by_reference, **BACKENDS}


def assert_same(ours: Outcome, theirs: Outcome) -> None:
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    np.testing.assert_array_equal(ours.exponents, theirs.exponents)
    np.testing.assert_equal(ours.amax, theirs.amax)  # NaN equals NaN
    assert (ours.saturated, ours.flushed, ours.nonfinite) == (theirs.saturated, theirs.flushed, theirs.nonfinite)


# Inputs


def all_values(dtype: torch.dtype) -> Tensor:
    """All 65,536 values of a 16-bit dtype."""
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)


def ties_and_values(fmt: Format) -> np.ndarray:
    """Each non-negative value of the format by ml_dtypes, one more step of the grid, and the ties between them."""
    values = decode_by_ml_dtypes(np.arange(fmt.max_code + 1, dtype=np.uint8), fmt)
    grid = np.append(values, 2 * values[-1] - values[-2])
    return np.concatenate([grid, (grid[1:] + grid[:-1]) / 2])


def edges(fmt: Format, dtype: torch.dtype, scale_bias: int = 0) -> Tensor:
    """The x of `dtype` for which x * 2**scale_bias is an edge, with both neighbors and signs; extremes and specials."""
    exact = torch.from_numpy(np.ldexp(ties_and_values(fmt), -scale_bias))
    points = exact.to(dtype)
    points = torch.cat([points[points.double() == exact], torch.tensor([torch.finfo(dtype).max], dtype=dtype)])
    bits = points.view(BIT_DTYPES[dtype])
    infinity = torch.tensor(math.inf, dtype=dtype).view(bits.dtype)
    positive = torch.cat([bits - 1, bits, bits + 1]).clamp(min=0).clamp(max=infinity).unique().view(dtype)
    return torch.cat([positive, -positive, torch.tensor([math.nan, -math.nan], dtype=dtype)])


def scattered(dtype: torch.dtype) -> Tensor:
    """About 9,000 bit patterns from the whole of a dtype: all exponents, both signs, infinities and NaNs."""
    if dtype == torch.float32:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(-(1 << 31), 1 << 31, (9000,), generator=generator).to(torch.int32).view(dtype)
    return all_values(dtype)[::7]


INPUTS: dict[str, Callable[[Format], Tensor]] = {
    "bfloat16": lambda fmt: all_values(torch.bfloat16),
    "float16": lambda fmt: all_values(torch.float16),
    "edges": lambda fmt: edges(fmt, torch.float32),
}


# Independent oracles: float64 -> code, trusted where their result is finite


def encode_by_ml_dtypes(values: np.ndarray, fmt: Format) -> np.ndarray:
    with np.errstate(all="ignore"):
        return values.astype(getattr(ml_dtypes, fmt.torch_name)).view(np.uint8)


def encode_by_gfloat(values: np.ndarray, fmt: Format) -> np.ndarray:
    info = gfloat_format(fmt)
    with np.errstate(all="ignore"):
        return gfloat.encode_ndarray(info, gfloat.round_ndarray(info, values)).astype(np.uint8)


def encode_by_torch(values: np.ndarray, fmt: Format) -> np.ndarray:
    return torch.from_numpy(values).float().to(getattr(torch, fmt.torch_name)).view(torch.uint8).numpy()


def gfloat_format(fmt: Format) -> gfloat.FormatInfo:
    """gfloat's own row where it has one; the two fnuz formats spelled out from Table 7 of the paper."""
    if fmt.name in ("e4m3fn", "e5m2"):
        return {"e4m3fn": format_info_ocp_e4m3, "e5m2": format_info_ocp_e5m2}[fmt.name]
    precision, bias = {"e4m3fnuz": (4, 8), "e5m2fnuz": (3, 16)}[fmt.name]
    return gfloat.FormatInfo(
        fmt.name,
        8,
        precision,
        bias=bias,
        is_signed=True,
        domain=gfloat.Domain.Finite,
        has_nz=False,
        num_high_nans=0,
        has_subnormals=True,
        is_twos_complement=False,
    )


ORACLES = {"ml_dtypes": encode_by_ml_dtypes, "gfloat": encode_by_gfloat, "torch": encode_by_torch}


def with_golden_edges(values: np.ndarray, codes: np.ndarray, fmt: Format) -> np.ndarray:
    """An oracle's codes, with the golden table's where the oracle leaves the finite values or the input is not one."""
    saturated = np.where(np.signbit(values), 0x80 | fmt.max_code, fmt.max_code)
    finite_codes = np.isfinite(decode_by_ml_dtypes(codes, fmt))
    return np.where(np.isfinite(values), np.where(finite_codes, codes, saturated), fmt.nan_code)


@cache
def reference_outcome(name: str, dtype: torch.dtype, scale_bias: int, source: Callable[..., Tensor]) -> Outcome:
    return cast_by_reference(source(get_format(name), dtype, scale_bias), get_format(name), scale_bias)


# Decode


def decode_by_ml_dtypes(codes: np.ndarray, fmt: Format) -> np.ndarray:
    return codes.view(getattr(ml_dtypes, fmt.torch_name)).astype(np.float64)


def decode_by_gfloat(codes: np.ndarray, fmt: Format) -> np.ndarray:
    return np.array([gfloat.decode_float(gfloat_format(fmt), int(code)).fval for code in codes])


def decode_by_torch(codes: np.ndarray, fmt: Format) -> np.ndarray:
    return torch.from_numpy(codes).view(getattr(torch, fmt.torch_name)).double().numpy()


@pytest.mark.parametrize("oracle", [decode_by_ml_dtypes, decode_by_gfloat, decode_by_torch])
def test_decode_of_all_codes(fmt, oracle):
    codes = np.arange(256, dtype=np.uint8)
    ours, theirs = np.array([reference.decode(code, fmt) for code in range(256)]), oracle(codes, fmt)
    np.testing.assert_array_equal(ours, theirs)
    numbers = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours[numbers]), np.signbit(theirs[numbers]))


@pytest.mark.parametrize("code", [-1, 256])
def test_decode_names_a_code_that_is_none(any_format, code):
    with pytest.raises(ValueError, match=f"code {code} is not in 0..255"):
        reference.decode(code, any_format)


# Encode


def test_encode_inverts_decode(any_format):
    """Oracle: the code itself."""
    for code in set(range(256)) - any_format.nan_codes - any_format.inf_codes:
        assert reference.encode(reference.decode(code, any_format), any_format) == code


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_codes_agree_with_independent_oracles(impl, inputs, fmt):
    x = INPUTS[inputs](fmt)
    codes, values = IMPLEMENTATIONS[impl](x, fmt).codes, x.double().numpy()
    for name, oracle in ORACLES.items():
        expected = with_golden_edges(values, oracle(values, fmt), fmt)
        np.testing.assert_array_equal(codes, expected, err_msg=name)


def test_edges_hold_what_they_promise(fmt):
    """Oracle: the numbers of the format."""
    x = set(edges(fmt, torch.float32).tolist())
    tiny = 2.0**fmt.min_subnormal_exponent
    overflow_tie = fmt.max + 2.0 ** (fmt.max_exponent - fmt.mantissa_bits - 1)
    for point in (0.0, tiny / 2, tiny, 1.0, fmt.max, overflow_tie):
        up, down = (float(np.nextafter(np.float32(point), np.float32(end))) for end in (np.inf, -np.inf))
        assert {point, up, down, -point, -up, -down} <= x


@given(x=st.floats(allow_nan=False, allow_infinity=False))
@example(x=5e-324)
@example(x=-1.7976931348623157e308)
@example(x=464.00000000000006)
def test_encode_of_any_double_is_the_nearest_value(any_format, x):
    """Oracle: the smallest distance as Fractions, ties to the even code."""
    values = {
        code: abs(Fraction(reference.decode(code, any_format)) - Fraction(abs(x)))
        for code in range(any_format.max_code + 1)
    }
    nearest = min(values, key=lambda code: (values[code], code % 2))
    assert reference.encode(x, any_format) & 0x7F == nearest
    assert reference.decode(reference.encode(x, any_format), any_format) * x >= 0


def test_round_is_the_value_of_the_code(any_format):
    """Oracle: ml_dtypes in range; the golden table beyond."""
    for x in (0.3, -1.7, 2.0**-30, any_format.max):
        assert reference.round(x, any_format) == float(getattr(ml_dtypes, any_format.torch_name)(x))
    assert reference.round(-1e30, any_format) == -any_format.max
    assert math.isnan(reference.round(math.inf, any_format))


# The golden table: x, code, what it counts as

GOLDEN = {
    "e4m3fn": [
        (0.0, 0x00, None),
        (-0.0, 0x80, None),
        (1.0, 0x38, None),
        (-1.0, 0xB8, None),
        (1.0625, 0x38, None),  # tie, down to even
        (1.1875, 0x3A, None),  # tie, up to even
        (2**-9, 0x01, None),
        (-(2**-9), 0x81, None),
        (2**-10, 0x00, "flushed"),  # tie
        (-(2**-10), 0x80, "flushed"),
        (2**-10 + 2**-33, 0x01, None),
        (3 * 2**-10, 0x02, None),  # tie, up to even
        (1e-45, 0x00, "flushed"),
        (-1e-45, 0x80, "flushed"),
        (448.0, 0x7E, None),
        (-448.0, 0xFE, None),
        (448.00003, 0x7E, "saturated"),
        (-448.00003, 0xFE, "saturated"),
        (464.0, 0x7E, "saturated"),
        (465.0, 0x7E, "saturated"),
        (3e38, 0x7E, "saturated"),
        (-3e38, 0xFE, "saturated"),
        (math.inf, 0x7F, "nonfinite"),
        (-math.inf, 0x7F, "nonfinite"),
        (math.nan, 0x7F, "nonfinite"),
        (-math.nan, 0x7F, "nonfinite"),
    ],
    "e5m2": [
        (0.0, 0x00, None),
        (-0.0, 0x80, None),
        (1.0, 0x3C, None),
        (-1.0, 0xBC, None),
        (1.125, 0x3C, None),
        (1.375, 0x3E, None),
        (2**-16, 0x01, None),
        (-(2**-16), 0x81, None),
        (2**-17, 0x00, "flushed"),
        (-(2**-17), 0x80, "flushed"),
        (2**-17 + 2**-40, 0x01, None),
        (3 * 2**-17, 0x02, None),
        (1e-45, 0x00, "flushed"),
        (-1e-45, 0x80, "flushed"),
        (57344.0, 0x7B, None),
        (-57344.0, 0xFB, None),
        (57344.004, 0x7B, "saturated"),
        (-57344.004, 0xFB, "saturated"),
        (61440.0, 0x7B, "saturated"),
        (61441.0, 0x7B, "saturated"),
        (3e38, 0x7B, "saturated"),
        (-3e38, 0xFB, "saturated"),
        (math.inf, 0x7F, "nonfinite"),
        (-math.inf, 0x7F, "nonfinite"),
        (math.nan, 0x7F, "nonfinite"),
        (-math.nan, 0x7F, "nonfinite"),
    ],
    "e4m3fnuz": [
        (0.0, 0x00, None),
        (-0.0, 0x00, None),
        (1.0, 0x40, None),
        (-1.0, 0xC0, None),
        (1.0625, 0x40, None),
        (1.1875, 0x42, None),
        (2**-10, 0x01, None),
        (-(2**-10), 0x81, None),
        (2**-11, 0x00, "flushed"),
        (-(2**-11), 0x00, "flushed"),
        (2**-11 + 2**-34, 0x01, None),
        (3 * 2**-11, 0x02, None),
        (1e-45, 0x00, "flushed"),
        (-1e-45, 0x00, "flushed"),
        (240.0, 0x7F, None),
        (-240.0, 0xFF, None),
        (240.00002, 0x7F, "saturated"),
        (-240.00002, 0xFF, "saturated"),
        (248.0, 0x7F, "saturated"),
        (249.0, 0x7F, "saturated"),
        (3e38, 0x7F, "saturated"),
        (-3e38, 0xFF, "saturated"),
        (math.inf, 0x80, "nonfinite"),
        (-math.inf, 0x80, "nonfinite"),
        (math.nan, 0x80, "nonfinite"),
        (-math.nan, 0x80, "nonfinite"),
    ],
    "e5m2fnuz": [
        (0.0, 0x00, None),
        (-0.0, 0x00, None),
        (1.0, 0x40, None),
        (-1.0, 0xC0, None),
        (1.125, 0x40, None),
        (1.375, 0x42, None),
        (2**-17, 0x01, None),
        (-(2**-17), 0x81, None),
        (2**-18, 0x00, "flushed"),
        (-(2**-18), 0x00, "flushed"),
        (2**-18 + 2**-41, 0x01, None),
        (3 * 2**-18, 0x02, None),
        (1e-45, 0x00, "flushed"),
        (-1e-45, 0x00, "flushed"),
        (57344.0, 0x7F, None),
        (-57344.0, 0xFF, None),
        (57344.004, 0x7F, "saturated"),
        (-57344.004, 0xFF, "saturated"),
        (61440.0, 0x7F, "saturated"),
        (61441.0, 0x7F, "saturated"),
        (3e38, 0x7F, "saturated"),
        (-3e38, 0xFF, "saturated"),
        (math.inf, 0x80, "nonfinite"),
        (-math.inf, 0x80, "nonfinite"),
        (math.nan, 0x80, "nonfinite"),
        (-math.nan, 0x80, "nonfinite"),
    ],
}
GOLDEN_ROWS = [(name, *row) for name, rows in GOLDEN.items() for row in rows]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "x", "code", "counted_as"), GOLDEN_ROWS)
def test_golden_table(impl, name, x, code, counted_as):
    """Oracle: the golden table of numerics/reference.py, one number at a time."""
    cast = IMPLEMENTATIONS[impl](torch.tensor([x]), get_format(name))
    counts = {"saturated": cast.saturated, "flushed": cast.flushed, "nonfinite": cast.nonfinite}
    assert cast.codes.tolist() == [code]
    assert {key for key, count in counts.items() if count == 1} == ({counted_as} if counted_as else set())
    assert sum(counts.values()) == (counted_as is not None)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", implementations.HELD)
def test_golden_table_at_once(impl, name):
    """Oracle: the golden table, a whole tensor: one row's NaN or overflow does not change another's code or count."""
    values, codes, counted_as = zip(*GOLDEN[name], strict=True)
    cast = IMPLEMENTATIONS[impl](torch.tensor(values), get_format(name))
    assert cast.codes.tolist() == list(codes)
    assert cast.saturated == counted_as.count("saturated")
    assert cast.flushed == counted_as.count("flushed")
    assert cast.nonfinite == counted_as.count("nonfinite")


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("values", "amax"),
    [
        ([], 0.0),
        ([0.0, -0.0], 0.0),
        ([1.0, -3.0], 3.0),
        ([-1e-45], math.ldexp(1, -149)),
        ([1.0, -math.inf], math.inf),
        ([math.inf, math.nan, 1.0], math.nan),
        ([math.nan, math.inf], math.nan),
    ],
)
def test_amax_is_the_largest_magnitude_and_nan_wins(impl, values, amax, fmt):
    """Oracle: literal data."""
    np.testing.assert_equal(IMPLEMENTATIONS[impl](torch.tensor(values), fmt).amax, amax)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_exponents_of_known_values(impl, fmt):
    """Oracle: literal data; zeros and float32's subnormals in bin 0, infinities and NaN in bin 255."""
    values = [1.0, -1.5, 1.9999999, 2.0, -0.75, 2.0**-126, 3e38, 0.0, -0.0, 2.0**-127, math.inf, -math.inf, math.nan]
    bins = IMPLEMENTATIONS[impl](torch.tensor(values), fmt).exponents
    counts = {index: int(bins[index]) for index in np.flatnonzero(bins)}
    assert counts == {127: 3, 128: 1, 126: 1, 1: 1, 254: 1, 0: 3, 255: 3}


def test_exponent_counts_agree_with_numpy_frexp():
    """Oracle: numpy.frexp, subnormals of float32 included."""
    values = scattered(torch.float32).double().numpy()
    exponents, counts = np.unique(np.frexp(values[np.isfinite(values) & (values != 0)])[1] - 1, return_counts=True)
    assert reference.exponent_counts(values.tolist()) == dict(zip(exponents.tolist(), counts.tolist(), strict=True))


# Every backend against `reference`: codes, counts, amax, exponents


def mixed(fmt: Format, dtype: torch.dtype, scale_bias: int) -> Tensor:
    return torch.cat([edges(fmt, dtype, scale_bias), scattered(dtype)])


def finite(fmt: Format, dtype: torch.dtype, scale_bias: int) -> Tensor:
    x = mixed(fmt, dtype, scale_bias)
    return x[x.isfinite()]


def every_value(fmt: Format, dtype: torch.dtype, scale_bias: int) -> Tensor:
    return all_values(dtype)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cast_of_every_16_bit_value_agrees_with_reference(impl, dtype, fmt):
    expected = reference_outcome(fmt.name, dtype, 0, every_value)
    assert_same(BACKENDS[impl](all_values(dtype), fmt), expected)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("source", [mixed, finite])
@pytest.mark.parametrize("dtype", BIT_DTYPES)
@pytest.mark.parametrize("scale_bias", SCALE_BIASES)
def test_scaled_cast_agrees_with_reference(impl, source, dtype, scale_bias, fmt):
    x = source(fmt, dtype, scale_bias)
    expected = reference_outcome(fmt.name, dtype, scale_bias, source)
    assert_same(BACKENDS[impl](x, fmt, scale_bias), expected)


@pytest.mark.parametrize("dtype", BIT_DTYPES)
@pytest.mark.parametrize("scale_bias", SCALE_BIASES)
def test_scaled_reference_agrees_with_ml_dtypes(dtype, scale_bias, fmt):
    """Oracle: ml_dtypes on x * 2**scale_bias as a double, which holds it exactly."""
    values = mixed(fmt, dtype, scale_bias).double().numpy()
    scaled = np.ldexp(values, scale_bias)
    expected = with_golden_edges(scaled, encode_by_ml_dtypes(scaled, fmt), fmt)
    np.testing.assert_array_equal(reference_outcome(fmt.name, dtype, scale_bias, mixed).codes, expected)


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_subnormal_inputs_are_lifted_into_range(impl, dtype, fmt):
    """Oracle: exact powers of two. 2**-130 * 2**126 = 2**-4 is representable in every format."""
    cast = BACKENDS[impl](torch.tensor([2.0**-130, -(2.0**-130)], dtype=dtype), fmt, MAX_SCALE_BIAS)
    assert [reference.decode(code, fmt) for code in cast.codes.tolist()] == [2.0**-4, -(2.0**-4)]


@pytest.mark.parametrize("impl", BACKENDS)
@pytest.mark.parametrize(("scale_bias", "value"), [(30, 2.0**-20), (-20, 2.0**15), (MIN_SCALE_BIAS, 2.0**15)])
def test_float16_inputs_scale_beyond_float16(impl, scale_bias, value, fmt):
    """Oracle: reference. The multiplier 2**scale_bias is no float16."""
    x = torch.tensor([value, -value, value / 8], dtype=torch.float16)
    assert_same(BACKENDS[impl](x, fmt, scale_bias), cast_by_reference(x, fmt, scale_bias))
