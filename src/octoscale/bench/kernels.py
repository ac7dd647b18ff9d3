"""How fast the casts and products are: beside what else there is, in one process, and beside the machine's limits.

Candidates take turns, so that whatever else the machine does hits all of them, and the median of many turns counts.
Absolute numbers do not carry over to another machine; `ratios` do. Nothing else should run meanwhile.

The limits are measured too. A cast under FP8-AMAX reads its input twice and writes the codes once; a product of one
row reads the weights once: at best both run at the read bandwidth. A product of many rows runs at best at the rate of
the CPU's bfloat16 dot products.
"""

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from octoscale.kernels import ops, portable, table
from octoscale.kernels.base import Backend
from octoscale.kernels.ops import Quantized
from octoscale.numerics.formats import get_format
from octoscale.numerics.granularity import along, get_granularity
from octoscale.numerics.scaling import Amax
from octoscale.system.heap import keep_freed_memory
from octoscale.system.machine import cpu_name

Candidates = dict[str, Callable[[], object]]
Report = dict[str, Any]

QUANTIZE_SIZE = 1 << 26
#: Values in a row of what is cast with a scale for each group.
ROW_LENGTH = 4096
DECODE_SHAPE, PREFILL_SHAPE = (1, 4096, 11008), (512, 2048, 5632)  # rows, input features, output features
#: Rows and columns of the square matrices whose product tells the rate of torch.
RATE_SIZE = 2048
ROUNDS = 15
#: Seconds of a product from which on a candidate is estimated, from those of so many of its rows.
TOO_SLOW = 1.0
ROWS_OF_ESTIMATE = (8, 64)


def quantize(size: int = QUANTIZE_SIZE, rounds: int = ROUNDS) -> Report:
    """float32 -> e4m3fn under FP8-AMAX, `size` values: seconds of each candidate, limits, ratios."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    plain: dict[str, bool] = {"counts": False, "exponents": False}
    ours = {name: partial(_cast, backend, x, counts=True, exponents=False) for name, backend in _ours().items()}
    best = _ours()[_best()]
    candidates: Candidates = {
        "read bandwidth": partial(torch.sum, x),
        "torch eager": partial(_cast_by_torch, x),
        **({"torchao": _cast_by_torchao(x)} if has("torchao") else {}),
        **({"ml_dtypes": _cast_by_ml_dtypes(x)} if has("ml_dtypes") else {}),
        **ours,
        "ours, nothing counted": partial(_cast, best, x, **plain),
        "ours, counts and histogram": partial(_cast, best, x, counts=True, exponents=True),
    }
    seconds = alternate(candidates, rounds)
    bandwidth = 4 * size / seconds["read bandwidth"]
    limit = 9 * size / bandwidth
    mine = seconds[_best()]
    return {
        "what": f"{size} values, float32 -> e4m3fn, amax, counts",
        "machine": machine(),
        "seconds": seconds,
        "limits": {"read_GB_per_s": bandwidth / 1e9, "milliseconds": limit * 1e3},
        "ratios": {
            "speedup_over_torch_eager": seconds["torch eager"] / mine,
            "speedup_over_torchao": seconds["torchao"] / mine if "torchao" in seconds else None,
            "fraction_of_limit": limit / mine,
            "telemetry_overhead": seconds["ours, counts and histogram"] / seconds["ours, nothing counted"] - 1,
        },
    }


def quantize_groups(granularity: str, size: int = QUANTIZE_SIZE, rounds: int = ROUNDS) -> Report:
    """The same with a scale for each group of a matrix of rows of `ROW_LENGTH`, beside one for the tensor.

    The limit is another: a group stays in a cache until its scale is known, so that values are read once, written once.
    It is ours alone, so results go to memory that is kept, as in all commands that cast; `quantize` has others beside
    it, as their users get them: each result in fresh pages, which the system clears first.
    """
    keep_freed_memory()
    x = torch.randn(size // ROW_LENGTH, ROW_LENGTH, generator=torch.Generator().manual_seed(0))
    rule, groups, best = Amax(granularity=granularity), get_granularity(granularity), _ours()[_best()]

    def cast(backend: Backend, *, counts: bool = True, exponents: bool = False) -> Callable[[], object]:
        return partial(backend.cast_groups, x, get_format("e4m3fn"), rule, groups, counts=counts, exponents=exponents)

    seconds = alternate(
        {
            "read bandwidth": partial(torch.sum, x),
            "ours, a scale a tensor": partial(_cast, best, x, counts=True, exponents=False),
            **{name: cast(backend) for name, backend in _ours().items()},
            "ours, nothing counted": cast(best, counts=False),
            "ours, counts and histogram": cast(best, exponents=True),
        },
        rounds,
    )
    bandwidth = 4 * x.numel() / seconds["read bandwidth"]
    limit, mine = 5 * x.numel() / bandwidth, seconds[_best()]
    return {
        "what": f"{x.numel()} values, float32 -> e4m3fn, {rule}, counts",
        "machine": machine(),
        "seconds": seconds,
        "limits": {"read_GB_per_s": bandwidth / 1e9, "milliseconds": limit * 1e3},
        "ratios": {
            "speedup_over_torch_eager": seconds["portable"] / mine,
            "fraction_of_limit": limit / mine,
            "time_over_tensor": mine / seconds["ours, a scale a tensor"],
            "telemetry_overhead": seconds["ours, counts and histogram"] / seconds["ours, nothing counted"] - 1,
        },
    }


def linear(
    decode_shape: tuple[int, int, int] = DECODE_SHAPE,
    prefill_shape: tuple[int, int, int] = PREFILL_SHAPE,
    rounds: int = ROUNDS,
    rate_size: int = RATE_SIZE,
) -> Report:
    """`x @ w^T` in e4m3fn beside bfloat16: one row (reading weights is all) and many rows (arithmetic is all).

    W8A8 casts the input too, as part of its time; W8A16, what one row is served with, leaves it in bfloat16. One row
    takes several weights in turn, so that none stays in a cache. rate_size: of the square matrices whose product tells
    torch's rate.
    """
    decode, bandwidth = _decode(decode_shape, rounds)
    prefill, rate, how = _prefill(prefill_shape, rounds, rate_size)
    _, in_features, out_features = decode_shape
    codes = in_features * out_features / bandwidth
    return {
        "what": f"decode: {_words(decode_shape)}; prefill: {_words(prefill_shape)}; bfloat16 in and out",
        "machine": machine(),
        "seconds": {"decode": decode, "prefill": prefill},
        "estimated": {row: how for row in ("prefill: torch._scaled_mm", "prefill_speedup_over_scaled_mm") if how},
        "limits": {"read_GB_per_s": bandwidth / 1e9, "bf16_GFLOP_per_s": rate / 1e9},
        "ratios": {
            "decode_fraction_of_bandwidth": codes / decode["W8A16"],
            "decode_speedup_over_bf16": decode["F.linear bf16"] / decode["W8A16"],
            "decode_W8A8_fraction_of_bandwidth": codes / decode["W8A8"],
            "decode_W8A8_speedup_over_bf16": decode["F.linear bf16"] / decode["W8A8"],
            "prefill_time_over_bf16": prefill["W8A8"] / prefill["F.linear bf16"],
            "prefill_W8A16_time_over_bf16": prefill["W8A16"] / prefill["F.linear bf16"],
            "prefill_speedup_over_scaled_mm": prefill["torch._scaled_mm"] / prefill["W8A8"],
            "prefill_fraction_of_bf16_rate": _flops(prefill_shape) / prefill["W8A8"] / rate,
        },
    }


def linear_groups(
    granularity: str,
    decode_shape: tuple[int, int, int] = DECODE_SHAPE,
    prefill_shape: tuple[int, int, int] = PREFILL_SHAPE,
    rounds: int = ROUNDS,
) -> Report:
    """`x @ w^T` in e4m3fn with a scale for each group, the cast of x included, beside one a tensor and bfloat16."""
    rules = {"a scale a tensor": Amax(), granularity: Amax(granularity=granularity)}
    seconds = {}
    for what, shape in (("decode", decode_shape), ("prefill", prefill_shape)):
        x, (weight,) = _operands(shape, copies=1)
        candidates: Candidates = {"F.linear bf16": partial(functional.linear, x, weight)}
        for name, rule in rules.items():
            of_weight = along(rule.granularity, "weight")
            candidates[name] = partial(_w8a8, x, ops.quantize(weight, "e4m3fn", rule, granularity=of_weight), rule)
        seconds[what] = alternate(candidates, rounds)
    return {
        "what": f"decode: {_words(decode_shape)}; prefill: {_words(prefill_shape)}; {rules[granularity]}",
        "machine": machine(),
        "seconds": seconds,
        "ratios": {
            f"{what}_time_over_{name}": found[granularity] / found[other]
            for what, found in seconds.items()
            for name, other in (("tensor", "a scale a tensor"), ("bf16", "F.linear bf16"))
        },
    }


def machine() -> Report:
    """What this machine is and which backend serves it: the facts behind every figure."""
    choice = table.choose("cpu")
    return {
        "octoscale": version("octoscale"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "backend": choice.name,
        "reason": choice.reason,
        "instruction_sets": _instruction_sets(),
        "date": time.strftime("%Y-%m-%d"),
    }


def alternate(candidates: Candidates, rounds: int) -> dict[str, float]:
    """The median seconds of each candidate, run in turns, after one turn that is not counted."""
    return {name: statistics.median(seconds) for name, seconds in turns(candidates, rounds).items()}


def turns(candidates: Candidates, rounds: int) -> dict[str, list[float]]:
    """The seconds of each candidate in each turn, but for a first one, which is not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, seconds in zip(candidates, _seconds_of(*candidates.values()), strict=True):
            times[name].append(seconds)
    return {name: seconds[1:] for name, seconds in times.items()}


def time_over(other: Callable[[], object], candidate: Callable[[], object], rounds: int) -> float:
    """The least seconds of `candidate` over those of `other`, each as often first as second; for small differences.

    What a shared host adds, up to half of a step, is never negative: medians of tens of steps differ by 7 %, minima of
    the same steps by 0.1 %.
    """
    seconds = [
        _seconds_of(other, candidate) if i % 2 else _seconds_of(candidate, other)[::-1] for i in range(2 * rounds)
    ]
    return min(ours for _, ours in seconds) / min(theirs for theirs, _ in seconds)


def _seconds_of(*candidates: Callable[[], object]) -> list[float]:
    """What each takes, one after the other."""
    seconds = []
    for candidate in candidates:
        start = time.perf_counter()
        candidate()
        seconds.append(time.perf_counter() - start)
    return seconds


def _decode(shape: tuple[int, int, int], rounds: int) -> tuple[dict[str, float], float]:
    """Seconds of one product of few rows, and the read bandwidth in bytes a second."""
    x, weights = _operands(shape, copies=4)
    codes = [ops.quantize(weight, "e4m3fn", Amax()) for weight in weights]

    def one_after_the_other(multiply: Callable[[int], object]) -> Callable[[], None]:
        def run() -> None:
            for i in range(len(weights)):
                multiply(i)

        return run

    probe = torch.randn(1 << 26)
    seconds = alternate(
        {
            "read bandwidth": partial(torch.sum, probe),
            "F.linear bf16": one_after_the_other(lambda i: functional.linear(x, weights[i])),
            "W8A8": one_after_the_other(lambda i: _w8a8(x, codes[i])),
            "W8A16": one_after_the_other(lambda i: ops.linear(x, codes[i])),
        },
        rounds,
    )
    bandwidth = 4 * probe.numel() / seconds.pop("read bandwidth")
    return {name: value / len(weights) for name, value in seconds.items()}, bandwidth


def _prefill(shape: tuple[int, int, int], rounds: int, rate_size: int) -> tuple[dict[str, float], float, str]:
    """Seconds of one product of many rows; torch's bfloat16 operations a second; from what one was estimated, or ""."""
    x, (weight,) = _operands(shape, copies=1)
    w8 = ops.quantize(weight, "e4m3fn", Amax())
    x8, one = ops.quantize(x, "e4m3fn", Amax()), torch.ones(())
    square = torch.randn(rate_size, rate_size).bfloat16()

    def scaled_mm(num_rows: int) -> Tensor:
        codes = x8.codes[:num_rows]
        return torch._scaled_mm(codes, w8.codes.t(), one, one, out_dtype=torch.bfloat16)

    candidates: Candidates = {
        "bf16 GEMM": partial(torch.mm, square, square),
        "F.linear bf16": partial(functional.linear, x, weight),
        "W8A8": partial(_w8a8, x, w8),
        "W8A16": partial(ops.linear, x, w8),
        "torch._scaled_mm": partial(scaled_mm, len(x)),
    }
    # Where oneDNN has no kernel for it (torch 2.13 on CPUs with AMX), a loop takes minutes: then a few rows must do.
    estimate = seconds_by_slope(scaled_mm, len(x))
    if estimate > TOO_SLOW:
        del candidates["torch._scaled_mm"]
    seconds = alternate(candidates, rounds)
    how = "" if "torch._scaled_mm" in seconds else "from {} and {} of its rows".format(*ROWS_OF_ESTIMATE)
    seconds.setdefault("torch._scaled_mm", estimate)
    rates = (_flops((rate_size, rate_size, rate_size)) / seconds["bf16 GEMM"], _flops(shape) / seconds["F.linear bf16"])
    return seconds, max(rates), how


def seconds_by_slope(multiply: Callable[[int], object], num_rows: int) -> float:
    """What `multiply(num_rows)` takes, on the line through two counts of fewer rows; each is called once before.

    The first call of a shape prepares a kernel, which takes longer than some rows: a time by the row would count that
    for each of them.
    """
    few, more = (min(count, num_rows) for count in ROWS_OF_ESTIMATE)
    seconds = alternate({"few": partial(multiply, few), "more": partial(multiply, more)}, rounds=1)
    a_row = (seconds["more"] - seconds["few"]) / max(more - few, 1)
    return seconds["few"] + a_row * (num_rows - few)


def _operands(shape: tuple[int, int, int], copies: int) -> tuple[Tensor, list[Tensor]]:
    rows, in_features, out_features = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, in_features, generator=generator).bfloat16()
    weight = torch.randn(out_features, in_features, generator=generator).bfloat16()
    return x, [weight.clone() for _ in range(copies)]


def _w8a8(x: Tensor, w8: Quantized, rule: Amax = Amax()) -> Tensor:  # noqa: B008  frozen
    return ops.linear(ops.quantize(x, "e4m3fn", rule), w8)


def _flops(shape: tuple[int, int, int]) -> float:
    rows, in_features, out_features = shape
    return 2.0 * rows * in_features * out_features


def _words(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} rows, {shape[1]} x {shape[2]}"


def _ours() -> dict[str, Backend]:
    """Our backends by name: portable, and each instruction set of the C++ core that is there."""
    found: dict[str, Backend] = {"portable": portable}
    if table.choose("cpu").name == "native":
        from octoscale.kernels.native import Native, available
        from octoscale.kernels.operators import Operators

        found |= {f"native[{isa}]": Operators(Native(isa)) for isa in available()}
    return found


def _instruction_sets() -> list[str]:
    return [name.partition("[")[2].rstrip("]") for name in _ours() if "[" in name]


def _best() -> str:
    """The name in `_ours` of the backend that this machine uses."""
    if table.choose("cpu").name != "native":
        return "portable"
    from octoscale.kernels.native import chosen

    return f"native[{chosen()}]"


def _cast(backend: Backend, x: Tensor, *, counts: bool, exponents: bool) -> object:
    fmt, seen = get_format("e4m3fn"), backend.observe(x, exponents=exponents)
    return backend.encode(x, fmt, seen.amax, Amax().scale_bias(seen.amax, fmt), counts=counts)


def _cast_by_torch(x: Tensor) -> Tensor:
    """What one writes in torch: amax, a power-of-two scale, clamp, cast."""
    scale = torch.exp2(torch.floor(torch.log2(448.0 / x.abs().amax())))
    return (x * scale).clamp(-448.0, 448.0).to(torch.float8_e4m3fn)


def _cast_by_torchao(x: Tensor) -> Callable[[], Tensor]:
    from torchao.float8.float8_utils import tensor_to_scale, to_fp8_saturated

    def cast() -> Tensor:
        scale = tensor_to_scale(x, torch.float8_e4m3fn, round_scales_to_power_of_2=True)
        return to_fp8_saturated(x * scale, torch.float8_e4m3fn)  # type: ignore[no-any-return]

    return cast


def _cast_by_ml_dtypes(x: Tensor) -> Callable[[], object]:
    import ml_dtypes
    import numpy as np

    def cast() -> object:
        values = x.numpy()
        scale = np.float32(2.0 ** np.floor(np.log2(448.0 / np.abs(values).max())))
        return np.clip(values * scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)

    return cast


def has(package: str) -> bool:
    """Whether a package is installed."""
    return importlib.util.find_spec(package) is not None
