"""Triton's casts in its interpreter, bit for bit. Oracle: numerics/reference.py, one number at a time.

Run by test_triton_cast.py in a process of its own: triton has to be imported with TRITON_INTERPRET=1, and torch's
compiler must not meet it like that.
"""

import math
import os
from dataclasses import replace
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch
from tensors import DTYPES, normal
from torch import Tensor

from octoscale.kernels import ops, scaled_mm, table
from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.kernels.triton_cast import TritonCast
from octoscale.numerics import reference
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.scaling import Amax, Constant, Delayed, History

assert os.environ["TRITON_INTERPRET"] == "1"

#: Large blocks: the interpreter takes a step of a block at once.
WIDE = TritonCast(block=1 << 14)


def bits(x: Tensor) -> list[int]:
    return x.view(torch.uint8).reshape(-1).tolist()


@cache
def every_value(dtype: torch.dtype) -> Tensor:
    """All 65,536 of them."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)


def edges(fmt: Format) -> Tensor:
    """float32 on the format's values and the ties between them, and one ulp to each side; both signs; and specials."""
    values = np.array([reference.decode(code, fmt) for code in range(fmt.max_code + 1)])
    above = fmt.max + 2.0 ** (fmt.max_exponent - fmt.mantissa_bits)
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2, [(fmt.max + above) / 2, above]])
    points = points.astype(np.float32)
    near = [points, *(np.nextafter(points, np.float32(end)) for end in (-np.inf, np.inf))]
    special = np.array([math.inf, math.nan, 1e-45, 2.0**-126, 2.0**-127, 3.4028234663852886e38], np.float32)
    found = torch.from_numpy(np.concatenate([*near, special]))
    return torch.cat([found, -found])


def histogram(values: list[float]) -> list[int]:
    """By the reference's exponents; the first bin also holds zeros and subnormals, the last one what is not finite."""
    bins = [0] * NUM_EXPONENT_BINS
    for exponent, count in reference.exponent_counts(values).items():
        bins[max(exponent + EXPONENT_OFFSET, 0)] += count
    bins[0] += sum(x == 0 for x in values)
    bins[-1] += sum(not math.isfinite(x) for x in values)
    return bins


def assert_as_reference(x: Tensor, fmt: Format, scale_bias: int, casts: TritonCast) -> None:
    """In one launch and in two, with a scale that is plain and one on the device."""
    values = x.double().reshape(-1).tolist()
    codes, counts = reference.quantize(values, fmt, scale_bias)
    seen, once = casts.cast(x, fmt, scale_bias, counts=True, exponents=True)
    apart = casts.observe(x, exponents=True)
    on_device = torch.tensor(scale_bias, dtype=torch.int32)
    twice = casts.encode(x, fmt, apart.amax, on_device, counts=True)
    for found, encoded in ((seen, once), (apart, twice)):
        assert encoded.codes.dtype == getattr(torch, fmt.torch_name)
        assert encoded.codes.shape == x.shape
        assert bits(encoded.codes) == codes
        assert (encoded.counts.dtype, encoded.counts.shape) == (torch.int64, (3,))
        assert encoded.counts.tolist() == [counts.saturated, counts.flushed, counts.nonfinite]
        assert (found.amax.dtype, found.amax.shape) == (torch.float32, ())
        np.testing.assert_equal(found.amax.item(), counts.amax)
        assert (found.exponents.dtype, found.exponents.tolist()) == (torch.int64, histogram(values))


@pytest.mark.parametrize("scale_bias", [0, -9])
def test_all_bfloat16(fmt, scale_bias):
    assert_as_reference(every_value(torch.bfloat16), fmt, scale_bias, WIDE)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale_bias", [-126, -31, -1, 0, 1, 7, 24, 125, 126])
def test_all_values_of_16_bits(fmt, dtype, scale_bias):
    assert_as_reference(every_value(dtype), fmt, scale_bias, WIDE)


@pytest.mark.slow
@pytest.mark.parametrize("scale_bias", [-126, -9, 0, 9, 126])
def test_float32_of_any_bits(fmt, scale_bias):
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (1 << 16,), generator=draw).to(torch.int32).view(torch.float32)
    assert_as_reference(x, fmt, scale_bias, WIDE)


def test_ties_and_what_is_next_to_them(fmt):
    assert_as_reference(edges(fmt), fmt, 0, WIDE)


@pytest.mark.parametrize("scale_bias", [-126, -30, 5, 126])
def test_scales_move_the_edges(fmt, scale_bias):
    """At 126 the input is subnormal, and at -126 most edges are beyond float32: infinity."""
    with np.errstate(over="ignore"):
        moved = torch.from_numpy(np.ldexp(edges(fmt).double().numpy(), -scale_bias).astype(np.float32))
    assert_as_reference(moved, fmt, scale_bias, WIDE)


@pytest.mark.parametrize("size", [0, 1, 2, 31, 64, 65, 127, 128, 129, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ragged_sizes(size, dtype):
    """Several blocks of 64, the last one not full: what lies behind it is neither written nor counted."""
    room = torch.full((size + 200,), 3e4, dtype=dtype)
    room[:size] = normal(size).to(dtype)
    assert_as_reference(room[:size], FORMATS["e5m2"], 2, TritonCast(block=64))


LAYOUTS = {
    "scalar": lambda: torch.tensor(-0.3),
    "transposed": lambda: normal(5, 3).t(),
    "permuted": lambda: normal(2, 3, 4).permute(2, 0, 1),
    "strided slice": lambda: normal(9, 8)[1::3, ::2],
    "offset": lambda: normal(20)[3:],
    "expanded": lambda: normal(1, 4).expand(3, 4),
    "windows that overlap": lambda: normal(10).unfold(0, 4, 2),
    "empty columns": lambda: torch.empty(2, 0, 3).transpose(0, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_shape_and_strides(layout, dtype):
    made = LAYOUTS[layout]()
    x = torch.empty_strided(made.shape, made.stride(), dtype=dtype)
    x = x.copy_(made) if layout not in ("expanded", "windows that overlap") else made.to(dtype).expand(made.shape)
    assert_as_reference(x, FORMATS["e4m3fn"], 3, TritonCast(block=8))


@pytest.mark.parametrize("rule", [Amax(margin=1), Constant(3), Delayed(history=2)], ids=str)
def test_a_rule_between_two_launches_reads_no_number(rule, fmt):
    """As in a step on a GPU. Oracle: portable's cast, whose numbers are plain."""
    x, history = normal(33, 7), History(2)
    history.observe(torch.tensor(0.5))
    history.advance()
    expected = ops.quantize(x, fmt, rule, history=history, counts=True, exponents=True)
    backend = scaled_mm.ScaledMM(("e4m3fn", "e5m2"), TritonCast(block=64))
    choice = replace(table.choose("cpu"), name=scaled_mm.NAME, backend=backend)
    with mock.patch.object(table, "choose", return_value=choice), reading_is_an_error():
        q = ops.quantize(x, fmt, rule, history=history, counts=True, exponents=True)
    assert bits(q.codes) == bits(expected.codes)
    assert q.scale_bias == expected.scale_bias
    for name in ("amax", "saturated", "flushed", "nonfinite"):
        assert getattr(q.observed, name) == getattr(expected.observed, name), name
    assert torch.equal(q.observed.exponents, expected.observed.exponents)


def reading_is_an_error():
    """The interpreter reads memory, and no number of a tensor by torch."""
    return mock.patch.multiple(
        Tensor, item=_refuse, __bool__=_refuse, __int__=_refuse, __float__=_refuse, tolist=_refuse
    )


def _refuse(_):
    raise AssertionError("a number was read")


def test_only_what_is_asked_for():
    seen, encoded = WIDE.cast(normal(3), FORMATS["e4m3fn"], 0, counts=False, exponents=False)
    assert (seen.exponents, encoded.counts) == (None, None)
    assert WIDE.observe(normal(3), exponents=False).exponents is None
