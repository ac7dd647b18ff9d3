"""What a report of a large run costs.

    python bench/large_report.py [--steps 1600] [--tensors 630] [--every 4]

It makes a run up (amax and scales that walk, a few saturated values, histograms each N-th step), and prints the seconds
and the memory of `octoscale report` and `octoscale diagnose`, the size of the page, and, where there is a Chromium, how
long the page takes to open and the map to show another step. Nothing else should run meanwhile.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from octoscale.conversion.kinds import kind_of
from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import write_part
from octoscale.runs.scales import SCHEMA

#: The linear layers of a Llama's decoder layer.
MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MODULES += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
ROLES = (("weight", "e4m3fn"), ("input", "e4m3fn"), ("grad_output", "e5m2"))
STEPS_OF_A_PART = 20
#: Values of a tensor, and how many exponents they spread over.
NUMEL, SPREAD = 1_000_000, 24
#: Milliseconds between the opening of the page and the first step of the slider.
REST = 500
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-background-networking"]


def main() -> None:
    """Make the run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--tensors", type=int, default=630)
    parser.add_argument("--every", type=int, default=4, help="Steps between histograms.")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", words.steps, words.tensors, words.every)
        print(f"{words.steps * words.tensors:,} records, histograms on each step whose number {words.every} divides")
        for command in ("diagnose", "report"):
            seconds, gigabytes = cost([sys.executable, "-m", "octoscale", command, str(run)])
            print(f"octoscale {command}: {seconds:.1f} s, {gigabytes:.2f} GB at most")
        page = run / "report.html"
        print(f"{page.name}: {page.stat().st_size / 1e6:.2f} MB")
        look(page, words.steps * words.tensors)


def make_run(folder: Path, num_steps: int, num_tensors: int, every: int) -> Path:
    """A run of so many tensors and steps, made up, the same each time."""
    run, draw = RunFolder.create(folder, {}), np.random.default_rng(0)
    names = [name_of(number) for number in range(num_tensors)]
    amax = np.exp2(draw.uniform(-6, 6, num_tensors))
    for first in range(0, num_steps, STEPS_OF_A_PART):
        frames = []
        for step in range(first, min(first + STEPS_OF_A_PART, num_steps)):
            amax = amax * np.exp2(draw.normal(0, 0.05, num_tensors))
            frames.append(rows_of(step, names, amax, draw, has_histograms=step % every == 0))
        write_part(run.scales, pl.concat(frames))
    return run.path


def name_of(number: int) -> tuple[int, str, str, str, str]:
    """Layer, kind, module, role and format of a tensor, by its number."""
    module, which = divmod(number, len(ROLES))
    layer, place = divmod(module, len(MODULES))
    name, (role, fmt) = f"model.layers.{layer}.{MODULES[place]}", ROLES[which]
    return layer, kind_of(name), name, role, fmt


def rows_of(
    step: int,
    names: list[tuple[int, str, str, str, str]],
    amax: np.ndarray,
    draw: np.random.Generator,
    *,
    has_histograms: bool,
) -> pl.DataFrame:
    """The records of one step."""
    count = len(names)
    layers, kinds, modules, roles, formats = zip(*names, strict=True)
    exponents = np.floor(np.log2(amax)).astype(int)
    histograms = None
    if has_histograms:
        bins = np.zeros((count, NUM_EXPONENT_BINS), dtype=np.uint32)
        for below in range(SPREAD):
            bins[np.arange(count), exponents - below + EXPONENT_OFFSET] = draw.integers(1, NUMEL // SPREAD, count)
        histograms = list(bins)
    columns = {
        "step": [step] * count,
        "phase": ["train"] * count,
        "scaling": ["amax"] * count,
        "module": modules,
        "layer": layers,
        "kind": kinds,
        "role": roles,
        "format": formats,
        "scale_bias": 8 - exponents,
        "amax": amax.astype(np.float32),
        "numel": [NUMEL] * count,
        "saturated": draw.poisson(0.1, count),
        "flushed": draw.poisson(200, count),
        "nonfinite": [0] * count,
        "exponents": histograms if has_histograms else [None] * count,
        "rank": [0] * count,
        "granularity": ["tensor"] * count,
        "scale_bias_high": [None] * count,
        "num_scales": [None] * count,
    }
    return pl.DataFrame(columns, schema=SCHEMA, strict=False)


def cost(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the most memory that it held, in 10**9 bytes."""
    started = time.perf_counter()
    process = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 1):  # diagnose: 1 where it found something
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def look(page: Path, num_records: int) -> None:
    """How long the page takes to open, and its map to show another step, in Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("no Chromium, or no playwright: the page was not opened")
        return
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=OPTIONS)
        opened = []
        for _ in range(5):
            window = browser.new_page(viewport={"width": 1400, "height": 900})
            before = time.perf_counter()
            window.goto(f"{page.as_uri()}#view=map")
            window.get_by_label("Step", exact=True).wait_for()
            opened.append(time.perf_counter() - before)
        if f"{num_records:,} records" not in window.inner_text("body"):
            raise SystemExit(f"the page does not show all {num_records:,} records: these figures are of less work")
        print(f"opens in {statistics.median(opened):.2f} s ({min(opened):.2f} to {max(opened):.2f})")
        window.wait_for_timeout(REST)  # the first paint is over: it is a part of opening
        took = window.evaluate(REDRAW)
        late = sum(one > 50 for one in took)
        which = took.index(max(took)) + 1
        print(
            f"a step of the slider: {statistics.median(took):.0f} ms; the slowest, the {which}. of {len(took)}, "
            f"{max(took):.0f}; {late} over 50"
        )
        browser.close()


#: Move the slider to 100 steps: milliseconds in its event, and in the frame that follows.
REDRAW = """async () => {
    const slider = [...document.querySelectorAll('input[type=range]')].find(found => found.offsetParent);
    const frame = () => new Promise(done => requestAnimationFrame(begun => done(performance.now() - begun)));
    const took = [];
    for (let number = 0; number < 100; number++) {
        slider.value = String(Math.round(number / 99 * Number(slider.max)));
        const before = performance.now();
        slider.dispatchEvent(new Event('input', { bubbles: true }));
        const inEvent = performance.now() - before;
        took.push(inEvent + await frame());
    }
    return took;
}"""

if __name__ == "__main__":
    main()
