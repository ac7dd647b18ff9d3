"""What the documents say of measurements, made again from docs/results: each block between two marks is one function.

    python docs/make.py                   what README.md and docs/ show, from the files in docs/results; a picture
                                          of bench/growth.json, if that is there
    python docs/make.py demo RUN          the same, after docs/results/demo was taken from a run of the demo
    python docs/make.py advise RUN        the same, after docs/results/advise was taken from a run of advise
    python docs/make.py parity RUN        the same, after docs/results/parity was taken from a run of parity
    python docs/make.py NAME FOLDER       the same, after docs/results/NAME was taken from a folder of reproduce, or
                                          of arena

A test compares the blocks with what this would write.
"""

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from octoscale.paper.write import markdown
from octoscale.report.advice import advice_tables
from octoscale.report.data.paired_losses import excesses
from octoscale.report.figures.growth import growth_figure
from octoscale.report.figures.style import save
from octoscale.report.parity import parity_tables, pipes
from octoscale.report.terminal import against, flatten, perplexity_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
DOCUMENTS = {
    "README.md": ("demo",),
    "docs/speed.md": ("speed",),
    "docs/results/README.md": ("index", "accuracy", "ranges", "contests", "advice", "growth"),
    "docs/PARITY.md": ("parity",),
}
FIGURES = ("perplexity", "scale_bias")
TAKEN = {
    "demo": ["summary.json"],
    "advise": ["advice.json", "recipe.toml", "advice.md", "figures/advice.png"],
    "parity": [
        *("summary.json", "metrics.jsonl", "parity.json"),
        *(f"figures/{name}.png" for name in ("parity", "parity_layers", "parity_lengths")),
    ],
}
WIDTH = 1200


def main(name: str = "", run: str = "") -> None:
    """Write the blocks of all documents, and the picture; take a run before, if there is one."""
    if name:
        take(name, Path(run))
    draw_growth(RESULTS / "bench")
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(with_blocks(path.read_text(encoding="utf-8")), encoding="utf-8")


def with_blocks(text: str) -> str:
    """The text of a document with all of its blocks made anew. KeyError for a mark that no function makes."""
    return with_blocks_of(text, MAKERS)


def with_blocks_of(text: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """The same with the functions of another script."""
    mark = re.compile(r"(<!-- made: (\w+)[^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
    return mark.sub(lambda found: f"{found[1]}{makers[found[2]]()}\n{found[3]}", text)


def take(name: str, run: Path) -> None:
    """Keep some files of a run, of the demo, advise or parity, without the place of the program that wrote them.

    Of a reproduction, and of a contest: all but its measurements.
    """
    folder, reproduced = RESULTS / name, (run / "made.json").is_file()
    folder.mkdir(exist_ok=True)
    for file in files_of_reproduction(run) if reproduced else TAKEN[name]:
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(run / file, folder / file)
    if reproduced:
        return
    header = json.loads((run / "run.json").read_text(encoding="utf-8"))
    header["command"][0] = "octoscale"
    (folder / "run.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    for figure in FIGURES if name == "demo" else ():
        shrink(run / "figures" / f"{figure}.png", ROOT / "docs" / f"{figure}.png")


def files_of_reproduction(run: Path) -> list[str]:
    """The names of its tables, figures and pages; its measurements are a folder, its lock begins with a dot."""
    return sorted(path.name for path in run.iterdir() if path.is_file() and not path.name.startswith("."))


def demo() -> str:
    """The scores of the demo, constant scales side by side where they are close to the others."""
    summary = read("demo/summary.json")
    scores = flatten(summary["perplexity"])
    lines = ["| scaling | perplexity | against bf16 |", "|---|--:|--:|"]
    for name, value in scores.items():
        lines.append(f"| {name} | {perplexity_text(value)} | {against(value, scores['bf16'])} |")
    lines += ["", f"{summary['cscale_range']['text']}.", "", _made(read("demo/run.json"))]
    return "\n".join(lines)


def accuracy() -> str:
    """What FP8-AMAX costs, task by task: Tables 4, 2 and 5."""
    head = "| | model | task | items | bf16 | AMAX | AMAX - bf16 | 95 % interval | 99.5 % of bf16 |"
    lines = [head, "|---|---|---|--:|--:|--:|--:|--:|---|"]
    for what, row in _rows({"table4": "as it is", "table2": "fine-tuned in bf16", "table5": "fine-tuned in each"}):
        scores = f"{row['high']:.2f} | {row['amax']:.2f} | {row['difference']:+.2f}"
        ends = f"{row['low']:+.2f} to {row['high_end']:+.2f}"
        items = f"{row['items']:,}" + (f" x {len(row['seeds'].split(','))} seeds" if row.get("seeds") else "")
        items += f", seed {row['seed']}" if row.get("seed") is not None else ""
        who = f"{what} | {row['model']} | {row['task']} | {items}"
        verdict = "says nothing: bf16 is at chance" if row["at_chance"] else row["verdict"]
        lines.append(f"| {who} | {scores} | {ends} | {verdict} |")
    return "\n".join(lines)


def ranges() -> str:
    """The constant biases that pass: Tables 3 and 6."""
    head = "| | model | task | items | seed | pass by the estimate | beyond noise | undecided | of |"
    lines = [head, "|---|---|---|--:|--:|---|---|---|---|"]
    for what, row in _rows({"table3": "inference", "table6": "fine-tuning"}):
        seed, tuned = ("-", "") if row["seed"] is None else (row["seed"], ", fine-tuned" * (what == "inference"))
        biases = " | ".join(row[key] for key in ("by_estimate", "beyond_noise", "undecided", "measured"))
        lines.append(f"| {what}{tuned} | {row['model']} | {row['task']} | {row['items']:,} | {seed} | {biases} |")
    return "\n".join(lines)


def _rows(tables: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of these tables in all folders; of each what its table shows, in words.

    at_chance: a note of the table says that high precision has learned no more than to give always the same answer.
    """
    for name, what in tables.items():
        for path in sorted(RESULTS.glob(f"*/{name}.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            notes = [note.partition(":")[0] for note in content["notes"] if "always says the same" in note]
            for row in content["rows"]:
                seed = f", seed {row['seed']}" if row.get("seed") is not None else ""
                yield what, row | {"at_chance": f"{row['model']}, {row['task']}{seed}" in notes}


def contests() -> str:
    """Each folder of `octoscale arena`: the gaps of its contestants, its picture, and how it was made."""
    folders = sorted(path.parent for path in RESULTS.glob("*/arena.json"))
    return "\n\n".join(map(_contest, folders)) or "Not measured yet: `octoscale arena smollm2-135m`."


def _contest(folder: Path) -> str:
    content, made = read(f"{folder.name}/arena.json"), read(f"{folder.name}/made.json")["arena"]
    shown = [column for column in content["columns"] if column["key"] not in ("scales", "megabytes", "seconds")]
    table = markdown({**content, "columns": shown, "notes": []}).partition("\n\n")[2].rstrip("\n")
    name = folder.name
    picture = f"![The gaps to {content['against']}, with their intervals]({name}/arena.png)"
    of = f"[{content['title']}]({name}/README.md):"
    return "\n\n".join([of, table, picture, f"`{made['command']}`; {made['date']}; {_facts(made['machine'])}."])


def advice() -> str:
    """What advise says of a model: its costliest layers, and its answer."""
    found = read("advise/advice.json")
    costliest = next(table for table in advice_tables(found) if table.columns[0] == "layer")
    rows = [row[:5] for row in (costliest.columns, *costliest.rows[:5])]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---|--:|--:|--:|--:|")
    quoted = [f"> {line}  " for line in found["answer"]]
    return "\n".join([*lines, "", *quoted, "", _made(read("advise/run.json"))])


def parity() -> str:
    """What the sums of a tensor core do to a model: perplexities, outputs by kind of layer, errors by length."""
    found, summary = read("parity/parity.json"), read("parity/summary.json")
    lines = (RESULTS / "parity" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    scores = flatten(summary["perplexity"])
    base = next(iter(scores))
    intervals = excesses(base, scores, [json.loads(line) for line in lines])
    table = [f"| scaling | perplexity | against {base} | 95 % interval |", "|---|--:|--:|--:|"]
    for name, value in scores.items():
        ends = [f"{end:+.2%}" for end in (intervals[name].low, intervals[name].high)] if name in intervals else ["-"]
        table.append(f"| {name} | {perplexity_text(value)} | {against(value, scores[base])} | {' to '.join(ends)} |")
    parts = ["\n".join(table), *(f"{_capital(each.title)}:\n\n{pipes(each)}" for each in parity_tables(found))]
    quoted = [f"> {line}  " for line in found["answer"]]
    return "\n\n".join([*parts, "\n".join(quoted), _made(read("parity/run.json"))])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def speed() -> str:
    """The ratios of `octoscale bench`; of an estimated one, from what."""
    lines = ["| what | ours against | ratio |", "|---|---|--:|"]
    measured = [row for row in SPEEDS if (RESULTS / "bench" / f"{row[2]}.json").is_file()]
    for what, other, name, key, words in measured:
        report = read(f"bench/{name}.json")
        estimated = report.get("estimated", {})
        how = f", estimated {estimated[key]}" if key in estimated else ""
        lines.append(f"| {what} | {other} | {words.format(report['ratios'][key])}{how} |")
    machines = dict.fromkeys(_facts(read(f"bench/{row[2]}.json")["machine"]) for row in measured)
    return "\n".join([*lines, "", f"{'; '.join(machines)}."])


def growth() -> str:
    """Whether FP8 costs more as work grows: the picture, and the command, machine and date of its numbers."""
    if not (RESULTS / "bench" / "growth.json").is_file():
        return "Not measured yet: `octoscale bench growth --json`."
    machine = read("bench/growth.json")["machine"]
    picture = "![A step's time over bfloat16's, by size and by ranks](bench/growth.png)"
    return f"{picture}\n\n`octoscale bench growth --json`; {machine['date']}; {_facts(machine)}."


def draw_growth(folder: Path) -> list[Path]:
    """The picture of growth.json beside it, if that is there."""
    numbers = folder / "growth.json"
    if not numbers.is_file():
        return []
    return save(growth_figure(json.loads(numbers.read_text(encoding="utf-8"))), folder, "growth")


def index() -> str:
    """Each folder of results: what it holds, with which command, on what machine and when it was measured."""
    lines = ["| what | command | date | machine |", "|---|---|---|---|"]
    for folder in sorted(path for path in RESULTS.iterdir() if path.is_dir()):
        lines += [f"| {' | '.join(cells)} |" for cells in _entries(folder)]
    return "\n".join(lines)


def _entries(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """The rows of a folder: one a command that filled it."""
    name = folder.name
    if (folder / "made.json").is_file():
        made = {key: entry for key, entry in read(f"{name}/made.json").items() if key != "left_out"}
        for command in dict.fromkeys(entry["command"] for entry in made.values()):
            entries = {key: entry for key, entry in made.items() if entry["command"] == command}
            first = next(iter(entries.values()))
            what = f"[{name}]({name}/README.md): {', '.join(entries)}"
            yield what, f"`{command}`", min(entry["date"] for entry in entries.values()), _facts(first["machine"])
    elif (folder / "run.json").is_file():
        run = read(f"{name}/run.json")
        yield f"[{name}]({name})", f"`{_command(run)}`", run["started"][:10], _facts(_machine(run))
    else:
        for path in sorted(folder.glob("*.json")):
            machine = read(f"{name}/{path.name}")["machine"]
            command = f"`octoscale bench {path.stem} --json`"
            yield f"[{name}/{path.name}]({name}/{path.name})", command, machine["date"], _facts(machine)


def _made(run: dict[str, Any]) -> str:
    """Command, date, machine and versions of a run."""
    return f"`{_command(run)}`; {run['started'][:10]}; {_facts(_machine(run))}."


def _command(run: dict[str, Any]) -> str:
    return shlex.join(["octoscale", *run["command"][1:]])


def _machine(run: dict[str, Any]) -> dict[str, Any]:
    return {**{name: run[name] for name in ("cpu", "reason", "threads")}, **run["versions"]}


def _facts(machine: dict[str, Any]) -> str:
    """A machine and its versions in a line."""
    known = [name for name in ("octoscale", "torch", "transformers") if name in machine]
    versions = ", ".join(f"{name} {machine[name]}" for name in known)
    return f"{machine['cpu']}, {machine['threads']} threads, {machine['reason']}; {versions}"


def shrink(source: Path, target: Path) -> None:
    """A copy that is `WIDTH` pixels wide, with few colours: small enough for the repository."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(64).save(target, optimize=True)


def read(name: str) -> Any:
    """A file of docs/results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


FASTER, TIME, SHARE = "{:.2f} times as fast", "{:.2f} times its time", "{:.2f}"


def _growth(what: str) -> tuple[str, str, str]:
    return "growth", f"time_over_bf16, {what}", TIME


#: A row of the table of speeds: what, against what, the bench that measured it, which of its ratios, how it is said.
SPEEDS = [
    ("cast, 64 Mi float32 -> e4m3fn, amax, counts", "torch eager", "quantize", "speedup_over_torch_eager", FASTER),
    ("", "the machine's limit (read twice, write once)", "quantize", "fraction_of_limit", SHARE),
    ("", "the time that counts and histogram add", "quantize", "telemetry_overhead", "{:+.1%}"),
    ("`x @ w^T`, one row", "`F.linear` in bfloat16", "linear", "decode_speedup_over_bf16", FASTER),
    ("", "read bandwidth", "linear", "decode_fraction_of_bandwidth", SHARE),
    ("`x @ w^T`, 512 rows, with the cast of x", "`F.linear` in bfloat16", "linear", "prefill_time_over_bf16", TIME),
    ("", "`torch._scaled_mm`", "linear", "prefill_speedup_over_scaled_mm", FASTER),
    ("a training step of SmolLM2-135M, AMAX", "bfloat16 autocast", "train", "step_time_over_bf16", TIME),
    ("", "bytes kept for backward, of bfloat16's", "train", "saved_bytes_over_bf16", SHARE),
    ("", "the same without a record of each cast", "train", "recorder_time_over_none", TIME),
    ("a decoder layer of 111M, forward and backward", "bfloat16 autocast", *_growth("a layer of gpt-111m")),
    ("of 590M", "bfloat16 autocast", *_growth("a layer of gpt-590m")),
    ("of 1.3B", "bfloat16 autocast", *_growth("a layer of gpt-1.3b")),
    ("two layers of 111M, one rank", "bfloat16 autocast", *_growth("1 rank")),
    ("two ranks, each with as much work", "bfloat16 autocast", *_growth("2 ranks")),
    ("writing 64 tokens, 1.17B parameters, AMAX", "transformers, bf16", "generate", "decode_speedup_over_bf16", FASTER),
    ("", "the machine's limit (read the weights)", "generate", "decode_fraction_of_limit", SHARE),
    ("reading 512 tokens, the same", "transformers, bf16", "generate", "prefill_speedup_over_bf16", FASTER),
    ("its memory", "transformers, bf16", "generate", "memory_over_bf16", SHARE),
    ("a checkpoint of 2.3 GB to FP8", "`cp` of the same file", "checkpoint", "rate_over_cp", FASTER),
]

MAKERS: dict[str, Callable[[], str]] = {
    "demo": demo,
    "accuracy": accuracy,
    "ranges": ranges,
    "contests": contests,
    "advice": advice,
    "parity": parity,
    "speed": speed,
    "growth": growth,
    "index": index,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
