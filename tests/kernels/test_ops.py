"""Quantize and dequantize: every dtype and layout, on every backend. Oracles: `reference`, float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensors import DTYPES, OTHER_DTYPES, normal, rounded
from torch import Tensor

from octoscale.kernels import ops
from octoscale.kernels.ops import Quantized, matmul, quantize
from octoscale.numerics import reference
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.scaling import Amax, Constant, Delayed, History

pytestmark = pytest.mark.usefixtures("backend")


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e5m2, torch.uint8])
def test_codes_of_another_dtype_are_no_quantized(dtype):
    with pytest.raises(TypeError, match="codes of e4m3fn are float8_e4m3fn, not "):
        Quantized(
            codes=torch.zeros(2).to(dtype), scale_bias=torch.tensor(0, dtype=torch.int32), format=FORMATS["e4m3fn"]
        )


@pytest.mark.parametrize("scale_bias", [torch.tensor(0), torch.tensor(0.0), torch.zeros(1, dtype=torch.int32)])
def test_a_scale_bias_is_one_int32(scale_bias):
    with pytest.raises(TypeError, match="scale_bias is an int32 tensor without dimensions, not "):
        Quantized(codes=torch.zeros(2).to(torch.float8_e4m3fn), scale_bias=scale_bias, format=FORMATS["e4m3fn"])


def test_quantize_takes_no_sparse_tensor():
    with pytest.raises(TypeError, match="quantize takes a dense tensor, not one of layout sparse_coo"):
        quantize(torch.eye(3).to_sparse(), "e4m3fn", Amax())


def test_dtypes_are_those_of_this_file():
    assert set(ops.DTYPES) == set(DTYPES)


# Shapes of results


@pytest.mark.parametrize("make", [lambda: normal(6, 4), lambda: normal(4, 6).t(), lambda: normal(12, 4)[::2]])
def test_another_shape_of_a_result_is_no_view_to_autograd(make):
    """Oracle: torch's reshape; a write in place with gradients, which autograd refuses to views made without."""
    with torch.no_grad():
        made = make()
        expected = made.reshape(2, 3, 4).clone()
        y = ops.reshaped(made, (2, 3, 4))
    assert torch.equal(y, expected)
    y *= torch.ones((), requires_grad=True)
    assert y.requires_grad


def test_the_result_of_linear_may_be_written_to():
    w8 = quantize(normal(5, 4), "e4m3fn", Amax())
    with torch.no_grad():
        y = ops.linear(normal(2, 3, 4).bfloat16(), w8)
    y *= torch.ones((), requires_grad=True)
    assert y.requires_grad
    bias = torch.zeros(5, requires_grad=True)
    assert ops.linear(normal(2, 3, 4).bfloat16(), w8, bias).shape == (2, 3, 5)
