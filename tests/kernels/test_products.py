"""Products of codes, matmul and linear: every format, layout and size, on every backend. Oracles: float64."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from products import assert_product_within_bound
from tensors import DTYPES, FORMAT_PAIRS, OTHER_DTYPES, normal, quantized, rounded
from torch import Tensor

from octoscale.kernels.ops import Quantized, linear, matmul, quantize
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.scaling import Amax

pytestmark = pytest.mark.usefixtures("backend")

# Matmul


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("a_format", "b_format"), FORMAT_PAIRS)
def test_matmul_of_every_pair_of_formats(a_format, b_format, with_bias, dtype):
    a = quantize(normal(9, 300, seed=1), a_format, Amax())
    b = quantize(normal(300, 7, seed=2) * 1e-3, b_format, Amax())
    bias = normal(7, seed=3).to(dtype) if with_bias else None
    out = matmul(a, b, dtype=dtype, bias=bias)
    assert out.dtype == dtype
    assert_product_within_bound(a, b, out, bias)


@pytest.mark.parametrize(("a_format", "b_format"), FORMAT_PAIRS)
def test_every_product_of_two_values_is_exact(a_format, b_format):
    """Oracle: float64, all 65,536 products of two codes."""
    a, b = (
        Quantized(codes=all_numbers(FORMATS[name]), scale_bias=torch.tensor(0, dtype=torch.int32), format=FORMATS[name])
        for name in (a_format, b_format)
    )
    a_M1, b_1N = a.codes.view(-1, 1), b.codes.view(1, -1)
    out = matmul(with_codes(a, a_M1), with_codes(b, b_1N))
    assert torch.equal(out.double(), a_M1.double() * b_1N.double())


def all_numbers(fmt: Format) -> Tensor:
    """Every code that is neither NaN nor an infinity."""
    codes = [code for code in range(256) if code not in fmt.nan_codes | fmt.inf_codes]
    return torch.tensor(codes, dtype=torch.uint8).view(getattr(torch, fmt.torch_name))


def with_codes(q: Quantized, codes: Tensor) -> Quantized:
    return Quantized(codes=codes, scale_bias=q.scale_bias, format=q.format)


sizes = st.integers(0, 9)


@given(
    M=sizes,
    K=sizes,
    N=sizes,
    formats=st.sampled_from(FORMAT_PAIRS),
    dtype=st.sampled_from(DTYPES),
    transposed=st.tuples(st.booleans(), st.booleans()),
    biases=st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_matmul_of_small_integers_is_exact(M, K, N, formats, dtype, transposed, biases, with_bias, seed):
    """Oracle: float64, rounded once. Sums of integers below 2**24 are exact in float32, whatever their order."""
    generator = torch.Generator().manual_seed(seed)
    a_MK, b_KN = (torch.randint(-3, 4, shape, generator=generator).float() for shape in ((M, K), (K, N)))
    a, b = quantized(a_MK, FORMATS[formats[0]], biases[0]), quantized(b_KN, FORMATS[formats[1]], biases[1])
    if transposed[0]:
        a = with_codes(a, a.codes.t().contiguous()).t()
    if transposed[1]:
        b = with_codes(b, b.codes.t().contiguous()).t()
    bias = torch.randint(-3, 4, (N,), generator=generator).to(dtype) if with_bias else None
    exact = (a_MK.double() @ b_KN.double()) * 2.0 ** -sum(biases) + (bias.double() if with_bias else 0)
    out = matmul(a, b, dtype=dtype, bias=bias)
    assert out.dtype == dtype
    assert torch.equal(out, exact.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("M", "K", "N"), [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0), (1, 1, 1), (1, 5, 1)])
def test_matmul_of_sizes_0_and_1(M, K, N, dtype):
    """Oracle: float64; an empty sum is 0, and the bias is still added."""
    a, b, bias = (
        quantized(torch.ones(M, K), FORMATS["e4m3fn"]),
        quantized(torch.ones(K, N), FORMATS["e5m2"]),
        torch.ones(N),
    )
    assert torch.equal(matmul(a, b, dtype=dtype), torch.full((M, N), float(K), dtype=dtype))
    assert torch.equal(matmul(a, b, dtype=dtype, bias=bias), torch.full((M, N), K + 1.0, dtype=dtype))


def spread(codes: Tensor) -> Tensor:
    """The same codes, every other row and column of a larger matrix."""
    wide = torch.zeros(2 * codes.shape[0], 2 * codes.shape[1], dtype=torch.uint8)
    wide[::2, ::2] = codes.view(torch.uint8)
    return wide[::2, ::2].view(codes.dtype)


@pytest.mark.parametrize("view", [lambda codes: codes.t().contiguous().t(), spread], ids=["column major", "spread"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_does_not_depend_on_strides(view, dtype):
    """Oracle: float64; small integers, so that the order of the sum does not matter."""
    x = torch.randint(-4, 5, (6, 8), generator=torch.Generator().manual_seed(0)).float()
    a, b = quantized(x, FORMATS["e4m3fn"], 2), quantized(x.t().contiguous(), FORMATS["e5m2"], -1)
    expected = ((x.double() @ x.t().double()) / 2).to(dtype)
    assert torch.equal(matmul(with_codes(a, view(a.codes)), b, dtype=dtype), expected)
    assert torch.equal(matmul(a, with_codes(b, view(b.codes)), dtype=dtype), expected)


POWERS = [(-16, -16), (-16, 0), (0, 0), (3, 5), (15, 15)]
SUMS = [
    (126, 126),
    (-126, -126),
    (126, -126),
    (126, 1),
    (-126, -1),
    (126, 20),
    (-126, -30),
    (64, 63),
    (-64, -63),
    (75, 75),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("a_bias", "b_bias"), SUMS)
@pytest.mark.parametrize(("a_power", "b_power"), POWERS)
def test_matmul_at_extreme_scale_biases(a_power, b_power, a_bias, b_bias, dtype):
    """Oracle: 2**(i + j - B) as a float64, rounded once: overflow to infinity, subnormals and underflow included."""
    a, b = (
        quantized(torch.tensor([[2.0**power]]), FORMATS["e5m2"], bias)
        for power, bias in ((a_power, a_bias), (b_power, b_bias))
    )
    expected = rounded(np.array([[math.ldexp(1, a_power + b_power - a_bias - b_bias)]]), dtype)
    assert torch.equal(matmul(a, b, dtype=dtype), expected)


@pytest.mark.parametrize(("a_bias", "b_bias"), [(126, 0), (126, 1), (64, 63), (126, 5)])
def test_unscaling_to_a_subnormal_rounds_once(a_bias, b_bias):
    """Oracle: float64 to float32 by numpy. Outer products: the only rounding is that of the unscaling."""
    significands, powers = torch.arange(8, 16) / 8 * 2.0**-6, 2.0 ** torch.arange(-16, -8)
    a = quantized(significands.view(-1, 1), FORMATS["e4m3fn"], a_bias)
    b = quantized(powers.view(1, -1), FORMATS["e5m2"], b_bias)
    exact = np.ldexp(np.outer(significands.double(), powers.double()), -a_bias - b_bias)
    assert torch.equal(matmul(a, b), rounded(exact, torch.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_operand_makes_its_products_nan(fmt, dtype):
    """Oracle: the rows and columns that hold the infinity or the NaN, and no other."""
    a = quantize(torch.tensor([[1.0, math.inf], [1.0, 2.0], [math.nan, 1.0]]), fmt, Amax())
    b = quantize(torch.ones(2, 2), fmt, Amax())
    out = matmul(a, b, dtype=dtype)
    assert out.isnan().tolist() == [[True, True], [False, False], [True, True]]
    assert out[1].tolist() == [3.0, 3.0]


def test_matmul_ignores_autocast():
    """Oracle: the same product without autocast; 257 is no bfloat16."""
    a, b = quantized(torch.ones(1, 257), FORMATS["e4m3fn"]), quantized(torch.ones(257, 1), FORMATS["e4m3fn"])
    with torch.autocast("cpu", torch.bfloat16):
        out = matmul(a, b)
    assert (out.item(), out.dtype) == (257.0, torch.float32)


def test_the_bias_is_added_before_the_rounding():
    """Oracle: float64. 256 + 1 in bfloat16 would be 256; 257 - 256 is 1."""
    a, b = quantized(torch.ones(1, 257), FORMATS["e4m3fn"]), quantized(torch.ones(257, 1), FORMATS["e4m3fn"])
    bias = torch.tensor([-256.0], dtype=torch.bfloat16)
    assert matmul(a, b, dtype=torch.bfloat16, bias=bias).item() == 1.0


def test_matmul_leaves_its_operands_alone():
    a, b, bias = quantize(normal(2, 3), "e4m3fn", Amax()), quantize(normal(3, 2), "e4m3fn", Amax()), torch.ones(2)
    before = [a.dequantize(), b.dequantize(), bias.clone(), a.scale_bias.clone(), b.scale_bias.clone()]
    matmul(a, b, bias=bias)
    after = [a.dequantize(), b.dequantize(), bias, a.scale_bias, b.scale_bias]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


# Matmul: what the caller got wrong


def codes_of(*shape: int, device: str = "cpu") -> Quantized:
    codes = torch.zeros(shape, device=device).to(torch.float8_e4m3fn)
    scale_bias = torch.zeros((), dtype=torch.int32, device=device)
    return Quantized(codes=codes, scale_bias=scale_bias, format=FORMATS["e4m3fn"])


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 2, 3), (3, 2)), ((), (1, 1))]
)
def test_matmul_names_shapes_that_do_not_fit(a, b):
    expected = f"matmul takes [M, K] and [K, N], not {list(a)} and {list(b)}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        matmul(codes_of(*a), codes_of(*b))


@pytest.mark.parametrize("bias", [(), (1,), (3,), (2, 4), (1, 4)])
def test_matmul_names_a_bias_that_does_not_fit(bias):
    with pytest.raises(ValueError, match=re.escape(f"matmul takes a bias [4], not {list(bias)}")):
        matmul(codes_of(2, 3), codes_of(3, 4), bias=torch.zeros(bias))


def test_matmul_names_two_devices():
    with pytest.raises(ValueError, match="operands on one device, not cpu and meta"):
        matmul(codes_of(2, 3), codes_of(3, 4, device="meta"))


def test_matmul_names_a_bias_on_another_device():
    with pytest.raises(ValueError, match="meta"):
        matmul(codes_of(2, 3), codes_of(3, 4), bias=torch.zeros(4, device="meta"))


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
def test_matmul_takes_no_other_dtype(dtype):
    with pytest.raises(TypeError, match="matmul takes float32, bfloat16 or float16, not "):
        matmul(codes_of(2, 3), codes_of(3, 4), dtype=dtype)


# Larger products: enough rows, columns and terms for every path of a tiled kernel, and not divisible by any tile

LARGER = [
    (1, 700, 131),
    (2, 64, 64),
    (5, 333, 97),
    (16, 512, 70),
    (17, 700, 33),
    (64, 129, 258),
    (150, 1100, 77),
    (33, 0, 70),
    (70, 4200, 40),
    (40, 130, 600),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("a_by_column", "b_by_column"), [(False, True), (False, False), (True, False), (True, True)])
@pytest.mark.parametrize(("M", "K", "N"), LARGER)
def test_larger_products_in_every_layout(M, K, N, a_by_column, b_by_column, dtype):
    """The layouts of output, grad_input, grad_weight, and the fourth."""
    a = quantize(normal(*((K, M) if a_by_column else (M, K)), seed=1), "e5m2", Amax())
    b = quantize(normal(*((N, K) if b_by_column else (K, N)), seed=2), "e4m3fn", Amax())
    a, b = a.t() if a_by_column else a, b.t() if b_by_column else b
    bias = normal(N, seed=3)
    assert_product_within_bound(a, b, matmul(a, b, dtype=dtype, bias=bias), bias)


@pytest.mark.parametrize(("M", "K", "N"), LARGER)
def test_the_same_product_has_the_same_bits(M, K, N):
    """Oracle: itself, again, and in other memory."""
    a, b = quantize(normal(M, K, seed=1), "e4m3fn", Amax()), quantize(normal(N, K, seed=2), "e4m3fn", Amax()).t()
    first = matmul(a, b)
    assert torch.equal(matmul(a, b), first)
    assert torch.equal(matmul(with_codes(a, a.codes.clone()), with_codes(b, b.codes.clone())), first)


@pytest.mark.parametrize("place", [(0, 0), (3, 299), (8, 150)])
@pytest.mark.parametrize("M", [9, 40])
def test_one_nan_among_many_values(fmt, M, place):
    """Oracle: its row, and no other."""
    x = normal(M, 300)
    x[place] = math.nan
    out = matmul(quantize(x, fmt, Amax()), quantize(normal(300, 40), fmt, Amax()))
    rows = torch.zeros(M, dtype=torch.bool)
    rows[place[0]] = True
    assert torch.equal(out.isnan().all(1), rows)
    assert torch.equal(out.isnan().any(1), rows)


# Linear: [..., K] and [N, K], W8A8 and W8A16


def test_linear_of_codes_is_matmul_with_the_transpose():
    """Oracle: matmul, bit for bit."""
    x, w, bias = quantize(normal(3, 5, 70), "e4m3fn", Amax()), quantize(normal(40, 70), "e4m3fn", Amax()), normal(40)
    expected = matmul(x.flatten_rows(), w.t(), dtype=torch.float16, bias=bias).view(3, 5, 40)
    assert torch.equal(linear(x, w, bias, dtype=torch.float16), expected)


@pytest.mark.parametrize(("M", "K", "N"), LARGER)
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_leaves_bfloat16_as_it_is(fmt, M, K, N, with_bias):
    """W8A16. Oracle: float64 on the same bfloat16 values; the bound as above, products of 8 + 4 bits are exact too."""
    x, w = normal(M, K, seed=1).bfloat16(), quantize(normal(N, K, seed=2), fmt, Amax())
    bias = normal(N, seed=3).bfloat16() if with_bias else None
    out = linear(x, w, bias)
    assert out.dtype == torch.bfloat16
    assert_product_within_bound(Values(x), w.t(), out, bias)


class Values:
    """A bfloat16 operand in the shape that the bound asks for."""

    def __init__(self, values: Tensor) -> None:
        self.codes, self.scale_bias = values, torch.tensor(0, dtype=torch.int32)


@pytest.mark.parametrize("shape", [(70,), (0, 70), (2, 0, 70), (2, 3, 70)])
@pytest.mark.parametrize("as_codes", [False, True])
def test_linear_takes_any_leading_dimensions(shape, as_codes):
    """Oracle: one row at a time, in the order of memory."""
    x, w = normal(*shape).bfloat16(), quantize(normal(6, 70), "e4m3fn", Amax())
    out = linear(quantize(x, "e4m3fn", Amax()) if as_codes else x, w)
    assert out.shape == (*shape[:-1], 6)
    if as_codes:
        x = quantize(x, "e4m3fn", Amax()).dequantize(torch.bfloat16)
    expected = x.double() @ w.dequantize().double().t()
    torch.testing.assert_close(out.double(), expected, rtol=2**-8, atol=1e-4)


def test_linear_takes_rows_with_a_stride():
    wide, w = normal(6, 200).bfloat16(), quantize(normal(9, 70), "e4m3fn", Amax())
    assert torch.equal(linear(wide[::2, 10:80], w), linear(wide[::2, 10:80].contiguous(), w))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_linear_takes_codes_or_bfloat16(dtype):
    with pytest.raises(TypeError, match=r"linear takes codes or bfloat16 values, not .*: quantize x"):
        linear(torch.zeros(2, 3).to(dtype), codes_of(4, 3))


@pytest.mark.parametrize(("x", "w"), [((2, 3), (3, 2)), ((), (4, 3)), ((3,), (3,)), ((2, 3), (1, 4, 3))])
def test_linear_names_shapes_that_do_not_fit(x, w):
    expected = f"linear takes [..., K] and [N, K], not {list(x)} and {list(w)}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        linear(torch.zeros(x).bfloat16(), codes_of(*w))


def test_linear_names_a_bias_that_does_not_fit():
    with pytest.raises(ValueError, match=re.escape("linear takes a bias [4], not [3]")):
        linear(codes_of(2, 3), codes_of(4, 3), torch.zeros(3))
    with pytest.raises(TypeError, match="the bias of linear takes float32, bfloat16 or float16, not float64"):
        linear(codes_of(2, 3), codes_of(4, 3), torch.zeros(4, dtype=torch.float64))
