"""The core as operators of torch.library. Oracles: torch's own opcheck; the eager result, bit for bit."""

import subprocess
import sys

import pytest
import torch
from tensors import normal
from torch import Tensor

from octoscale.kernels import ops, table
from octoscale.kernels.ops import Quantized
from octoscale.numerics.formats import FORMATS
from octoscale.numerics.scaling import Amax, Constant

pytest.importorskip("octoscale.kernels.operators", reason="the C++ core is not built")

pytestmark = [
    pytest.mark.skipif(table.choose("cpu").name != "native", reason="the C++ core does not serve this machine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, while it compiles
]

DTYPE = torch.float8_e4m3fn
BIAS = torch.tensor(3, dtype=torch.int32)


def codes_of(*shape: int) -> Tensor:
    return normal(*shape).to(DTYPE)


SAMPLES = {
    "observe": [(normal(5, 7), True), (normal(3).bfloat16(), False), (normal(4, 6).t()[1:], True)],
    "encode": [
        (normal(5, 7), torch.tensor(3.0), BIAS, DTYPE, True),
        (normal(4, 6).t()[1:], torch.tensor(3.0), BIAS, torch.float8_e5m2, False),
        (normal(4, 6).t(), torch.tensor(3.0), BIAS, DTYPE, False),
    ],
    "decode": [(codes_of(5, 7), BIAS, torch.float32), (codes_of(4, 6).t(), BIAS, torch.bfloat16)],
    "matmul": [
        (codes_of(5, 7), BIAS, codes_of(7, 3), BIAS, None, torch.float32),
        (codes_of(20, 7), BIAS, codes_of(3, 7).t(), BIAS, normal(3), torch.bfloat16),
        (normal(5, 7).bfloat16(), None, codes_of(3, 7).t(), BIAS, normal(3), torch.float16),
    ],
}


@pytest.mark.parametrize(("name", "sample"), [(name, i) for name, rows in SAMPLES.items() for i in range(len(rows))])
def test_opcheck(name, sample):
    """torch checks the shapes and strides of fake tensors, tracing, and, where it can compare inputs, the schema."""
    args = SAMPLES[name][sample]
    checks = ["test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    if not any(isinstance(arg, Tensor) and arg.dtype == DTYPE for arg in args):  # torch does not compare float8
        checks.append("test_schema")
    torch.library.opcheck(getattr(torch.ops.octoscale, name).default, args, test_utils=checks)


def product(x: Tensor, w: Quantized, rule: Amax | Constant) -> tuple[Tensor, ...]:
    """All operators, and everything that a cast observes."""
    q = ops.quantize(x, "e4m3fn", rule, counts=True, exponents=True)
    y = ops.matmul(q, w.t(), dtype=torch.bfloat16)
    seen = q.observed
    counts = (seen.amax, seen.saturated, seen.flushed, seen.nonfinite, seen.exponents)
    return (y, q.codes.view(torch.uint8), q.scale_bias, q.dequantize(torch.bfloat16), *counts)


@pytest.mark.parametrize("rule", [Amax(margin=1), Constant(2)], ids=str)
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compiled_without_graph_breaks(compiler, rule):
    torch.compiler.reset()
    x, w = normal(24, 70), ops.quantize(normal(9, 70), "e4m3fn", Amax())
    compiled = torch.compile(product, fullgraph=True, backend=compiler)
    for ours, eager in zip(compiled(x, w, rule), product(x, w, rule), strict=True):
        assert torch.equal(ours, eager)


def test_linear_compiles_too():
    torch.compiler.reset()
    x, w, bias = normal(2, 3, 70).bfloat16(), ops.quantize(normal(9, 70), "e4m3fn", Amax()), normal(9)
    compiled = torch.compile(ops.linear, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, w, bias), ops.linear(x, w, bias))


def test_fake_tensors_have_the_shapes_of_real_ones():
    """As torch.export and memory planners use them; nothing is computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    w = Quantized(codes=codes_of(9, 70), scale_bias=BIAS, format=FORMATS["e4m3fn"])
    with FakeTensorMode() as mode:
        q = ops.quantize(mode.from_tensor(normal(24, 70)), "e4m3fn", Amax(), counts=True)
        fake_w = Quantized(codes=mode.from_tensor(w.codes), scale_bias=mode.from_tensor(w.scale_bias), format=w.format)
        y = ops.matmul(q, fake_w.t(), dtype=torch.bfloat16)
    assert (q.codes.shape, q.codes.dtype, q.observed.saturated.shape) == ((24, 70), DTYPE, ())
    assert (y.shape, y.dtype) == ((24, 9), torch.bfloat16)


@pytest.mark.parametrize("transform", ["functionalize(cast)(x)", "grad(lambda x: (cast(x) * x).sum())(x)"])
def test_inside_a_transform_of_torch_func(transform):
    """Oracle: the values, which e4m3fn holds. In a process of its own: the core must not get a null address."""
    script = f"""
import torch
from torch.func import functionalize, grad
from octoscale.kernels import ops
from octoscale.numerics.scaling import Amax
cast, x = lambda x: ops.quantize(x, "e4m3fn", Amax()).dequantize(), torch.tensor([1.0, 2.0, 3.0, 4.0])
print({transform}.tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[1.0, 2.0, 3.0, 4.0]\n"), done.stderr[-300:]


def test_the_first_cast_of_a_process_may_be_a_compiled_one():
    """Nothing that eager mode would have filled in before is needed. Oracle: fullgraph raises."""
    script = """
import torch
from octoscale.kernels import ops
from octoscale.numerics.scaling import Amax
compiled = torch.compile(lambda x: ops.quantize(x, "e4m3fn", Amax()).dequantize(), fullgraph=True, backend="aot_eager")
print(compiled(torch.ones(2)).tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0, 1.0]\n"


def test_jit_trace_is_refused():
    """It would keep the scale of the tensor that it saw."""
    with pytest.raises(RuntimeError, match=r"use torch\.compile or export"):
        torch.jit.trace(lambda x: ops.quantize(x, "e4m3fn", Amax()).dequantize(), normal(4))
