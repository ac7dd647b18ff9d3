"""Triton's casts: what decides for them, and their bits (interpreted_triton.py). Oracles: the reference, triton itself.

And the plain form of the same, which torch.compile makes a kernel of: the bits of eager mode.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch
from implementations import HELD
from models import tiny_llama
from tensors import normal
from torch._subclasses.fake_tensor import FakeTensorMode

from octoscale.conversion.convert import convert
from octoscale.kernels import portable, scaled_mm, table
from octoscale.kernels.table import Choice
from octoscale.kernels.triton_cast import TritonCast
from octoscale.numerics.formats import FORMATS
from octoscale.numerics.recipe import parse_scaling
from octoscale.numerics.scaling import Amax

TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not TRITON, reason="triton is not installed")

ROOT = Path(__file__).resolve().parents[2]


def in_a_process(*words: str, **environment: str) -> str:
    """What Python prints, of an environment of its own; an exit code other than 0 shows all of it."""
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def interpreted(marker: str) -> str:
    file = Path(__file__).with_name("interpreted_triton.py")
    return in_a_process("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marker, str(file), TRITON_INTERPRET="1")


@needs_triton
def test_the_kernel_is_the_reference_in_the_interpreter():
    assert " passed" in interpreted("not slow")


@needs_triton
@pytest.mark.slow
def test_the_kernel_is_the_reference_in_the_interpreter_on_more():
    assert " passed" in interpreted("slow")


#: A GPU's backend, architecture, threads that go together, and what its program is called.
TARGETS = {
    "Ada": ("cuda", 89, 32, "cubin"),
    "Hopper": ("cuda", 90, 32, "cubin"),
    "Blackwell": ("cuda", 100, 32, "cubin"),
    "MI300": ("hip", "gfx942", 64, "hsaco"),
    "MI350": ("hip", "gfx950", 64, "hsaco"),
}

COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from octoscale.kernels.triton_cast import BLOCK, NUM_WARPS
from octoscale.kernels.triton_kernel import visit

parts = dict.fromkeys(("OBSERVE", "EXPONENTS", "ENCODE", "COUNT", "BIAS_IS_LOADED", "HAS_NEGATIVE_ZERO"), True)
e4m3fn = {"MANTISSA_BITS": 3, "MIN_EXPONENT": -6, "MAX_CODE": 126, "NAN_CODE": 127}
constants = {**parts, **e4m3fn, "NUM_BINS": 256, "BLOCK": BLOCK}
pointers = {"codes": "*u8", "scale_bias": "*i32", "amax": "*i32", "counts": "*i64", "exponents": "*i64", "num": "i64"}
for backend, arch, width, made in TARGETS:
    for dtype in DTYPES:
        signature = {"x": "*" + dtype, **pointers, **dict.fromkeys(constants, "constexpr")}
        source = ASTSource(visit, signature, constants)
        kernel = compile(source, target=GPUTarget(backend, arch, width), options={"num_warps": NUM_WARPS})
        print(len(kernel.asm[made]))
"""


@needs_triton
@pytest.mark.parametrize(
    ("names", "dtypes"),
    [(["Hopper", "MI300"], ["bf16"]), pytest.param([*TARGETS], ["fp32", "bf16", "fp16"], marks=pytest.mark.slow)],
)
def test_the_kernel_compiles_for_gpus_that_are_not_there(names, dtypes, tmp_path):
    """Oracle: triton's compiler and the assemblers that come with it, which need no device."""
    script = COMPILE.replace("TARGETS", repr([TARGETS[name] for name in names])).replace("DTYPES", repr(dtypes))
    sizes = in_a_process("-c", script, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0").split()
    assert len(sizes) == len(names) * len(dtypes)
    assert min(map(int, sizes)) > 1000


@pytest.fixture
def h100(monkeypatch):
    """A GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=0: (9, 0))


@needs_triton
@pytest.mark.usefixtures("h100")
def test_a_gpu_casts_by_triton_and_says_so(monkeypatch):
    import triton

    monkeypatch.setattr(triton.runtime.driver, "_active", mock.Mock())
    backend, reason = scaled_mm.make("cuda")
    assert backend.casts == TritonCast()
    assert f"; casts by Triton {triton.__version__}" in reason


def no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    return "import of triton halted; None in sys.modules"


def another_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    return "module 'triton' has no attribute 'runtime'"


def no_compiler(monkeypatch):
    """As triton 3.7.1 says it, which compiles a file of C before its first launch."""
    drivers = mock.MagicMock()
    type(drivers).active = mock.PropertyMock(side_effect=RuntimeError("Failed to find C compiler.\nSet CC."))
    monkeypatch.setitem(sys.modules, "triton", mock.Mock(runtime=mock.Mock(driver=drivers)))
    return "Failed to find C compiler."


@pytest.mark.usefixtures("h100")
@pytest.mark.parametrize("what", [no_triton, another_triton, no_compiler])
def test_a_gpu_without_triton_casts_by_plain_torch_and_says_why(what, monkeypatch):
    why = what(monkeypatch)
    backend, reason = scaled_mm.make("cuda")
    assert backend.casts is portable
    assert reason.endswith(f"; casts by plain torch: Triton does not serve this machine ({why})")


def test_a_cpu_casts_by_plain_torch():
    backend, reason = scaled_mm.make("cpu")
    assert backend.casts is portable
    assert "casts by plain torch: Triton serves CUDA and ROCm, not cpu" in reason


@pytest.fixture
def no_launch(monkeypatch):
    """Triton must not be given a tensor."""
    monkeypatch.setattr(TritonCast, "_launch", mock.Mock(side_effect=AssertionError("a launch")))


def all_of(casts, x, fmt):
    """The codes of a cast under AMAX and of one under a constant, with all that they saw."""
    seen = casts.observe(x, exponents=True)
    scale_bias = Amax().scale_bias(seen.amax, fmt)
    encoded = casts.encode(x, fmt, seen.amax, scale_bias, counts=True)
    once, constant = casts.cast(x, fmt, -5, counts=True, exponents=True)
    codes = (encoded.codes.view(torch.uint8), constant.codes.view(torch.uint8))
    numbers = (torch.as_tensor(seen.amax), torch.as_tensor(scale_bias), torch.as_tensor(once.amax))
    return (*codes, *numbers, encoded.counts, constant.counts, seen.exponents, once.exponents)


@pytest.mark.usefixtures("no_launch")
def test_what_has_no_memory_is_not_launched():
    with FakeTensorMode() as mode:
        codes, *_ = all_of(TritonCast(), mode.from_tensor(normal(5, 7)), FORMATS["e4m3fn"])
    assert (codes.shape, codes.dtype) == ((5, 7), torch.uint8)


@pytest.mark.usefixtures("no_launch")
@pytest.mark.parametrize("scaling", ["amax", "cscale:-1"])
def test_a_training_step_on_fake_tensors_launches_nothing_and_reads_nothing(scaling):
    """A Llama's, with the tensor cores' products. Oracle: torch raises where a fake tensor is asked for a value."""
    backend = scaled_mm.ScaledMM(("e4m3fn", "e5m2"), TritonCast())
    choice = Choice(name=scaled_mm.NAME, backend=backend, reason="a test")
    with table.instead("cpu", choice), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model = tiny_llama().train()
        convert(model, parse_scaling(scaling))
        ids = mode.from_tensor(torch.arange(24).view(2, 12))
        model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


INPUTS = {
    "finite": lambda: torch.cat([normal(500) * 2.0**e for e in (-40, -9, -3, 0, 5, 9)]),
    "bfloat16": lambda: torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16),
    "float16": lambda: torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16),
}


#: One is compiled in each run of the tests, the others take as long again.
CASES = [(name, fmt) for name in INPUTS for fmt in HELD]


@pytest.mark.usefixtures("no_launch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize(
    ("name", "fmt"),
    [pytest.param(*case, marks=[pytest.mark.slow] * (case != ("bfloat16", "e4m3fn"))) for case in CASES],
)
def test_a_compiler_makes_a_kernel_of_the_plain_form_with_the_same_bits(name, fmt):
    """Oracle: eager mode, whose casts are the reference's."""
    torch.compiler.reset()
    x = INPUTS[name]()
    casts = TritonCast()
    compiled = torch.compile(lambda x: all_of(casts, x, FORMATS[fmt]), fullgraph=True)
    for i, (found, expected) in enumerate(zip(compiled(x), all_of(portable, x, FORMATS[fmt]), strict=True)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, check_dtype=False, msg=str(i))
