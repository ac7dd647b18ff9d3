"""The seams of the waist: the rule stands between two kernels, and operands bring their scales.

Oracles: a backend that writes down what it is asked, and the reference on its numbers.
"""

from dataclasses import dataclass, field, replace
from unittest import mock

import pytest
import torch
from implementations import BACKENDS
from tensors import normal

from octoscale.kernels import ops, portable, table
from octoscale.kernels.base import Seen
from octoscale.numerics.formats import FORMATS
from octoscale.numerics.granularity import ROW, TENSOR
from octoscale.numerics.scaling import Amax, Constant, Delayed, History
from octoscale.system.errors import UserError


@dataclass
class Watched:
    """A backend that writes down its calls; what it observes can be changed, as a reduction over ranks would."""

    inner: object = portable
    amax: float | None = None
    calls: list = field(default_factory=list)
    granularities = (TENSOR,)

    def observe(self, x, *, exponents):
        self.calls.append("observe")
        seen = self.inner.observe(x, exponents=exponents)
        return seen if self.amax is None else Seen(self.amax, seen.exponents)

    def encode(self, x, fmt, amax, scale_bias, *, counts):
        self.calls.append(("encode", fmt.name, amax, scale_bias))
        return self.inner.encode(x, fmt, amax, scale_bias, counts=counts)

    def cast(self, x, fmt, scale_bias, *, counts, exponents):
        self.calls.append(("cast", fmt.name, scale_bias))
        return self.inner.cast(x, fmt, scale_bias, counts=counts, exponents=exponents)

    def dequantize(self, q, dtype):
        self.calls.append(("dequantize", q))
        return self.inner.dequantize(q, dtype)

    def matmul(self, a, b, bias_N, dtype, *, fast=False):
        self.calls.append(("matmul", a, b))
        return self.inner.matmul(a, b, bias_N, dtype, fast=fast)

    def in_columns(self, codes_KN):
        return self.inner.in_columns(codes_KN)


@pytest.fixture
def serve(monkeypatch):
    """Let a backend serve the CPU."""

    def put(backend):
        choice = replace(table.choose("cpu"), name="watched", backend=backend)
        monkeypatch.setattr(table, "choose", mock.Mock(return_value=choice))
        return backend

    return put


@pytest.mark.parametrize("inner", BACKENDS)
def test_the_rule_stands_between_what_is_observed_and_what_is_encoded(serve, inner):
    """A changed amax changes the scale, and no backend is asked for a rule. Plain numbers: this is a CPU."""
    x, backend = torch.tensor([1.5, -3.0]), serve(Watched(BACKENDS[inner]))
    assert ops.quantize(x, "e4m3fn", Amax()).scale_bias.item() == 7
    backend.amax = 3.0 * 2**4
    q = ops.quantize(x, "e4m3fn", Amax(margin=1))
    assert backend.calls == ["observe", ("encode", "e4m3fn", 3.0, 7), "observe", ("encode", "e4m3fn", 48.0, 2)]
    assert (q.scale_bias.item(), q.observed.amax.item()) == (2, 48.0)
    assert q.dequantize().tolist() == x.tolist()


def test_a_constant_takes_one_visit(serve):
    backend = serve(Watched())
    q = ops.quantize(torch.tensor([1.0]), "e5m2", Constant(-3))
    assert backend.calls == [("cast", "e5m2", -3)]
    assert (q.scale_bias.item(), q.scale_bias.dtype, q.observed.amax.item()) == (-3, torch.int32, 1.0)


def test_a_history_decides_between_the_two(serve):
    backend, history = serve(Watched()), History(4, [2.0**-8])
    ops.quantize(torch.tensor([1.0]), "e4m3fn", Delayed(history=4), history=history)
    assert backend.calls == ["observe", ("encode", "e4m3fn", 1.0, 16)]


def test_a_product_gets_both_operands_with_their_scales(serve):
    a, b = (ops.quantize(normal(*shape), "e4m3fn", Amax()) for shape in ((3, 4), (4, 5)))
    backend = serve(Watched())
    ops.matmul(a, b)
    ops.linear(a, b.t())
    ops.linear(normal(3, 4).bfloat16(), b.t())
    operands = [(left, right) for name, left, right in backend.calls]
    assert operands[0] == (a, b)
    assert [left.scale_bias for left, _ in operands[:2]] == [a.scale_bias] * 2
    assert all(right.scale_bias is b.scale_bias for _, right in operands)
    assert isinstance(operands[2][0], torch.Tensor)


def test_a_granularity_that_a_backend_does_not_multiply_is_refused(serve):
    """Silence would multiply with the first row's scale. The backend knows one scale a tensor, and no other."""
    codes = torch.zeros(3, 3, dtype=torch.float8_e4m3fn)
    one = torch.zeros((), dtype=torch.int32)
    by_row = ops.Quantized(codes=codes, scale_bias=one.expand(3, 1), format=FORMATS["e4m3fn"], granularity=ROW)
    plain = ops.Quantized(codes=codes, scale_bias=one, format=FORMATS["e4m3fn"])
    serve(Watched())
    for what in (
        lambda: ops.matmul(by_row, plain),
        lambda: ops.matmul(plain, by_row),
        lambda: ops.linear(torch.zeros(1, 3).bfloat16(), by_row),
        lambda: ops.quantize(normal(3, 3), "e4m3fn", Amax(granularity="row")),
        by_row.dequantize,
    ):
        with pytest.raises(UserError, match="takes scales of granularity tensor, not row; OCTOSCALE_BACKEND=portable"):
            what()


def test_scales_have_the_shape_that_the_granularity_says():
    codes, fmt = torch.zeros(2, 3, dtype=torch.float8_e4m3fn), FORMATS["e4m3fn"]
    for bias in (torch.zeros(2, dtype=torch.int32), torch.zeros((), dtype=torch.int64)):
        with pytest.raises(TypeError, match="scale_bias is an int32 tensor without dimensions, not"):
            ops.Quantized(codes=codes, scale_bias=bias, format=fmt)
    with pytest.raises(TypeError, match=r"scale_bias is an int32 tensor of shape \[2, 1\], by row, not int32 \[\]"):
        ops.Quantized(codes=codes, scale_bias=torch.zeros((), dtype=torch.int32), format=fmt, granularity=ROW)
