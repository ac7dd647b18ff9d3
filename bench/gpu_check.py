"""What a GPU computes in FP8, and how fast: one script to run where there is one.

    python bench/gpu_check.py                          writes gpu_check.json, and gpu_check.md beside it
    python bench/gpu_check.py --json results/h100.json
    python bench/gpu_check.py --device cpu             a rehearsal: the same on tiny shapes, by torch's kernel for CPUs

What it does, in this order, each part written as soon as it is there: correctness (gpu_correct.py), limits of the
device, the linear layers of the paper's sizes, and a training step of each size that fits (gpu_speed.py). Nothing else
should run meanwhile.

Exit code 0: everything holds. 1: some check failed, and the table says which. 2: there is no GPU with FP8.
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu_correct import checks
from gpu_page import page_of
from gpu_speed import layers, limits, step

from octoscale.kernels import scaled_mm, table
from octoscale.models.sizes import PAPER_SIZES, SIZES, Size
from octoscale.system.machine import cpu_name
from octoscale.system.whole_file import replacing, write_json

#: Tokens of a layer's input; the longest window of a step; the edge of the GEMMs and the bytes of the copy that measure
#: the device.
NUM_ROWS, WINDOW, EDGE, COPIED = 4096, 4096, 8192, 1 << 30

#: What a rehearsal runs: a size of nobody's, as torch's CPU kernel is thousands of times slower than a GPU.
REHEARSED = "rehearsal"
TINY = Size(
    family="gpt", d_model=32, num_layers=1, num_heads=2, num_kv_heads=2, d_ffn=64, max_positions=16, vocabulary=64
)


def main(words: list[str] | None = None) -> int:
    """Run all parts; the exit code."""
    parser = argparse.ArgumentParser(description="What a GPU computes in FP8, and how fast.")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="file of results; a table beside it")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse on tiny shapes")
    asked = parser.parse_args(words)
    why_not = _why_not(asked.device)
    if why_not is not None:
        print(f"gpu_check: {why_not}; --device cpu rehearses the script", file=sys.stderr)
        return 2
    rehearsal = asked.device == "cpu"
    with _serving_cpu() if rehearsal else nullcontext():
        found: dict[str, Any] = {"rehearsal": rehearsal, "machine": _machine(asked.device)}
        for part, rows in _parts(asked.device, found):
            found[part] = _taken(rows, part)
            _write(asked.json, found)
    return 0 if all(row["holds"] for row in found["checks"]) else 1


def _parts(device: str, found: dict[str, Any]) -> Iterable[tuple[str, Iterable[Any]]]:
    """The name of each part, and its rows as they come; found: what is there by then."""
    rehearsal = device == "cpu"
    sizes = [REHEARSED] if rehearsal else list(PAPER_SIZES)
    yield "checks", (asdict(check) for check in checks(device, rehearsal=rehearsal))
    yield "limits", (limits(device, *((32, 1 << 16) if rehearsal else (EDGE, COPIED))),)
    (limit,) = found["limits"]
    num_rows = 16 if rehearsal else NUM_ROWS
    yield "layers", (row for size in sizes for row in layers(size, num_rows, limit, device))
    yield "steps", (row for size in sizes for row in step(size, min(WINDOW, SIZES[size].max_positions), device))


def _why_not(device: str) -> str | None:
    """Why this machine cannot be checked; None if it can."""
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU on this machine"
    return scaled_mm.why_not(device)


def _serving_cpu() -> Any:
    """The CPU takes the place of a GPU, by torch's kernel for it."""
    SIZES[REHEARSED] = TINY
    backend, reason = scaled_mm.make("cpu")
    return table.instead("cpu", table.Choice(name=scaled_mm.NAME, backend=backend, reason=reason))


def _machine(device: str) -> dict[str, Any]:
    """The facts behind every figure."""
    packages = {name: version(name) for name in ("octoscale", "transformers")}
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **packages,
        "cpu": cpu_name(),
        "backend": table.choose(device).reason,
    }
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        found["device"] = about.name
        found["memory"] = f"{about.total_memory / 1e9:.1f} GB"
        found["runtime"] = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return found


def _taken(rows: Iterable[Any], part: str) -> list[Any]:
    """The rows, with a line of progress each: a part takes minutes."""
    taken = []
    for row in rows:
        taken.append(row)
        print(f"{part} {len(taken)}: {row.get('what') or row.get('size') or ''}", file=sys.stderr, flush=True)
    return taken


def _write(path: Path, found: dict[str, Any]) -> None:
    write_json(path, found)
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(page_of(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
