"""How fast a model in FP8 writes and reads, beside what else runs on this CPU, and how much memory it takes.

All candidates are the same checkpoint, loaded one beside the other, and go through transformers' `generate`: 64 tokens
after a prompt of 16 (decode: the time between the first and the last of them), and a prompt of 512 (prefill). Ours and
bfloat16 take turns; what is far slower runs once, for fewer tokens. llama.cpp runs by its own llama-bench on GGUF files
of the same shape. At best, a token takes as long as reading the weights once.
"""

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from octoscale import gguf_shape, models
from octoscale.bench import Report, alternate, has, machine
from octoscale.decoding import fuse
from octoscale.export import run_quantization
from octoscale.quantization import Quantization

PROMPT, NEW_TOKENS, PREFILL, ROUNDS = 16, 64, 512, 5
_SLOW_TOKENS = 8
OURS, BF16 = "ours W8A8 AMAX", "transformers bf16"


def generate(model: str = "llama-1b", llama_bench: Path | None = None, rounds: int = ROUNDS) -> Report:
    """Tokens a second of each candidate, the limit, resident memory, ratios."""
    if llama_bench is not None and not llama_bench.is_file():
        raise ValueError(f"--llama-bench {llama_bench}: there is no such program")
    with tempfile.TemporaryDirectory() as folder:
        bf16, fp8 = Path(folder) / "bf16", Path(folder) / "fp8"
        models.load(model).model.save_pretrained(bf16)
        run_quantization(Quantization(model=str(bf16)), fp8)
        speeds = _speeds(bf16, fp8, rounds)
        foreign = _llama_cpp(llama_bench, bf16, Path(folder)) if llama_bench is not None else {}
        memory = {name: _resident(path) for name, path in ((OURS, fp8), (BF16, bf16))}
        read = _bytes_read(fp8)
    decode, prefill = ({name: row[key] for name, row in (speeds | foreign).items() if key in row} for key in (0, 1))
    bandwidth = _bandwidth()
    limit = bandwidth / read
    return {
        "what": f"{model}: {NEW_TOKENS} tokens after {PROMPT}, a prompt of {PREFILL}",
        "machine": machine(),
        "decode, tokens/s": decode,
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


def _over(speeds: dict[str, float], other: str) -> float | None:
    return speeds[OURS] / speeds[other] if other in speeds else None


def _speeds(bf16: Path, fp8: Path, rounds: int) -> dict[str, dict[int, float]]:
    """Candidate -> tokens a second of decoding (0) and of reading a prompt (1)."""
    ours, baseline = _load(fp8), _load(bf16)
    report = fuse(ours)
    if report.left:
        raise ValueError(f"{report}: this measures fused decoding")
    fast = {OURS: ours, BF16: baseline}
    rows: dict[str, list[float]] = {name: [] for name in fast}
    for _ in range(rounds + 1):
        for name, model in fast.items():
            rows[name].append(_decode(model, NEW_TOKENS))
    seconds = alternate({name: _prefill(model) for name, model in fast.items()}, rounds)
    speeds = {name: {0: statistics.median(rows[name][1:]), 1: PREFILL / seconds[name]} for name in fast}
    del fast, ours, baseline
    for name, quantize in _others().items():
        gc.collect()
        other = _load(bf16)
        quantize(other)
        _decode(other, 2)
        speeds[name] = {0: _decode(other, _SLOW_TOKENS)}
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
    return models.load(str(folder)).model


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
    ask = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), stopping_criteria=[clock], **ask)
    return (num_tokens - 1) / (clock.times[-1] - clock.times[0])


def _prefill(model: Any) -> Callable[[], object]:
    ids = _ids(PREFILL, model)

    def read() -> None:
        with torch.no_grad():
            model(ids, use_cache=True, logits_to_keep=1)

    return read


def _ids(length: int, model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (1, length), generator=generator)


def _bandwidth() -> float:
    """Bytes that this machine reads in a second."""
    probe = torch.randn(1 << 26)
    return 4 * probe.numel() / alternate({"read": lambda: probe.sum()}, ROUNDS)["read"]


def _bytes_read(folder: Path) -> float:
    """The bytes of the weights that a token needs: all but the embeddings, of which it takes a row."""
    model = _load(folder)
    weights = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if embedding.data_ptr() != head.data_ptr():
        del weights[embedding.data_ptr()]
    return float(sum(weights.values()))


_RESIDENT = """
import sys, psutil, torch, transformers
from octoscale import models
from octoscale.decoding import fuse
fp8, folder = sys.argv[1] == "fp8", sys.argv[2]
models.load("gpt-10m").model(torch.zeros(1, 4, dtype=torch.long))
before = psutil.Process().memory_info().rss
model = models.load(folder).model
if fp8:
    fuse(model)
total = sum(float(p.view(torch.uint8).sum()) for p in model.parameters())
with torch.no_grad():
    model.generate(torch.zeros(1, 16, dtype=torch.long), max_new_tokens=4, min_new_tokens=4, pad_token_id=0)
print(psutil.Process().memory_info().rss - before)
"""


def _resident(folder: Path) -> float:
    """By how many bytes a process grows that loads a model, reads every weight, and writes a few tokens."""
    kind = "fp8" if folder.name == "fp8" else "plain"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", _RESIDENT, kind, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _llama_cpp(program: Path, bf16: Path, folder: Path) -> dict[str, dict[int, float]]:
    """What llama-bench says of GGUF files of this model, in Q8_0 and BF16."""
    speeds = {}
    for kind in ("Q8_0", "BF16"):
        path = folder / f"{kind}.gguf"
        gguf_shape.write(_load(bf16), path, kind)
        command = [str(program), "-m", str(path), "-t", str(torch.get_num_threads()), "-o", "json"]
        sizes = ["-p", str(PREFILL), "-n", str(NEW_TOKENS), "-r", str(ROUNDS)]
        done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise ValueError(f"{program} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        rows = json.loads(done.stdout)
        speeds[f"llama.cpp {kind}"] = {0 if row["n_gen"] else 1: float(row["avg_ts"]) for row in rows}
        path.unlink()
    return speeds
