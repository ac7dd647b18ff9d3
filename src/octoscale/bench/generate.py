"""How fast a model in FP8 writes and reads, beside what else runs on this CPU, and how much memory it takes.

All candidates are the same checkpoint, loaded one beside the other, and go through transformers' `generate`: 64 tokens
after a prompt of 16 (decode: the time between the first and the last of them), and a prompt of 512 (prefill). Ours has
its weights in huge pages, as `octoscale generate` has; others are as their users get them. Ours,
bfloat16, and llama.cpp, by its own llama-bench on GGUF files of the same shape, take turns; what is far slower runs
once, for fewer tokens. At best, a token takes as long as reading the weights once. `generate_groups` compares ours with
a scale for each row or block, and ours with one a tensor, and nothing else.
"""

import functools
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from octoscale.bench import gguf_shape
from octoscale.bench.kernels import Report, has, machine
from octoscale.checkpoints.settings import Quantization
from octoscale.conversion.head import put_head_in_fp8
from octoscale.inference.fuse import fuse
from octoscale.inference.huge_pages import allocate, gather_huge_pages
from octoscale.kernels.native import Native, chosen
from octoscale.models import loading
from octoscale.models.export import run_quantization
from octoscale.numerics.granularity import TENSOR
from octoscale.system.errors import UserError

PROMPT, NEW_TOKENS, PREFILL, ROUNDS = 16, 64, 512, 5
_SLOW_TOKENS = 8
OURS, BF16 = "ours W8A8 AMAX", "transformers bf16"


def generate(
    model: str = "llama-1b", llama_bench: Path | None = None, rounds: int = ROUNDS, *, fp8_head: bool = False
) -> Report:
    """Tokens a second of each candidate, the limit, resident memory, ratios."""
    if llama_bench is not None and not llama_bench.is_file():
        raise UserError(f"--llama-bench {llama_bench}: there is no such program")
    bandwidth = _bandwidth()
    with tempfile.TemporaryDirectory() as folder:
        bf16, fp8 = Path(folder) / "bf16", Path(folder) / "fp8"
        loading.load(model).model.save_pretrained(bf16)
        run_quantization(Quantization(model=str(bf16)), fp8)
        ours = _fused(fp8, fp8_head)
        read = _bytes_read(ours)
        runs = {OURS: _runs_here(ours), BF16: _runs_here(_load(bf16))}
        if llama_bench is not None:
            runs |= _runs_of_llama_cpp(llama_bench, bf16, Path(folder))
        speeds = _in_turns(runs, rounds)
        del ours, runs
        slow = _slow_ones(bf16)
        memory = {name: _resident(path, fp8_head) for name, path in ((OURS, fp8), (BF16, bf16))}
    decode, prefill = ({name: speed[i] for name, speed in speeds.items()} for i in range(2))
    bandwidth = max(bandwidth, _bandwidth())  # a shared host has slow minutes, which are no limit
    limit = bandwidth / read
    head = ", the head in FP8 too" if fp8_head else ""
    return {
        "what": f"{model}: {NEW_TOKENS} tokens after {PROMPT}, a prompt of {PREFILL}{head}",
        "machine": machine(),
        "decode, tokens/s": decode | slow,
        "prefill, tokens/s": prefill,
        "resident MB": {name: value / 1e6 for name, value in memory.items()},
        "limits": {"read_GB_per_s": bandwidth / 1e9, "GB_read_for_a_token": read / 1e9, "decode_tokens_per_s": limit},
        "ratios": {
            "decode_speedup_over_bf16": decode[OURS] / decode[BF16],
            "decode_speedup_over_llama_q8": _over(decode, "llama.cpp Q8_0"),
            "decode_fraction_of_limit": decode[OURS] / limit,
            "prefill_speedup_over_bf16": prefill[OURS] / prefill[BF16],
            "prefill_speedup_over_llama_bf16": _over(prefill, "llama.cpp BF16"),
            "memory_over_bf16": memory[OURS] / memory[BF16],
        },
    }


def generate_groups(
    granularity: str, model: str = "llama-1b", rounds: int = ROUNDS, *, fp8_head: bool = False
) -> Report:
    """Tokens a second with a scale for each row or block of weights and inputs, beside one a tensor: ours alone."""
    requests = [Quantization(model=model, granularity=name) for name in (TENSOR.name, granularity)]
    with tempfile.TemporaryDirectory() as folder:
        loading.load(model).model.save_pretrained(Path(folder) / "bf16")
        runs = {}
        for request in requests:
            out = Path(folder) / request.granularity
            run_quantization(replace(request, model=str(Path(folder) / "bf16")), out)
            runs[request.granularity] = _runs_here(_fused(out, fp8_head))
        speeds = _in_turns(runs, rounds)
    decode, prefill = ({name: speed[i] for name, speed in speeds.items()} for i in range(2))
    return {
        "what": f"{model}: {NEW_TOKENS} tokens after {PROMPT}, a prompt of {PREFILL}; amax:{granularity}",
        "machine": machine(),
        "decode, tokens/s": decode,
        "prefill, tokens/s": prefill,
        "ratios": {
            "decode_speed_over_tensor": decode[granularity] / decode[TENSOR.name],
            "prefill_speed_over_tensor": prefill[granularity] / prefill[TENSOR.name],
        },
    }


def _over(speeds: dict[str, float], other: str) -> float | None:
    return speeds[OURS] / speeds[other] if other in speeds else None


#: Runs a candidate once: tokens a second of decoding, and of reading a prompt.
_Run = Callable[[], tuple[float, float]]


def _in_turns(runs: dict[str, _Run], rounds: int) -> dict[str, tuple[float, float]]:
    """The medians of each candidate; the first round only warms up."""
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            rows[name].append(run())
    decode, prefill = ({name: statistics.median(row[i] for row in rows[name][1:]) for name in runs} for i in range(2))
    return {name: (decode[name], prefill[name]) for name in runs}


def _runs_here(model: Any) -> _Run:
    return lambda: (_decode(model, NEW_TOKENS), _prefill(model))


def _fused(folder: Path, fp8_head: bool) -> Any:
    model = _load(folder)
    if fp8_head:
        put_head_in_fp8(model)
    gather_huge_pages(model)
    report = fuse(model)
    if report.left:
        raise UserError(f"{report}: this measures fused decoding")
    return model


def _slow_ones(bf16: Path) -> dict[str, float]:
    """Tokens a second of what is far slower: measured once, for a few tokens."""
    speeds = {}
    for name, quantize in _others().items():
        gc.collect()
        other = _load(bf16)
        quantize(other)
        _decode(other, 2)
        speeds[name] = _decode(other, _SLOW_TOKENS)
    return speeds


def _others() -> dict[str, Callable[[nn.Module], object]]:
    """Weight-only 8 bit of others, where installed: what each does to a model in place. The head stays as it is."""
    found: dict[str, Callable[[nn.Module], object]] = {}
    if has("torchao"):
        from torchao import quantization

        def by_torchao(config: Any) -> Callable[[nn.Module], object]:
            return lambda model: quantization.quantize_(model.model, config)

        found["torchao int8"] = by_torchao(quantization.Int8WeightOnlyConfig())
        found["torchao float8"] = by_torchao(quantization.Float8WeightOnlyConfig())
    if has("optimum") and has("optimum.quanto"):
        found["quanto float8"] = _by_quanto
    return found


def _by_quanto(model: nn.Module) -> None:
    from optimum.quanto import freeze, qfloat8, quantize

    quantize(model.model, weights=qfloat8)
    freeze(model.model)


def _load(folder: Path) -> Any:
    """A model that does not know when to end, and writes as much as it is asked for."""
    model = loading.load(str(folder)).model
    model.generation_config.eos_token_id = None
    return model


class _Clock:
    """A stopping criterion that stops nothing and notes when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return torch.zeros(ids.shape[0], dtype=torch.bool)


def _decode(model: Any, num_tokens: int) -> float:
    """Tokens a second after the first."""
    clock = _Clock()
    ids = _ids(PROMPT, model)
    ask = {"max_new_tokens": num_tokens, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), stopping_criteria=[clock], **ask)
    return (num_tokens - 1) / (clock.times[-1] - clock.times[0])


def _prefill(model: Any) -> float:
    """Tokens a second of a prompt."""
    ids = _ids(PREFILL, model)
    with torch.no_grad():
        start = time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1)
        return PREFILL / (time.perf_counter() - start)


def _ids(length: int, model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (1, length), generator=generator)


def _bandwidth() -> float:
    """Bytes that this machine reads in a second at best: the largest number of a gigabyte in huge pages."""
    size = 1 << 30
    numbers = allocate(size)[:size].view(torch.float32).fill_(1.0)
    native = Native(chosen())

    def read() -> float:
        start = time.perf_counter()
        native.observe(numbers, exponents=False)
        return size / (time.perf_counter() - start)

    return max(read() for _ in range(2 * ROUNDS))


def _bytes_read(model: Any) -> float:
    """The bytes of the weights that a token needs: all but the embeddings, of which it takes a row."""
    weights = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding.data_ptr() != head.data_ptr():
        del weights[embedding.data_ptr()]
    return float(sum(weights.values()))


_RESIDENT = """
import sys, psutil, torch, transformers
from octoscale.models import loading
from octoscale.inference.fuse import fuse
from octoscale.conversion.head import put_head_in_fp8
from octoscale.inference.huge_pages import gather_huge_pages
kind, folder = sys.argv[1:]
loading.load("gpt-10m").model(torch.zeros(1, 4, dtype=torch.long))
before = psutil.Process().memory_info().rss
model = loading.load(folder).model
if kind == "fp8-head":
    put_head_in_fp8(model)
if kind != "bf16":
    gather_huge_pages(model)
    fuse(model)
total = sum(float(p.view(torch.uint8).sum()) for p in model.parameters())
with torch.no_grad():
    model.generate(torch.zeros(1, 16, dtype=torch.long), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
print(psutil.Process().memory_info().rss - before)
"""


def _resident(folder: Path, fp8_head: bool) -> float:
    """By how many bytes a process grows that loads a model, reads every weight, and writes a few tokens."""
    kind = "fp8-head" if folder.name == "fp8" and fp8_head else folder.name
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", _RESIDENT, kind, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _runs_of_llama_cpp(program: Path, bf16: Path, folder: Path) -> dict[str, _Run]:
    """llama-bench on GGUF files of this model, in Q8_0 and BF16."""
    runs: dict[str, _Run] = {}
    for kind in ("Q8_0", "BF16"):
        path = folder / f"{kind}.gguf"
        gguf_shape.write(_load(bf16), path, kind)
        runs[f"llama.cpp {kind}"] = functools.partial(_llama_bench, program, path)
    return runs


def _llama_bench(program: Path, path: Path) -> tuple[float, float]:
    command = [str(program), "-m", str(path), "-t", str(torch.get_num_threads()), "-o", "json"]
    sizes = ["-p", str(PREFILL), "-n", str(NEW_TOKENS), "-r", "1"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise UserError(f"{program} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    speeds = {bool(row["n_gen"]): float(row["avg_ts"]) for row in json.loads(done.stdout)}
    return speeds[True], speeds[False]
