"""The files of a folder of docs/results are made of each other. Oracle: what makes them, and arithmetic."""

import json
import re
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import matplotlib
import pytest

from octoscale.bench.generate import BF16, OURS
from octoscale.paper.settings import Reproduction
from octoscale.paper.write import Column, Table, csv_text
from octoscale.report.advice import markdown as advice_markdown
from octoscale.report.arena_page import draw_arena, write_arena_page
from octoscale.report.figures.growth import growth_figure
from octoscale.report.figures.of_run import draw
from octoscale.report.figures.paper import draw_paper
from octoscale.report.figures.style import save
from octoscale.report.paper_page import write_page

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
CONTESTS = sorted(path.parent for path in RESULTS.glob("*/arena.json"))
REPRODUCED = sorted({path.parent for path in RESULTS.glob("*/made.json")} - {*CONTESTS})
TABLES = sorted(RESULTS.rglob("table*.json"))
DEFAULTS = {"accumulate": Reproduction(what="all").accumulate}
BENCHES = sorted((RESULTS / "bench").glob("*.json"))
DRAWN = ("README.md", "*.svg", "*.png", "index.html")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def is_pinned():
    """Whether pictures are drawn with the matplotlib that drew those in the repository."""
    pins = (RESULTS.parents[1] / "constraints.txt").read_text(encoding="utf-8")
    pinned = re.search(r"^matplotlib==([\d.]+)", pins, re.MULTILINE)
    return pinned is not None and matplotlib.__version__ == pinned[1]


@pytest.mark.parametrize("folder", REPRODUCED, ids=lambda path: path.name)
def test_its_pages_and_pictures_are_drawn_again_from_its_numbers(folder, tmp_path):
    """The README always; pictures, and the page that holds them, where matplotlib is the one that is pinned."""
    copy = shutil.copytree(folder, tmp_path / folder.name)
    before = {path.name: path.read_bytes() for pattern in DRAWN for path in copy.glob(pattern)}
    assert before.keys() >= {"README.md", "index.html"}
    for name in before:
        (copy / name).unlink()
    draw_paper(copy)
    write_page(copy)
    after = {path.name: path.read_bytes() for pattern in DRAWN for path in copy.glob(pattern)}
    assert after.keys() == before.keys()
    same = set(before) if is_pinned() else {"README.md"}
    assert [name for name in same if after[name] != before[name]] == []


@pytest.mark.parametrize("folder", CONTESTS, ids=lambda path: path.name)
def test_a_contests_page_picture_and_csv_are_made_again_from_its_numbers(folder, tmp_path):
    """The page and the CSV always; pictures where matplotlib is the one that is pinned."""
    copy = shutil.copytree(folder, tmp_path / folder.name)
    pictures = [path.name for path in draw_arena(copy)] if is_pinned() else []
    write_arena_page(copy)
    assert [
        name for name in ("README.md", *pictures) if (copy / name).read_bytes() != (folder / name).read_bytes()
    ] == []
    content = read(folder / "arena.json")
    columns = [Column(**column) for column in content["columns"]]
    table = Table(columns=columns, **{name: content[name] for name in ("name", "title", "rows", "notes")})
    assert (folder / "arena.csv").read_text(encoding="utf-8") == csv_text(table)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_table_in_csv_is_that_of_its_json(path):
    content = read(path)
    content["columns"] = [Column(**column) for column in content["columns"]]
    assert path.with_suffix(".csv").read_text(encoding="utf-8") == csv_text(Table(**content))


def test_the_advice_as_a_page_is_that_of_its_json():
    folder = RESULTS / "advise"
    assert (folder / "advice.md").read_text(encoding="utf-8") == advice_markdown(read(folder / "advice.json"))


@pytest.mark.skipif(not is_pinned(), reason="another matplotlib draws other bytes")
def test_the_picture_of_the_advice_is_drawn_again(tmp_path):
    copy = shutil.copytree(RESULTS / "advise", tmp_path / "advise")
    before = (copy / "figures" / "advice.png").read_bytes()
    (copy / "figures" / "advice.png").unlink()
    assert draw(copy) == [copy / "figures" / "advice.png"]
    assert (copy / "figures" / "advice.png").read_bytes() == before


@pytest.mark.skipif(not is_pinned(), reason="another matplotlib draws other bytes")
def test_the_picture_of_growth_is_drawn_again_from_its_numbers(tmp_path):
    folder = RESULTS / "bench"
    if not (folder / "growth.json").is_file():
        assert list(folder.glob("growth.*")) == []
        pytest.skip("it is not measured yet")
    for path in save(growth_figure(read(folder / "growth.json")), tmp_path, "growth"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(not is_pinned(), reason="another matplotlib draws other bytes")
def test_the_pictures_of_the_parity_are_drawn_again(tmp_path):
    copy = shutil.copytree(RESULTS / "parity", tmp_path / "parity")
    before = {path.name: path.read_bytes() for path in sorted((copy / "figures").iterdir())}
    shutil.rmtree(copy / "figures")
    assert draw(copy) == [copy / "figures" / name for name in before]
    assert {name: (copy / "figures" / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_the_ratios_of_a_bench_follow_from_what_was_measured(path):
    """Oracle: the same numbers divided here. The recorder's time is a measurement of its own."""
    report = read(path)
    expected = RATIOS[path.stem](report)
    found = {name: ratio for name, ratio in report["ratios"].items() if name != "recorder_time_over_none"}
    assert {name: pytest.approx(ratio, rel=1e-9) for name, ratio in expected.items() if ratio is not None} == {
        name: ratio for name, ratio in found.items() if ratio is not None
    }
    assert expected.keys() == found.keys()


@pytest.mark.parametrize("folder", [*REPRODUCED, *CONTESTS], ids=lambda path: path.name)
def test_the_words_that_are_noted_are_those_of_the_command(folder, run, tmp_path, monkeypatch):
    """Oracle: the command line, which reads the command again; a word that came later has its default."""
    taken = []

    def stop(settings, *_, **__):
        taken.append(json.loads(json.dumps(asdict(settings), default=str)))
        raise KeyboardInterrupt

    monkeypatch.setattr("octoscale.paper.reproduce.reproduce", stop)
    monkeypatch.setattr("octoscale.arena.run.hold", stop)
    (tmp_path / "data").mkdir()
    later = {} if folder in CONTESTS else DEFAULTS
    entries = [entry for name, entry in read(folder / "made.json").items() if name != "left_out"]
    for command in {entry["command"] for entry in entries}:
        run(*shlex.split(command)[1:])
        words = [entry["words"] for entry in entries if entry["command"] == command]
        assert all(later | noted == taken[-1] for noted in words)


def _quantize(report):
    seconds = report["seconds"]
    chosen = re.search(r"core with (\w+)", report["machine"]["reason"])
    ours = seconds[f"native[{chosen[1]}]" if chosen else "portable"]
    bandwidth_time = 9 / 4 * seconds["read bandwidth"]  # 4 + 4 bytes read, 1 written; the probe reads 4
    return {
        "speedup_over_torch_eager": seconds["torch eager"] / ours,
        "speedup_over_torchao": _over(seconds, "torchao", ours),
        "fraction_of_limit": bandwidth_time / ours,
        "telemetry_overhead": seconds["ours, counts and histogram"] / seconds["ours, nothing counted"] - 1,
    }


def _linear(report):
    decode, prefill = report["seconds"]["decode"], report["seconds"]["prefill"]
    sizes = [int(number) for number in re.findall(r"\d+", report["what"].partition("; bfloat16")[0])]
    _, k, n, rows, in_features, out_features = sizes
    read_time = k * n / report["limits"]["read_GB_per_s"] / 1e9
    arithmetic = 2e-9 * rows * in_features * out_features / report["limits"]["bf16_GFLOP_per_s"]
    return {
        "decode_fraction_of_bandwidth": read_time / decode["W8A16"],
        "decode_speedup_over_bf16": decode["F.linear bf16"] / decode["W8A16"],
        "decode_W8A8_fraction_of_bandwidth": read_time / decode["W8A8"],
        "decode_W8A8_speedup_over_bf16": decode["F.linear bf16"] / decode["W8A8"],
        "prefill_time_over_bf16": prefill["W8A8"] / prefill["F.linear bf16"],
        "prefill_W8A16_time_over_bf16": prefill["W8A16"] / prefill["F.linear bf16"],
        "prefill_speedup_over_scaled_mm": prefill["torch._scaled_mm"] / prefill["W8A8"],
        "prefill_fraction_of_bf16_rate": arithmetic / prefill["W8A8"],
    }


def _train(report):
    seconds, saved = report["seconds"], report["MB kept for backward"]
    return {
        "step_time_over_bf16": seconds["AMAX"] / seconds["bf16 autocast"],
        "cscale_step_time_over_bf16": seconds["CSCALE"] / seconds["bf16 autocast"],
        "speedup_over_torchao": _over(seconds, "torchao emulated", seconds["AMAX"]),
        "saved_bytes_over_bf16": saved["AMAX"] / saved["bf16 autocast"],
    }


def _generate(report):
    decode, prefill, memory = (report[name] for name in ("decode, tokens/s", "prefill, tokens/s", "resident MB"))
    return {
        "decode_speedup_over_bf16": decode[OURS] / decode[BF16],
        "decode_speedup_over_llama_q8": decode[OURS] / decode["llama.cpp Q8_0"] if "llama.cpp Q8_0" in decode else None,
        "decode_fraction_of_limit": decode[OURS] / report["limits"]["decode_tokens_per_s"],
        "prefill_speedup_over_bf16": prefill[OURS] / prefill[BF16],
        "prefill_speedup_over_llama_bf16": prefill[OURS] / prefill["llama.cpp BF16"]
        if "llama.cpp BF16" in prefill
        else None,
        "memory_over_bf16": memory[OURS] / memory[BF16],
    }


def _growth(report):
    return {f"time_over_bf16, {what}": of["AMAX"] / of["bf16 autocast"] for what, of in report["seconds"].items()}


def _checkpoint(report):
    seconds, memory = report["seconds"], report["memory, MB"]
    return {
        "rate_over_cp": seconds["cp"] / seconds["quantize"],
        "memory_over_bound": memory["quantize"] / memory["bound"],
    }


def _over(seconds, other, ours):
    return seconds[other] / ours if other in seconds else None


#: What each bench promises of its own numbers.
RATIOS = {
    "quantize": _quantize,
    "linear": _linear,
    "train": _train,
    "growth": _growth,
    "generate": _generate,
    "checkpoint": _checkpoint,
}
