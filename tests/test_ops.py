"""Quantize, dequantize, multiply: every dtype and layout. Oracles: `reference`, float64, exact powers of two."""

import math
import re

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from octoscale import ops, reference
from octoscale.formats import FORMATS, Format
from octoscale.ops import Quantized, matmul, quantize
from octoscale.scaling import Amax, Constant, Delayed, History

pytestmark = pytest.mark.usefixtures("backend")

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OTHER_DTYPES = (torch.float64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn)
FORMAT_PAIRS = [(a, b) for a in FORMATS for b in FORMATS]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(values: Tensor, fmt: Format, scale_bias: int = 0) -> Quantized:
    """The codes of values that the format holds exactly, as if they had been cast with `scale_bias`."""
    codes = values.to(getattr(torch, fmt.torch_name))
    assert torch.equal(codes.double(), values.double())
    return Quantized(codes=codes, scale_bias=torch.tensor(scale_bias, dtype=torch.int32), format=fmt)


def assert_cast_as_reference(q: Quantized, x: Tensor, fmt: Format) -> None:
    """Codes, counts and amax are those of `reference` at the scale_bias of `reference`, for x in its logical order."""
    values = x.double().reshape(-1).tolist()
    amax = reference.quantize(values, fmt, 0)[1].amax
    codes, counts = reference.quantize(values, fmt, reference.scale_bias(amax, fmt))
    seen = q.observed
    assert q.scale_bias == reference.scale_bias(amax, fmt)
    assert q.codes.view(torch.uint8).reshape(-1).tolist() == codes
    np.testing.assert_equal(seen.amax.item(), counts.amax)
    assert (seen.saturated, seen.flushed, seen.nonfinite) == (counts.saturated, counts.flushed, counts.nonfinite)


# Quantize: every dtype and layout. A layout is a function of the dtype, as `to` does not keep every stride.

LAYOUTS = {
    "empty": lambda dtype: torch.empty(0, dtype=dtype),
    "empty rows": lambda dtype: torch.empty(0, 3, dtype=dtype),
    "empty columns": lambda dtype: torch.empty(2, 0, 3, dtype=dtype).transpose(0, 2),
    "scalar": lambda dtype: torch.tensor(-0.3, dtype=dtype),
    "1-D": lambda dtype: normal(7).to(dtype),
    "one element": lambda dtype: normal(1, 1, 1).to(dtype),
    "N-D": lambda dtype: normal(2, 3, 4, 5).to(dtype),
    "transposed": lambda dtype: normal(5, 3).to(dtype).t(),
    "permuted": lambda dtype: normal(2, 3, 4).to(dtype).permute(2, 0, 1),
    "channels last": lambda dtype: normal(2, 3, 4, 5).to(dtype).contiguous(memory_format=torch.channels_last),
    "strided slice": lambda dtype: normal(9, 8).to(dtype)[1::3, ::2],
    "column": lambda dtype: normal(6, 4).to(dtype)[:, 1],
    "offset": lambda dtype: normal(20).to(dtype)[3:],
    "expanded": lambda dtype: normal(1, 4).to(dtype).expand(3, 4),
    "expanded scalar": lambda dtype: torch.tensor(2.5, dtype=dtype).expand(2, 3),
    "windows that overlap": lambda dtype: normal(10).to(dtype).unfold(0, 4, 2),
    "zeros": lambda dtype: torch.zeros(3, 2, dtype=dtype),
    "negative zeros": lambda dtype: -torch.zeros(3, dtype=dtype),
    "infinity": lambda dtype: torch.tensor([1.0, -math.inf, 0.5, math.inf], dtype=dtype),
    "NaN": lambda dtype: torch.tensor([[1.0, math.nan], [-0.0, 1e-7]], dtype=dtype),
    "infinity and NaN": lambda dtype: torch.tensor([math.inf, math.nan, -0.0, 3.0], dtype=dtype),
    "NaN scalar": lambda dtype: torch.tensor(math.nan, dtype=dtype),
    "NaN transposed": lambda dtype: torch.tensor([[1.0, math.nan], [-math.inf, 2.0]], dtype=dtype).t(),
    "one large, many small": lambda dtype: torch.cat([normal(50) * 1e-5, torch.tensor([500.0])]).to(dtype),
}
NOT_CONTIGUOUS = (
    "transposed",
    "permuted",
    "channels last",
    "strided slice",
    "column",
    "expanded",
    "expanded scalar",
    "windows that overlap",
    "NaN transposed",
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantize_every_dtype_and_layout(layout, dtype, fmt):
    x = LAYOUTS[layout](dtype)
    q = quantize(x, fmt, Amax(), counts=True)
    assert_cast_as_reference(q, x, fmt)
    assert q.codes.shape == x.shape
    assert q.codes.dtype == getattr(torch, fmt.torch_name)
    assert q.format is fmt


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_observed_has_the_documented_dtypes_and_shapes(layout, dtype):
    """Oracle: the docstrings of Quantized and Observed."""
    q = quantize(LAYOUTS[layout](dtype), "e5m2", Amax(), counts=True, exponents=True)
    assert (q.scale_bias.shape, q.scale_bias.dtype) == ((), torch.int32)
    assert (q.observed.amax.shape, q.observed.amax.dtype) == ((), torch.float32)
    for count in (q.observed.saturated, q.observed.flushed, q.observed.nonfinite):
        assert (count.shape, count.dtype) == ((), torch.int64)
    assert (q.observed.exponents.shape, q.observed.exponents.dtype) == ((256,), torch.int64)
    assert q.observed.exponents.sum() == q.codes.numel()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", NOT_CONTIGUOUS)
def test_these_layouts_are_not_contiguous(layout, dtype):
    assert not LAYOUTS[layout](dtype).is_contiguous()


@given(data=st.data())
def test_quantize_any_shape_and_strides(data):
    """A random view (permuted, sliced, expanded) of a random tensor."""
    shape = data.draw(st.lists(st.integers(0, 4), max_size=4))
    x = normal(*shape, seed=data.draw(st.integers(0, 99))) if shape else torch.tensor(0.7)
    x = x.permute(data.draw(st.permutations(range(x.ndim)))) if shape else x
    for dim in range(x.ndim):
        x = x.narrow(dim, 0, x.shape[dim])[(slice(None),) * dim + (slice(None, None, data.draw(st.integers(1, 3))),)]
    x = x.expand(data.draw(st.integers(0, 3)), *x.shape) if data.draw(st.booleans()) else x
    fmt = FORMATS[data.draw(st.sampled_from(list(FORMATS)))]
    x = x.to(data.draw(st.sampled_from(DTYPES)))
    q = quantize(x, fmt, Amax(), counts=True)
    assert q.codes.shape == x.shape
    assert_cast_as_reference(q, x, fmt)


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
def test_quantize_takes_no_other_dtype(dtype):
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(TypeError, match=f"quantize takes float32, bfloat16 or float16, not {name}"):
        quantize(torch.zeros(2).to(dtype), "e4m3fn", Amax())


def test_quantize_names_an_unknown_format():
    with pytest.raises(ValueError, match="unknown format 'e4m3': the formats are"):
        quantize(torch.zeros(2), "e4m3", Amax())


def test_a_format_by_name_is_the_format(fmt):
    by_name, by_row = quantize(normal(4), fmt.name, Amax()), quantize(normal(4), fmt, Amax())
    assert by_name.format is by_row.format
    assert torch.equal(by_name.codes.view(torch.uint8), by_row.codes.view(torch.uint8))


def test_counts_and_exponents_are_filled_only_when_asked_for():
    seen = quantize(normal(4), "e4m3fn", Amax()).observed
    assert (seen.saturated, seen.flushed, seen.nonfinite, seen.exponents) == (None, None, None, None)
    assert quantize(normal(4), "e4m3fn", Amax(), counts=True).observed.exponents is None
    assert quantize(normal(4), "e4m3fn", Amax(), exponents=True).observed.saturated is None


@pytest.mark.parametrize("rule", [Constant(3), Amax(margin=2), Delayed(history=2)])
def test_the_rule_chooses_the_scale_bias(rule):
    """Oracle: by hand; 256 * 1.5 <= 448 < 512 * 1.5, less margin; the history holds 2**-8."""
    history = History(2)
    history.observe(torch.tensor(2.0**-8))
    history.advance()
    q = quantize(torch.tensor([1.5, -0.1]), "e4m3fn", rule, history=history)
    assert q.scale_bias == {"cscale:3": 3, "amax:margin=2": 6, "delayed:history=2": 16}[str(rule)]


def test_values_larger_than_the_history_saturate():
    history = History(2)
    history.observe(torch.tensor(1.0))
    history.advance()
    q = quantize(torch.tensor([1.0, 2.0, -64.0]), "e4m3fn", Delayed(), history=history, counts=True)
    assert q.dequantize().tolist() == [1.0, 448 / 256, -448 / 256]
    assert q.observed.saturated == 2


def test_quantize_leaves_its_input_and_its_graph_alone():
    x = normal(3, 3).requires_grad_()
    before = x.detach().clone()
    q = quantize(x, "e4m3fn", Amax(), counts=True, exponents=True)
    assert torch.equal(x, before)
    assert not any(tensor.requires_grad for tensor in (q.codes, q.scale_bias, q.observed.amax))


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_torch_default_dtype_does_not_matter(default):
    """transformers sets it while it loads a model."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        for x in (torch.empty(0, dtype=torch.float32), torch.ones(2, dtype=torch.float32)):
            q = quantize(x, "e4m3fn", Amax(), counts=True, exponents=True)
            assert (q.observed.amax.dtype, q.dequantize().dtype) == (torch.float32, torch.float32)
            assert matmul(q.flatten_rows(), q.flatten_rows().t()).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


# Dequantize


def rounded(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """float64 to `dtype` in one rounding, by numpy and ml_dtypes."""
    narrow = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}[dtype]
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(narrow).astype(np.float64)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale_bias", [-126, -113, -7, 0, 1, 24, 126])
def test_dequantize_is_exact_for_all_codes(fmt, dtype, scale_bias):
    """Oracle: the reference value as a float64 times 2**-scale_bias, rounded once to the dtype."""
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, fmt.torch_name))
    q = Quantized(codes=codes, scale_bias=torch.tensor(scale_bias, dtype=torch.int32), format=fmt)
    values = np.array([reference.decode(code, fmt) for code in range(256)])
    expected, result = rounded(np.ldexp(values, -scale_bias), dtype), q.dequantize(dtype)
    assert result.dtype == dtype
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(result.signbit() & ~result.isnan(), expected.signbit() & ~expected.isnan())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dequantize_keeps_shape_and_order(layout):
    x = LAYOUTS[layout](torch.float32)
    values = quantize(x, "e4m3fn", Constant(0)).dequantize()
    expected = torch.tensor([reference.round(value, FORMATS["e4m3fn"]) for value in x.reshape(-1).tolist()])
    torch.testing.assert_close(values, expected.reshape(x.shape), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", OTHER_DTYPES)
def test_dequantize_takes_no_other_dtype(dtype):
    with pytest.raises(TypeError, match="dequantize takes float32, bfloat16 or float16, not "):
        quantize(normal(2), "e4m3fn", Amax()).dequantize(dtype)


# Views


def test_t_is_a_view_of_the_same_codes():
    q = quantize(normal(3, 2), "e4m3fn", Amax())
    assert q.t().codes.data_ptr() == q.codes.data_ptr()
    assert torch.equal(q.t().dequantize(), q.dequantize().t())
    assert q.t().observed is None


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 4), (0, 3), (2, 0, 3), (2, 0)])
def test_flatten_rows_makes_a_matrix(shape):
    """Oracle: the leading dimensions multiplied."""
    q = quantize(normal(*shape), "e4m3fn", Amax())
    flat = q.flatten_rows()
    assert flat.codes.shape == (math.prod(shape[:-1]), shape[-1])
    assert flat.dequantize().flatten().tolist() == q.dequantize().flatten().tolist()


# Matmul
#
# The bound. u = 2**-24 is float32's unit roundoff, v that of the output (2**-24, 2**-11, 2**-8).
# An FP8 value has at most 4 significant bits, so each product a_k * b_k has at most 8: exact in float32, and a multiple
# of 2**-34, so no sum of them is subnormal. The K - 1 additions, in any order and with or without fused multiply-add,
# give
#     |s' - s| <= gamma_K * sum_k |a_k| |b_k|,        gamma_K = K u / (1 - K u)                 (Higham, section 3.1)
# The multiplication by 2**-B, B the sum of the two scale_biases, is exact. A bias vector is one more float32 addition,
# and the output one more rounding, each relative to its own result; eta is the output's smallest subnormal:
#     y = (s' 2**-B + bias)(1 + u),  out = y (1 + v) + eta/2

UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST = {torch.float32: 2.0**-149, torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}


def assert_product_within_bound(a: Quantized, b: Quantized, out: Tensor, bias: Tensor | None = None) -> None:
    a64, b64 = a.codes.double(), b.codes.double()
    unscale = 2.0 ** -float(a.scale_bias + b.scale_bias)
    u, v = UNIT_ROUNDOFF[torch.float32], UNIT_ROUNDOFF[out.dtype]
    gamma = a64.shape[1] * u / (1 - a64.shape[1] * u)
    error = gamma * (a64.abs() @ b64.abs()) * unscale
    exact = (a64 @ b64) * unscale
    if bias is not None:
        exact = exact + bias.double()
        error = error + u * (exact.abs() + error)
    error = error + v * (exact.abs() + error) + SMALLEST[out.dtype] / 2
    assert out.shape == exact.shape
    assert ((out.double() - exact).abs() <= error).all()


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


def test_dtypes_are_those_of_this_file():
    assert set(ops.DTYPES) == set(DTYPES)
