"""The C++ core: every instruction set against the scalar one and against `reference`, threads, memory, selection.

What all backends share is in test_reference.py, test_ops.py and test_products.py. Here is what only the core can get
wrong: its blocks and tails, its tables, its threads, what it reads and writes at the edge of memory.
"""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st
from implementations import BACKENDS, HELD, using
from tensors import DTYPES, normal, rounded
from torch import Tensor

from octoscale.kernels import ops, table
from octoscale.numerics import reference
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.scaling import MAX_SCALE_BIAS, MIN_SCALE_BIAS, Amax, Constant

native = pytest.importorskip("octoscale.kernels.native", reason="the C++ core is not built")

NATIVE = [name for name in BACKENDS if name.startswith("native")]
VECTOR = [name for name in NATIVE if name != "native[scalar]"]


def outcome(name: str, x: Tensor, fmt: Format, rule: Amax | Constant) -> dict[str, Tensor]:
    """All that a cast returns."""
    with using(name):
        q = ops.quantize(x, fmt, rule, counts=True, exponents=True)
    return {"codes": q.codes.view(torch.uint8), "scale_bias": q.scale_bias, **vars(q.observed)}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for part, value in ours.items():
        torch.testing.assert_close(
            value, theirs[part], rtol=0, atol=0, equal_nan=True, msg=lambda text, p=part: f"{p}: {text}"
        )


# The data that csrc and the package both state


def test_formats_are_those_of_the_package():
    rows = [(f.name, f.exponent_bits, f.mantissa_bits, f.bias, f.max, f.nan_code) for f in HELD.values()]
    assert native._core.formats() == rows


def test_the_instruction_sets_begin_with_scalar():
    assert native.available()[0] == "scalar"
    assert native.available() == [isa for isa in native.ISAS if isa in native.available()]


# All float32 values. Oracle: reference.encode, which is monotonic: its steps are found by bisection


def magnitude_steps(fmt: Format) -> np.ndarray:
    """For each code 1..max_code, the bits of the smallest float32 that becomes it; then those of infinity."""
    steps = []
    for code in range(1, fmt.max_code + 1):
        low, high = 0, 0x7F7FFFFF  # low encodes below code, high does not
        while high - low > 1:
            middle = (low + high) // 2
            value = float(np.uint32(middle).view(np.float32))
            low, high = (middle, high) if reference.encode(value, fmt) < code else (low, middle)
        steps.append(high)
    return np.array([*steps, 0x7F800000], dtype=np.int64)


BINADE = 1 << 23  # the float32 values that share an exponent field and a sign


def expected_binade(field: int, steps: np.ndarray, fmt: Format) -> tuple[np.ndarray, dict[str, int], float]:
    """Codes, counts and amax of the positive values with this exponent field; only codes differ for negative ones."""
    first = field << 23
    if field == 255:
        return np.full(BINADE, fmt.nan_code, np.uint8), {"saturated": 0, "flushed": 0, "nonfinite": BINADE}, np.nan
    edges = np.clip(steps - first, 0, BINADE)
    codes = np.repeat(np.arange(fmt.max_code + 1, dtype=np.uint8), np.diff(edges, prepend=0))
    largest = int(np.float32(fmt.max).view(np.uint32))
    inside = lambda low, high: max(0, min(high, first + BINADE) - max(low, first))  # noqa: E731
    counts = {"saturated": inside(largest + 1, 0x7F800000), "flushed": inside(1, int(steps[0])), "nonfinite": 0}
    return codes, counts, float(np.uint32(first + BINADE - 1).view(np.float32))


def negated(codes: np.ndarray, fmt: Format) -> np.ndarray:
    """The codes of the negative values; NaN has one code, zero one or two."""
    unsigned = (codes == fmt.nan_code) | ((codes == 0) & (not fmt.has_negative_zero))
    return np.where(unsigned, codes, codes | 0x80)


@pytest.mark.slow
def test_all_float32_values(fmt):
    steps, offsets = magnitude_steps(fmt), torch.arange(BINADE, dtype=torch.int32)
    for field in range(256):
        codes, counts, amax = expected_binade(field, steps, fmt)
        exponents = torch.zeros(256, dtype=torch.int64)
        exponents[field] = BINADE
        for sign in (0, -1 << 31):
            x = (offsets | (field << 23) | sign).view(torch.float32)
            expected = torch.from_numpy(negated(codes, fmt) if sign else codes)
            for name in NATIVE:
                ours, where = outcome(name, x, fmt, Constant(0)), f"{name}, exponent field {field}, sign {sign}"
                assert torch.equal(ours["codes"], expected), where
                assert {key: int(ours[key]) for key in counts} == counts, where
                assert torch.equal(ours["exponents"], exponents), where
                np.testing.assert_equal(ours["amax"].item(), amax, err_msg=where)


# Large tensors: several blocks, several threads, sizes that nothing divides


def spread(num: int, dtype: torch.dtype) -> Tensor:
    """Values of all binades, with zeros and subnormals."""
    x = normal(num, seed=3) * torch.exp2(torch.randint(-60, 60, (num,), generator=torch.Generator().manual_seed(1)))
    x[::7] = 0
    x[1::97] = 1e-44
    return x.to(dtype)


LARGE = {
    "normal": lambda dtype: normal(300_001).to(dtype),
    "spread": lambda dtype: spread(200_003, dtype),
    "zeros, then normal": lambda dtype: torch.cat([torch.zeros(70_000), normal(130_000)]).to(dtype),
    "one NaN": lambda dtype: torch.cat([normal(150_000), torch.tensor([torch.nan]), normal(9)]).to(dtype),
    "one infinity": lambda dtype: torch.cat([torch.tensor([-torch.inf]), normal(150_000)]).to(dtype),
    "rows with a stride": lambda dtype: normal(400, 700).to(dtype)[::2, 3:600],
    "transposed": lambda dtype: normal(300, 400).to(dtype).t(),
    "tiny": lambda dtype: (normal(100_000) * 1e-39).to(dtype),
}


@pytest.mark.parametrize("rule", [Amax(), Constant(3), Constant(-120)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("values", LARGE)
@pytest.mark.parametrize("name", VECTOR)
def test_large_tensors_as_scalar(name, values, dtype, rule, fmt):
    """Oracle: the scalar core, on one thread; test_reference.py compares it with `reference`."""
    x, threads = LARGE[values](dtype), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = outcome("native[scalar]", x, fmt, rule)
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            assert_same(outcome(name, x, fmt, rule), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("values", LARGE)
@pytest.mark.parametrize("name", NATIVE)
def test_the_histogram_of_large_tensors(name, values):
    """Oracle: numpy on the bits."""
    x = LARGE[values](torch.float32)
    fields = (x.contiguous().view(torch.int32).numpy().astype(np.uint32) >> 23) & 0xFF
    ours = outcome(name, x, FORMATS["e4m3fn"], Amax())["exponents"]
    np.testing.assert_array_equal(ours.numpy(), np.bincount(fields.flatten(), minlength=256))


@pytest.mark.parametrize("name", NATIVE)
def test_flush_denormal_does_not_change_codes(name):
    """Oracle: the same cast without it. A subnormal times 2**126 is a normal number. (amax, a float, is flushed.)"""
    x = torch.tensor([1e-40, -3e-39, 1e-45] * 30000)
    expected = outcome(name, x, FORMATS["e5m2"], Constant(126))["codes"]
    assert torch.set_flush_denormal(True)
    try:
        flushed = outcome(name, x, FORMATS["e5m2"], Constant(126))["codes"]
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(flushed, expected)
    assert expected.count_nonzero() > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NATIVE)
def test_the_second_output_is_the_value_of_the_codes(name, dtype, fmt):
    """Oracle: torch's decoding, without the scale."""
    core = native.Native(name[7:-1])
    for scale in (Amax(), Constant(1)):
        x = normal(10_001).to(dtype)
        values = torch.empty(x.shape, dtype=torch.bfloat16)
        source, amax = native.Source(x, getattr(torch, fmt.torch_name)), float(x.float().abs().max())
        core.encode_rows(source, amax, scale.scale_bias(amax, fmt), counts=False, values=values)
        assert torch.equal(values, source.result.to(torch.bfloat16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NATIVE)
def test_every_code_at_every_scale(name, dtype, fmt):
    """Oracle: the reference value as a float64, scaled by numpy, rounded once."""
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, fmt.torch_name))
    scale_biases = range(MIN_SCALE_BIAS, MAX_SCALE_BIAS + 1)
    core, values = native.Native(name[7:-1]), np.array([reference.decode(code, fmt) for code in range(256)])
    ours = torch.stack([core.decode(codes, b, dtype) for b in scale_biases])
    expected = rounded(np.ldexp(values, -np.array(scale_biases)[:, None]), dtype)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(ours.signbit() & ~ours.isnan(), expected.signbit() & ~expected.isnan())


LARGE_CODES = {
    "flat": lambda codes: codes[:300_001],
    "rows with a stride": lambda codes: codes[:300_000].view(500, 600)[::2, 5:598],
    "transposed": lambda codes: codes[:300_000].view(500, 600).t(),
    "every third": lambda codes: codes[::3],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LARGE_CODES)
@pytest.mark.parametrize("name", VECTOR)
def test_decoding_of_large_tensors_as_scalar(name, layout, dtype, fmt):
    """Oracle: the scalar core, on one thread; test_every_code_at_every_scale compares it with `reference`."""
    num = torch.arange(300_007, dtype=torch.int64)
    codes = LARGE_CODES[layout]((num * 37 % 251).to(torch.uint8).view(getattr(torch, fmt.torch_name)))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = native.Native("scalar").decode(codes, 3, dtype)
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            ours = native.Native(name[7:-1]).decode(codes, 3, dtype)
            torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    finally:
        torch.set_num_threads(threads)


# The edge of memory


@pytest.mark.parametrize("size", [1, 7, 31, 32, 33, 63, 64, 65, 127, 129, 4097])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NATIVE)
def test_nothing_is_read_or_written_behind_a_tensor(name, dtype, size):
    """A page fault would kill the process. Oracle for the rest: the same tensor elsewhere."""
    x = normal(size).to(dtype)
    core = native.Native(name[7:-1])
    source = native.Source(guarded(x), torch.float8_e4m3fn)
    source.result = guarded(source.result.view(torch.uint8)).view(torch.float8_e4m3fn)
    seen = core.observe_rows(source, exponents=True)
    core.encode_rows(source, seen.amax, 2, counts=True)
    with using(name):
        expected = ops.quantize(x, "e4m3fn", Constant(2))
    assert torch.equal(source.result.view(torch.uint8), expected.codes.view(torch.uint8))
    back = native.Source(source.result, dtype)
    back.result = guarded(back.result)
    core.decode_rows(back, 2)
    assert torch.equal(back.result, expected.dequantize(dtype))


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 1, 1), (1, 65, 3), (3, 130, 17), (16, 63, 5), (17, 65, 66), (70, 33, 65)]
)
@pytest.mark.parametrize("a_by_column", [False, True])
@pytest.mark.parametrize("b_by_column", [False, True])
@pytest.mark.parametrize("name", NATIVE)
def test_products_read_only_their_operands(name, m, k, n, a_by_column, b_by_column):
    """As above, for matrices of every layout; a as codes and as bfloat16."""
    a, b = (ops.quantize(normal(*shape), "e4m3fn", Amax()).codes.view(torch.uint8) for shape in ((m, k), (k, n)))
    wide = normal(m, k).bfloat16()
    place = lambda x, by_column: guarded(x.t().contiguous()).t() if by_column else guarded(x)  # noqa: E731
    core, fmt, zero = native.Native(name[7:-1]), FORMATS["e4m3fn"], torch.tensor(0, dtype=torch.int32)
    bias = guarded(normal(n))
    b_placed = ops.Quantized(codes=place(b, b_by_column).view(torch.float8_e4m3fn), scale_bias=zero, format=fmt)
    for left in (a.view(torch.float8_e4m3fn), wide):
        raw = left.view(torch.uint8) if left.dtype != torch.bfloat16 else left
        left_placed = place(raw, a_by_column).view(left.dtype)
        if left is not wide:
            left_placed = ops.Quantized(codes=left_placed, scale_bias=zero, format=fmt)
        out = core.matmul(left_placed, b_placed, bias, torch.float32)
        expected = left.double() @ b.view(torch.float8_e4m3fn).double() + bias.double()
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-2)


class Fenced:
    """Memory for a result, off a vector's alignment, with bytes on both sides that nothing may change."""

    def __init__(self, num: int, dtype: torch.dtype) -> None:
        size, self._first = num * dtype.itemsize, 64 + dtype.itemsize
        self._whole = torch.full((self._first + size + 200,), 0xA5, dtype=torch.uint8)
        self._last = self._first + size
        self.result = self._whole[self._first : self._last].view(dtype)

    def is_whole(self) -> bool:
        return bool((self._whole[: self._first] == 0xA5).all() and (self._whole[self._last :] == 0xA5).all())


@pytest.mark.parametrize("num", [1, 31, 63, 65, 4097, 70_001])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NATIVE)
def test_nothing_is_written_around_the_results(name, dtype, num):
    """Oracle for what is written between the fences: `outcome`, elsewhere in memory."""
    x, isa, kind = normal(num).to(dtype), native.ISAS.index(name[7:-1]), native._DTYPES[dtype]
    codes, values = Fenced(num, torch.uint8), Fenced(num, torch.bfloat16)
    counts, bins, back = Fenced(3, torch.int64), Fenced(256, torch.int64), Fenced(num, dtype)
    addresses = [fence.result.data_ptr() for fence in (codes, values, counts, bins)]
    native._core.cast(isa, x.data_ptr(), kind, 1, num, num, 0, 8, *addresses, 2)
    native._core.decode(isa, addresses[0], 0, 1, num, num, 8, back.result.data_ptr(), kind, 2)
    assert all(fence.is_whole() for fence in (codes, values, counts, bins, back))
    expected = outcome(name, x, FORMATS["e4m3fn"], Constant(8))
    assert torch.equal(codes.result, expected["codes"])
    assert torch.equal(values.result, codes.result.view(torch.float8_e4m3fn).bfloat16())
    assert counts.result.tolist() == [int(expected[part]) for part in ("saturated", "flushed", "nonfinite")]
    assert torch.equal(bins.result, expected["exponents"])
    assert torch.equal(back.result, rounded(values.result.double().numpy() / 256, dtype))


@given(data=st.data())
def test_any_view_gives_the_codes_of_its_copy(data):
    """Oracle: x.contiguous(), on the scalar core."""
    storage = normal(200, seed=5)
    ndim = data.draw(st.integers(0, 4))
    shape = [data.draw(st.integers(0, 4)) for _ in range(ndim)]
    strides = [data.draw(st.integers(0, 9)) for _ in range(ndim)]
    x = storage.as_strided(shape, strides, data.draw(st.integers(0, 20)))
    fmt, name = data.draw(st.sampled_from(list(HELD.values()))), data.draw(st.sampled_from(NATIVE))
    expected = outcome("native[scalar]", x.contiguous(), fmt, Amax())
    assert_same(outcome(name, x, fmt, Amax()), expected)


@given(data=st.data())
def test_larger_views_give_the_codes_of_their_copy(data):
    """As above, with rows that fill vectors and tails, in every dtype, on every instruction set."""
    dtype = data.draw(st.sampled_from(DTYPES))
    sizes = [data.draw(st.sampled_from([1, 2, 5])), *(data.draw(st.sampled_from([1, 3, 31, 70, 133])) for _ in "mn")]
    strides = [data.draw(st.sampled_from([0, 1, 2, 70, 133, 140])) for _ in sizes]
    x = normal(40_000, seed=6).to(dtype).as_strided(sizes, strides, data.draw(st.integers(0, 3)))
    fmt = data.draw(st.sampled_from(list(HELD.values())))
    expected = outcome("native[scalar]", x.contiguous(), fmt, Amax())
    for name in NATIVE:
        assert_same(outcome(name, x, fmt, Amax()), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NATIVE)
def test_a_negated_view_is_cast_with_its_sign(name, dtype):
    """Oracle: the same values, copied. The memory of z.conj().imag holds them with the other sign."""
    public = torch.tensor([1 + 2j]).conj().imag
    for x in (torch._neg_view(normal(100).to(dtype)), torch._neg_view(normal(9, 70).to(dtype))[::2, 3:], public):
        assert x.is_neg()
        for rule in (Amax(), Constant(2)):
            assert_same(outcome(name, x, FORMATS["e4m3fn"], rule), outcome(name, x.clone(), FORMATS["e4m3fn"], rule))


@pytest.mark.parametrize("name", NATIVE)
def test_negated_operands_of_a_product(name):
    """Oracle: the product of copies."""
    x, bias = torch._neg_view(normal(3, 70).bfloat16()), torch._neg_view(normal(5))
    with using(name):
        w = ops.quantize(normal(5, 70), "e4m3fn", Amax())
        assert torch.equal(ops.linear(x, w, bias), ops.linear(x.clone(), w, bias.clone()))


# Threads


def test_there_is_one_openmp_pool():
    """Oracle: threadpoolctl, where nothing but torch and the package is loaded: other wheels bring pools."""
    script = """
import torch
from threadpoolctl import threadpool_info
from octoscale.kernels import ops
from octoscale.kernels import native
from octoscale.numerics.scaling import Amax
ops.quantize(torch.ones(4_000_000), "e4m3fn", Amax())
print(native.has_pool, len({row["filepath"] for row in threadpool_info() if row["user_api"] == "openmp"}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "1"]


def test_one_thread_means_one():
    """Oracle: the threads that the system counts."""
    script = """
import os, torch
from octoscale.kernels import ops
from octoscale.numerics.scaling import Amax
torch.set_num_threads(1)
ops.quantize(torch.ones(4_000_000), "e4m3fn", Amax())
before = len(os.listdir("/proc/self/task"))
torch.set_num_threads(3)
ops.quantize(torch.ones(4_000_000), "e4m3fn", Amax())
print(before, len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before == 2


def long_calls() -> dict[str, Callable[[], object]]:
    """Calls of the core that take milliseconds, on one thread of its own."""
    x = torch.ones(1 << 22)
    codes, out = torch.zeros(1 << 22, dtype=torch.uint8), torch.empty(1 << 22)
    flat, matrix = (1, x.numel(), x.numel()), (codes.data_ptr(), 0, 128, 1)
    core = native._core
    return {
        "observe": lambda: core.observe(0, x.data_ptr(), 0, *flat, 0, 1),
        "encode": lambda: core.encode(0, x.data_ptr(), 0, *flat, 1.0, 0, 0, codes.data_ptr(), 0, 0, 1),
        "cast": lambda: core.cast(0, x.data_ptr(), 0, *flat, 0, 0, codes.data_ptr(), 0, 0, 0, 1),
        "decode": lambda: core.decode(0, codes.data_ptr(), 0, *flat, 0, out.data_ptr(), 0, 1),
        "matmul": lambda: core.matmul(0, *matrix, *matrix, 128, 128, 128, 0, 0, 0, out.data_ptr(), 0, 1),
    }


@pytest.mark.parametrize("call", ["observe", "encode", "cast", "decode", "matmul"])
def test_python_runs_while_the_core_does(call):
    """Oracle: another thread counts during the call, and not during one that is known to keep the interpreter's lock.

    A thread that waits for the lock normally takes it after some milliseconds, and would count before and after the
    call whatever that does. With a long switch interval it gets the lock only where it is given away.
    """
    ticks, counting, stop = [0], threading.Event(), threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            counting.set()
            time.sleep(1e-5)

    def ticks_during(call: Callable[[], object]) -> int:
        before = ticks[0]
        call()
        return ticks[0] - before

    calls, keeps_the_lock = long_calls(), ctypes.PyDLL(None).usleep
    interval, thread = sys.getswitchinterval(), threading.Thread(target=tick)
    try:
        sys.setswitchinterval(1000)
        thread.start()
        counting.wait()
        assert ticks_during(lambda: keeps_the_lock(20_000)) == 0
        assert any(ticks_during(calls[call]) for _ in range(200))  # a busy machine may not run the thread at once
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


# Which backend


def choice_with(**environment: str) -> str:
    """Name and reason of the backend in a new process."""
    script = "from octoscale.kernels.table import choose; c = choose('cpu'); print(c.name, '|', c.reason)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_the_environment_names_an_instruction_set():
    for isa in native.available():
        assert choice_with(OCTOSCALE_ISA=isa).startswith(f"native | the C++ core with {isa}, forced by OCTOSCALE_ISA")
    assert (
        choice_with(OCTOSCALE_ISA="mmx")
        == "octoscale.system.errors.UserError: OCTOSCALE_ISA=mmx: the instruction sets are scalar, avx2, avx512, amx"
    )


def test_the_environment_names_a_backend():
    assert choice_with(OCTOSCALE_BACKEND="portable").startswith("portable | OCTOSCALE_BACKEND=portable; plain torch")
    assert (
        choice_with(OCTOSCALE_BACKEND="cpp")
        == "octoscale.system.errors.UserError: OCTOSCALE_BACKEND=cpp: the backends are native, scaled_mm, portable"
    )


@pytest.fixture
def fresh_choice(monkeypatch):
    """`choose` without what it remembers, before and after."""
    monkeypatch.delenv("OCTOSCALE_ISA", raising=False)
    monkeypatch.delenv("OCTOSCALE_BACKEND", raising=False)
    table._choices.clear()
    yield
    table._choices.clear()


@pytest.mark.usefixtures("fresh_choice")
def test_an_instruction_set_that_this_cpu_lacks(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: ["scalar", "avx2"])
    monkeypatch.setenv("OCTOSCALE_ISA", "avx512")
    with pytest.raises(ValueError, match="OCTOSCALE_ISA=avx512: this CPU, or this build, runs only scalar, avx2"):
        table.choose("cpu")


@pytest.mark.usefixtures("fresh_choice")
def test_without_vector_instructions_plain_torch_is_faster(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: ["scalar"])
    choice = table.choose("cpu")
    assert choice.name == "portable"
    assert "no vector instructions for this CPU" in choice.reason
    table._choices.clear()
    monkeypatch.setenv("OCTOSCALE_ISA", "scalar")
    assert table.choose("cpu").name == "native"


@pytest.mark.usefixtures("fresh_choice")
def test_without_a_core_plain_torch_serves_and_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    choice = table.choose("cpu")
    assert choice.name == "portable"
    assert choice.reason.startswith(
        "the C++ core was not built when octoscale was installed (it needs a C++17 compiler)"
    )


@pytest.mark.usefixtures("fresh_choice")
def test_a_core_that_cannot_serve_is_not_forced(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("OCTOSCALE_BACKEND", "native")
    with pytest.raises(
        ValueError, match=r"no backend serves cpu: OCTOSCALE_BACKEND=native; the C\+\+ core was not built"
    ):
        table.choose("cpu")
