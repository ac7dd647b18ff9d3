"""A scale for each row, block or 32 values: casts, products and what is turned, on every backend.

Oracles: numerics/reference.py on one group after the other; float64 on the same codes (intervals.py); gfloat and
ml_dtypes for MX.
"""

import itertools
import math
from dataclasses import replace
from functools import cache

import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat.block import compute_scale_amax
from gfloat.formats import format_info_ocp_e4m3, format_info_ocp_e5m2
from grouped import cast_by_reference, values_by_reference, values_of
from implementations import BACKENDS, HELD, using
from intervals import assert_within, interval
from tensors import DTYPES, normal
from torch import Tensor

from octoscale.kernels import ops
from octoscale.kernels.groups import WIDEST
from octoscale.kernels.ops import Quantized, matmul, quantize, turned
from octoscale.numerics.formats import FORMATS
from octoscale.numerics.granularity import BLOCK, MX, ROW, SQUARE, TENSOR, Granularity, along
from octoscale.numerics.scaling import Amax, Constant

EACH = (ROW, ROW.t(), BLOCK, BLOCK.t(), SQUARE, MX, MX.t())
#: Sizes whose last group is a smaller one.
SHAPES = {ROW: (3, 20), BLOCK: (2, 150), MX: (2, 70), SQUARE: (130, 131)}


def rule_of(granularity: Granularity, margin: int = 0, round: str = "") -> Amax:
    return Amax(granularity=granularity.name, margin=margin, round=round)


def spread_out(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Values over 40 binades, so that groups differ; a zero of each sign among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * 2.0 ** torch.randint(-14, 10, shape, generator=generator)
    x.view(-1)[:2] = torch.tensor([0.0, -0.0])
    return x


def assert_cast_as_reference(q: Quantized, expected: tuple) -> None:
    codes, biases, counts = expected
    assert q.scale_bias.flatten().tolist() == biases
    assert torch.equal(q.codes.view(torch.uint8), codes)
    seen = q.observed
    np.testing.assert_equal(seen.amax.item(), counts.amax)
    assert (seen.saturated, seen.flushed, seen.nonfinite) == (counts.saturated, counts.flushed, counts.nonfinite)
    assert seen.amaxes.shape == q.scale_bias.shape


@cache
def example(granularity: Granularity, format: str, dtype: torch.dtype, round: str) -> tuple[Tensor, tuple]:
    """A matrix, and what the reference makes of it: once for all backends."""
    upright = granularity not in SHAPES
    shape = SHAPES[granularity.t()][::-1] if upright else SHAPES[granularity]
    x = spread_out(shape).to(dtype)
    return x, cast_by_reference(x, FORMATS[format], rule_of(granularity, round=round), granularity)


@pytest.mark.usefixtures("backend")
class TestCasts:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("granularity", [each for each in EACH if each != SQUARE], ids=lambda g: f"{g} {g.group}")
    def test_each_granularity_is_the_reference_group_by_group(self, granularity, dtype, fmt):
        for round in ("down", "up") if granularity.name == "mx" else ("",):
            x, expected = example(granularity, fmt.name, dtype, round)
            q = quantize(x, fmt, rule_of(granularity, round=round), granularity=granularity, counts=True)
            assert_cast_as_reference(q, expected)

    @pytest.mark.parametrize("format", ["e4m3fn", "e5m2fnuz"])
    def test_squares_are_the_reference_group_by_group(self, format):
        x, expected = example(SQUARE, format, torch.bfloat16, "")
        q = quantize(x, format, rule_of(SQUARE), granularity=SQUARE, counts=True)
        assert q.scale_bias.shape == (2, 2)
        assert_cast_as_reference(q, expected)

    @pytest.mark.parametrize("margin", [-125, -3, 2])
    @pytest.mark.parametrize("granularity", [ROW, MX], ids=str)
    def test_a_margin_is_each_groups(self, granularity, margin, fmt):
        x, rule = spread_out((2, 70), seed=1), rule_of(granularity, margin)
        q = quantize(x, fmt, rule, counts=True)
        assert_cast_as_reference(q, cast_by_reference(x, fmt, rule, granularity))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_what_is_special_stays_in_its_group(self, dtype, fmt):
        """Infinity, NaN, zeros, the smallest and the largest numbers, each in a row of its own."""
        tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        rows = [
            [1, math.inf, -2],
            [math.nan, 3, -0.0],
            [0, -0.0, 0],
            [tiny, -smallest, 0],
            [huge, 1, -tiny],
            [-5, 2, 3],
        ]
        x = torch.tensor(rows).to(dtype)
        q = quantize(x, fmt, rule_of(ROW), counts=True)
        assert_cast_as_reference(q, cast_by_reference(x, fmt, rule_of(ROW), ROW))
        assert q.scale_bias[:3].tolist() == [[0]] * 3

    def test_what_scaling_makes_zero_is_flushed(self):
        """Below float32's smallest number there is none: the code is zero all the same, and is counted."""
        x = torch.tensor([[2.0**100, 2.0**-100], [2.0**127, -(2.0**-149)], [2.0**100, 0.0]])
        q = quantize(x, "e4m3fn", rule_of(ROW), counts=True)
        assert_cast_as_reference(q, cast_by_reference(x, FORMATS["e4m3fn"], rule_of(ROW), ROW))
        assert q.observed.flushed == 2

    @pytest.mark.parametrize("granularity", [ROW, BLOCK, MX], ids=str)
    @pytest.mark.parametrize("shape", [(0,), (70,), (0, 70), (3, 0), (2, 3, 70), (2, 0, 70)])
    def test_leading_dimensions_are_rows(self, shape, granularity):
        """Oracle: the same values as a matrix."""
        x, rule = normal(*shape), rule_of(granularity)
        q, flat = (
            quantize(x, "e4m3fn", rule, counts=True),
            quantize(x.reshape(math.prod(shape[:-1]), -1), "e4m3fn", rule) if x.numel() else None,
        )
        assert q.codes.shape == shape
        assert q.scale_bias.shape == granularity.scale_shape(shape)
        assert q.flatten_rows().codes.shape == (math.prod(shape[:-1]), shape[-1])
        if flat is not None:
            assert torch.equal(q.flatten_rows().scale_bias, flat.scale_bias)
            assert torch.equal(q.flatten_rows().codes.view(torch.uint8), flat.codes.view(torch.uint8))
        else:
            assert q.observed.amax == 0

    def test_layout_does_not_matter(self):
        """Oracle: the same values, contiguous."""
        wide = spread_out((70, 9))
        for x in (wide.t(), wide.t()[:, ::2], wide.t()[1:, 3:], wide[:, :1].t().expand(4, 70)):
            a, b = quantize(x, "e4m3fn", rule_of(MX)), quantize(x.contiguous(), "e4m3fn", rule_of(MX))
            assert torch.equal(a.codes.view(torch.uint8), b.codes.view(torch.uint8))
            assert torch.equal(a.scale_bias, b.scale_bias)

    @pytest.mark.parametrize("granularity", EACH, ids=lambda g: f"{g} {g.group}")
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_dequantized_values_are_exact(self, granularity, dtype):
        """Oracle: float64; every code times a power of two is a bfloat16, and of these a float16, too."""
        q = quantize(normal(150, 140), "e4m3fn", rule_of(granularity), granularity=granularity)
        assert torch.equal(q.dequantize(dtype).double(), values_of(q))

    def test_exponents_are_those_of_the_tensor(self):
        x = spread_out((2, 70))
        counted = quantize(x, "e4m3fn", rule_of(MX), exponents=True).observed.exponents
        assert torch.equal(counted, quantize(x, "e4m3fn", Amax(), exponents=True).observed.exponents)


def operand(granularity: Granularity, format: str, *shape: int, seed: int) -> Quantized:
    return quantize(spread_out(shape, seed), format, rule_of(granularity), granularity=granularity)


def lying_upright(q: Quantized) -> Quantized:
    """The same with the codes in another order in memory."""
    lies_along = q.codes.stride(1) == 1
    return replace(q, codes=q.codes.t().contiguous().t() if lies_along else q.codes.contiguous())


@pytest.mark.usefixtures("backend")
class TestProducts:
    @pytest.mark.parametrize("b_granularity", [TENSOR, ROW.t(), ROW, BLOCK.t(), SQUARE, MX.t()], ids=lambda g: f"{g}")
    @pytest.mark.parametrize("a_granularity", [TENSOR, ROW, ROW.t(), BLOCK, MX], ids=lambda g: f"{g} {g.group}")
    def test_a_product_of_any_two_is_within_the_bound_of_float64(self, a_granularity, b_granularity):
        """Of rows and columns whose scales are factors, of runs of the sum with one scale, and of any other."""
        a = operand(a_granularity, "e4m3fn", 18, 300, seed=1)
        b = operand(b_granularity, "e5m2", 300, 140, seed=2)
        a64, b64, bias = values_of(a), values_of(b), normal(140)
        expected = interval(a64, b64, torch.float32)
        for one, other in itertools.product((a, lying_upright(a)), (b, lying_upright(b))):
            assert_within(matmul(one, other), expected)
        for rows in (3, 18):
            few = Quantized(
                codes=a.codes[:rows],
                scale_bias=a.scale_bias[:rows] if a.scale_bias.ndim and a.scale_bias.shape[0] > 1 else a.scale_bias,
                format=a.format,
                granularity=a.granularity,
            )
            out = matmul(few, b, dtype=torch.bfloat16, bias=bias)
            assert_within(out, interval(a64[:rows], b64, torch.bfloat16, bias))

    @pytest.mark.parametrize("format", HELD)
    @pytest.mark.parametrize("name", ["row", "block", "mx"])
    def test_linear_takes_codes_and_bfloat16(self, name, format):
        x, w = normal(2, 3, 150), normal(20, 150, seed=1)
        w8 = quantize(w, format, Amax(granularity=name), granularity=along(name, "weight"))
        x8, bias = quantize(x, format, Amax(granularity=name)), normal(20)
        expected = interval(values_of(x8.flatten_rows()), values_of(w8).t(), torch.float16, bias)
        assert_within(ops.linear(x8, w8, bias, dtype=torch.float16), expected)
        as_values = interval(x.bfloat16().double().flatten(0, 1), values_of(w8).t(), torch.bfloat16, bias)
        assert_within(ops.linear(x.bfloat16(), w8, bias), as_values)

    @pytest.mark.parametrize(("M", "K", "N"), [(0, 3, 2), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
    @pytest.mark.parametrize("granularity", [ROW, MX], ids=str)
    def test_sizes_0_and_1(self, granularity, M, K, N):
        a = quantize(torch.ones(M, K), "e4m3fn", rule_of(granularity))
        b = quantize(torch.ones(N, K), "e4m3fn", rule_of(granularity)).t()
        assert torch.equal(matmul(a, b, bias=torch.ones(N)), torch.full((M, N), K + 1.0))

    def test_a_nan_stays_in_its_row(self):
        x = normal(18, 300)
        x[3, 200] = math.nan
        out = matmul(quantize(x, "e4m3fn", rule_of(BLOCK)), operand(SQUARE, "e4m3fn", 300, 40, seed=2))
        assert out.isnan().all(1).tolist() == out.isnan().any(1).tolist() == [row == 3 for row in range(18)]

    @pytest.mark.parametrize("format", HELD)
    @pytest.mark.parametrize("granularity", [BLOCK, MX], ids=str)
    def test_nan_and_zeros_below_the_scale_of_their_row_stay_what_they_are(self, granularity, format):
        """Their bits do not fall with the exponents of the values beside them."""
        fmt, size = FORMATS[format], granularity.group[1]
        codes = torch.zeros(3, 2 * size, dtype=torch.uint8)
        codes[:, 0] = quantize(torch.ones(1), format, Constant(0)).codes.view(torch.uint8)
        codes[0, size + 7] = fmt.nan_code
        if "fnuz" not in format:
            codes[1, size:] = 0x80
        biases = torch.tensor([[0, 77]] * 3, dtype=torch.int32)
        a = Quantized(
            codes=codes.view(getattr(torch, fmt.torch_name)), scale_bias=biases, format=fmt, granularity=granularity
        )
        b = quantize(torch.ones(5, 2 * size), format, rule_of(granularity)).t()
        out = matmul(a, b)
        assert out[0].isnan().all()
        assert torch.equal(out[1:], torch.ones(2, 5))
        assert matmul(b.t(), a.t()).isnan().tolist() == [[True, False, False]] * 5

    @pytest.mark.parametrize(
        ("row", "column"), [(126, 126), (-126, -126), (126, -126), (-100, 20), (61, -61), (75, 60)]
    )
    def test_factors_beyond_float32_are_applied_in_an_order_that_rounds_once(self, row, column):
        """Oracle: powers of two, rounded once from float64: overflow, subnormals and underflow included."""
        codes, fmt = torch.tensor([[2.0**-16], [1.75]]).to(torch.float8_e5m2), FORMATS["e5m2"]
        scales = [torch.tensor([[bias], [0]], dtype=torch.int32) for bias in (row, column)]
        a, b = (Quantized(codes=codes, scale_bias=scale, format=fmt, granularity=ROW) for scale in scales)
        expected = values_of(a) @ values_of(b).t()
        assert torch.equal(matmul(a, b.t()), expected.float())

    @pytest.mark.parametrize("reach", [0, 10, WIDEST // 2, WIDEST // 2 + 1, 126])
    def test_scales_that_lie_far_apart_along_the_sum_lose_nothing(self, reach):
        """What is small in one operand is large in the other: each of two runs gives half of the sum."""
        codes, fmt = torch.ones(1, 64).to(torch.float8_e5m2), FORMATS["e5m2"]
        a, b = (
            Quantized(codes=codes, scale_bias=torch.tensor([[x, -x]], dtype=torch.int32), format=fmt, granularity=MX)
            for x in (reach, -reach)
        )
        assert matmul(a, b.t()).item() == 64.0

    @pytest.mark.parametrize("reach", [0, 16, 17, WIDEST // 2, WIDEST // 2 + 1])
    def test_a_sum_that_is_small_beside_its_scales_survives_the_scale_of_its_row(self, reach):
        """Oracle: powers of two. Only the second run, far below the first, which is 0, holds values."""
        codes = torch.tensor([[0.0] * 32 + [2.0**-16] * 32]).to(torch.float8_e5m2)
        a, b = (
            Quantized(
                codes=codes,
                scale_bias=torch.tensor([[x, x + reach]], dtype=torch.int32),
                format=FORMATS["e5m2"],
                granularity=MX,
            )
            for x in (60, -60)
        )
        assert matmul(a, b.t()).item() == 2.0 ** (5 - 32 - 2 * reach)

    def test_the_bias_is_added_before_the_rounding(self):
        """Oracle: by hand; 256 + 1 in bfloat16 would be 256."""
        a, b = (
            quantize(torch.ones(1, 257), "e4m3fn", rule_of(ROW)),
            quantize(torch.ones(1, 257), "e4m3fn", rule_of(ROW)),
        )
        assert matmul(a, b.t(), dtype=torch.bfloat16, bias=torch.tensor([-256.0])).item() == 1.0

    def test_operands_are_left_alone(self):
        a, b = operand(MX, "e4m3fn", 3, 70, seed=1), operand(ROW.t(), "e4m3fn", 70, 5, seed=2)
        before = [x.clone() for q in (a, b) for x in (q.codes.view(torch.uint8), q.scale_bias)]
        matmul(a, b)
        a.dequantize()
        assert all(map(torch.equal, before, [x for q in (a, b) for x in (q.codes.view(torch.uint8), q.scale_bias)]))


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "portable"])
def test_a_rows_sums_do_not_depend_on_the_rows_beside_it(name):
    """Oracle: the row alone, bit for bit. Under one scale a tensor they do: few rows have their own kernel."""
    b = operand(ROW.t(), "e4m3fn", 700, 130, seed=2)
    by_column = Quantized(
        codes=b.codes.t().contiguous().t(), scale_bias=b.scale_bias, format=b.format, granularity=b.granularity
    )
    with using(name):
        for weight in (b, by_column):
            x = spread_out((37, 700), seed=3)
            together = matmul(quantize(x, "e4m3fn", rule_of(ROW)), weight)
            for rows in ([0], [36], [5, 4], list(range(16)), list(range(20, 37)), list(range(36, -1, -1))):
                alone = matmul(quantize(x[rows], "e4m3fn", rule_of(ROW)), weight)
                assert torch.equal(alone, together[rows])


# Turned


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("granularity", [ROW, BLOCK, MX, MX.t()], ids=lambda g: f"{g} {g.group}")
def test_what_is_turned_is_cast_again_from_its_codes(granularity):
    """Oracle: the reference on the values of the codes, along the other dimension."""
    q = operand(granularity, "e4m3fn", 40, 140, seed=1)
    again = turned(q, rule_of(granularity))
    expected = values_by_reference(values_of(q).float(), q.format, rule_of(granularity), granularity.t())
    assert again.granularity == granularity.t()
    assert torch.equal(values_of(again), expected)


@pytest.mark.parametrize("granularity", [ROW, BLOCK], ids=str)
def test_powers_of_two_keep_the_digits_of_what_is_turned(granularity):
    """Oracle: the values themselves, over the 15 binades in which e4m3fn has all digits."""
    x = normal(40, 140).sign() * (1 + torch.rand(40, 140)) * 2.0 ** torch.randint(-6, 6, (40, 140))
    q = quantize(x, "e4m3fn", rule_of(granularity))
    assert torch.equal(turned(q, rule_of(granularity)).dequantize(), q.dequantize())


@pytest.mark.parametrize("granularity", [TENSOR, SQUARE], ids=str)
def test_what_serves_both_directions_is_not_cast_again(granularity):
    q = quantize(normal(5, 7), "e4m3fn", rule_of(granularity), granularity=granularity)
    assert turned(q, rule_of(granularity)) is q


def test_a_transpose_is_a_view_with_transposed_groups():
    q = operand(MX, "e4m3fn", 3, 70, seed=1)
    assert (q.t().scale_bias.shape, q.t().granularity) == ((3, 3), MX.t())
    assert q.t().codes.data_ptr() == q.codes.data_ptr()
    assert torch.equal(values_of(q.t()), values_of(q).t())


# What the caller got wrong


@pytest.mark.parametrize("rule", [Amax(), Constant(1), Amax(granularity="mx")])
def test_a_granularity_is_the_rules(rule):
    with pytest.raises(ValueError, match=f"quantize: {rule} has scales of granularity {rule.granularity}, not row"):
        quantize(normal(2, 3), "e4m3fn", rule, granularity=ROW)
    with pytest.raises(ValueError, match="amax:row has scales of granularity row, not tensor"):
        quantize(normal(2, 3), "e4m3fn", rule_of(ROW), granularity=TENSOR)


def test_a_part_on_another_rank_has_one_scale():
    with pytest.raises(ValueError, match="amax:row: a tensor whose parts are on several ranks has one scale"):
        quantize(normal(2, 3), "e4m3fn", rule_of(ROW), everywhere=lambda amax: amax)
    with pytest.raises(ValueError, match="amax:row: what is observed and encoded apart has one scale"):
        ops.encode(normal(2, 3), "e4m3fn", rule_of(ROW), ops.observe(normal(2, 3)))


def test_imitated_sums_take_one_scale():
    a = quantize(normal(2, 3), "e4m3fn", rule_of(ROW))
    with pytest.raises(ValueError, match="accumulate=hopper imitates products of one scale a tensor"):
        matmul(a, quantize(normal(3, 2), "e4m3fn", Amax()), accumulate="hopper")


# MX against others


@pytest.mark.parametrize(
    ("format", "info", "narrow"),
    [("e4m3fn", format_info_ocp_e4m3, ml_dtypes.float8_e4m3fn), ("e5m2", format_info_ocp_e5m2, ml_dtypes.float8_e5m2)],
)
def test_mx_has_gfloats_scales_and_ml_dtypes_codes(format, info, narrow):
    """All 32,639 positive bfloat16 as the amax of 32 values. gfloat stops at E8M0's 2**-127, scale_bias at 126."""
    bits = torch.arange(1, 0x7F80, dtype=torch.int32).to(torch.int16)
    amax = bits.view(torch.bfloat16).float()
    x = amax[:, None] * torch.cat([torch.ones(1), torch.rand(31, generator=torch.Generator().manual_seed(0)) * 2 - 1])
    q = quantize(x, format, Amax(granularity="mx"))
    scales = np.array([compute_scale_amax(float(info.emax), np.array([value])) for value in amax.double().tolist()])
    expected = np.minimum(-np.log2(scales).astype(np.int32), 126)
    assert np.array_equal(q.scale_bias.flatten().numpy(), expected)
    e8m0 = np.ldexp(1.0, -expected).astype(ml_dtypes.float8_e8m0fnu)
    assert np.array_equal(e8m0.view(np.uint8), 127 - expected)
    scaled = np.clip(np.ldexp(x.double().numpy(), expected[:, None]), -info.max, info.max)
    assert np.array_equal(q.codes.view(torch.uint8).numpy(), scaled.astype(narrow).view(np.uint8))
    up = quantize(x, format, Amax(granularity="mx", round="up"), counts=True)
    assert up.observed.saturated == 0
    assert ((q.scale_bias - up.scale_bias) == (amax[:, None] * 2.0**q.scale_bias > info.max)).all()
