"""How fast a checkpoint becomes FP8, beside `cp` of the same file, and how much memory that takes.

Quantizing reads a file and writes little more than half of it, so copying is a measure of disk and memory. Both take
turns in one process; a process of its own then says how much memory of its own (no file's) quantizing takes at most,
its libraries included.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from octoscale.bench.kernels import Report, machine
from octoscale.checkpoints.headers import read_entries
from octoscale.checkpoints.settings import Quantization
from octoscale.models import loading
from octoscale.models.export import run_quantization

ROUNDS = 9
#: What quantizing may take beside the largest tensor, three times.
_MEMORY = 300e6


def checkpoint(model: str = "llama-1b", rounds: int = ROUNDS) -> Report:
    """Seconds of copying and of quantizing the same bfloat16 checkpoint; the peak of memory; ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "bf16"
        loading.load(model).model.save_pretrained(source)
        files = sorted(source.glob("*.safetensors"))
        seconds = _in_turns(
            {"cp": partial(_copy, files), "quantize": partial(_quantize, source)}, folder / "out", rounds
        )
        peak = _peak_memory(source, folder / "out")
        sizes = [entry.num_bytes for path in files for entry in read_entries(path).values()]
    bound = 3 * max(sizes) + _MEMORY
    return {
        "what": f"{model}: {sum(sizes) / 1e9:.2f} GB of bfloat16",
        "machine": machine(),
        "seconds": seconds,
        "memory, MB": {"quantize": peak / 1e6, "largest tensor": max(sizes) / 1e6, "bound": bound / 1e6},
        "ratios": {"rate_over_cp": seconds["cp"] / seconds["quantize"], "memory_over_bound": peak / bound},
    }


def _in_turns(candidates: dict[str, Callable[[Path], None]], to: Path, rounds: int) -> dict[str, float]:
    """The median seconds of each, after one turn that is not counted; each finds a disk that has nothing left to do."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            os.sync()
            start = time.perf_counter()
            run(to)
            times[name].append(time.perf_counter() - start)
            shutil.rmtree(to)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def _copy(files: list[Path], to: Path) -> None:
    to.mkdir()
    subprocess.run(["cp", *_NO_REFLINK, *map(str, files), str(to)], check=True)  # noqa: S603, S607


#: A copy that only points to the same blocks would be no copy.
_NO_REFLINK = ["--reflink=never"] if sys.platform == "linux" else []


def _quantize(source: Path, to: Path) -> None:
    run_quantization(Quantization(model=str(source)), to)


_PEAK = """
import sys, threading
from pathlib import Path
from octoscale.models.export import run_quantization
from octoscale.system.heap import keep_freed_memory
from octoscale.checkpoints.settings import Quantization

def anonymous():
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(row.split()[1]) for row in rows if row.startswith("RssAnon:"))

def watch():
    while not done.wait(0.002):
        seen.append(anonymous())

keep_freed_memory()
seen, done = [], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
run_quantization(Quantization(model=sys.argv[1]), Path(sys.argv[2]))
done.set()
watcher.join()
print(max(seen))
"""


def _peak_memory(source: Path, to: Path) -> float:
    """The most bytes of anonymous memory of a process that quantizes, looked at every two milliseconds. Linux only."""
    command = [sys.executable, "-W", "ignore", "-c", _PEAK, str(source), str(to)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])  # noqa: S603
