"""What the files of a run say, as far as they can be read: damage is named, and the rest is shown.

    contents = read_run("runs/mine")
    contents.summary["perplexity"]           what is there has the type and the range that a run writes
    contents.damaged                         what is not, one line each

Tables and figures take a run from here and trust it: no number in it is absurd, no name is anything but a text.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import polars as pl

from octoscale.conversion.kinds import KINDS
from octoscale.kernels.base import NUM_EXPONENT_BINS
from octoscale.numerics.formats import FORMATS, ROLES
from octoscale.numerics.granularity import GRANULARITIES
from octoscale.report.advice_contents import advice_of
from octoscale.report.data.histograms import abridged, has_exponents
from octoscale.report.fields import (
    LONGEST_MODULE,
    LONGEST_NAME,
    MOST,
    MOST_BITS,
    MOST_LAYERS,
    Check,
    are_failures,
    are_texts,
    checked,
    is_before_and_after,
    is_bias,
    is_count,
    is_loss,
    is_map,
    is_number,
    is_plan,
    is_range,
    is_score,
    is_text,
    is_time,
    says,
)
from octoscale.report.parity_contents import parity_of
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import readable_parts
from octoscale.runs.scales import SCHEMA
from octoscale.system.errors import UserError
from octoscale.system.inside import LEADS_OUT, is_inside


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """What a run's files say. `metrics` and `notes` are the lines of those files, `scales` the rows of all parts.

    Of their histograms, which are most of their bytes, the rows may have only what tables and rules ask of them
    (data/histograms.py). advice, parity: what advice.json and parity.json hold; empty if the run is no such, or not
    done.
    """

    path: Path
    header: dict[str, Any]
    summary: dict[str, Any]
    advice: dict[str, Any]
    metrics: list[dict[str, Any]]
    scales: pl.DataFrame
    damaged: list[str]
    notes: list[dict[str, Any]] = field(default_factory=list)
    parity: dict[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> Path:
        """The folder for its figures."""
        return RunFolder(self.path).figures

    def of_module(self, module: str) -> pl.DataFrame:
        """The rows of one module, with their histograms: read again, unless they are here."""
        of = pl.col("module") == module
        if has_exponents(self.scales):
            return self.scales.filter(of)
        return _scales(RunFolder(self.path), [], lambda part: part.filter(of))

    @property
    def has_results(self) -> bool:
        """Whether anything that was measured can be read."""
        return bool(self.summary or self.advice or self.parity or self.metrics or self.scales.height)

    @property
    def training_rows(self) -> list[dict[str, Any]]:
        """The measurements of a training."""
        return [row for row in self.metrics if row.get("phase") == "train"]

    @property
    def missing(self) -> list[str]:
        """What a run that ended well would have: a line for what is not there, and for each thing that is damaged."""
        lines = [f"damaged, and left out: {damage}" for damage in self.damaged]
        if not self.summary and not self.advice:
            lines.append("there are no results: the run goes on, was stopped before its end, or was only recorded")
        if self.scales.is_empty() and not self.advice:
            lines.append("there are no scales: none were written until now, or no layer is in FP8")
        return lines


def read_run(folder: Path | str, *, needs_header: bool = True, whole: bool = False) -> RunContents:
    """Read a run. FileNotFoundError if `folder` is none; ValueError if nothing of it can be read.

    needs_header: a folder without run.json is no run; else it is one whose header is empty. whole: the rows keep their
    histograms.
    """
    run = RunFolder.open(folder) if needs_header else RunFolder(folder)
    found = read_results(run.path)
    found = replace(found, scales=_scales(run, found.damaged, None if whole else abridged))
    if found.damaged and not found.header and not found.has_results:
        raise UserError(f"nothing of {run.path} can be read: {found.damaged[0]}")
    return found


def read_results(folder: Path | str) -> RunContents:
    """Read all of a run but its scales, of which there may be millions; of a folder without a run, nothing."""
    run = RunFolder(folder)
    damaged: list[str] = []
    return RunContents(
        path=run.path,
        header=checked(json_object(run.header, damaged), _HEADER, run.header, damaged),
        summary=_summary(run.summary, damaged),
        advice=advice_of(json_object(run.advice, damaged), run.advice, damaged),
        parity=parity_of(json_object(run.parity, damaged), run.parity, damaged),
        metrics=_lines(run.metrics, _measurement, damaged),
        notes=_lines(run.notes, _note, damaged),
        scales=pl.DataFrame(schema=SCHEMA),
        damaged=damaged,
    )


#: Tables of a value for each scaling, constant ones by their bias under `cscale`.
_PER_SCALING: dict[str, Check] = {"perplexity": is_score, "seconds": is_time}

#: What summary.json holds of a task, beside the scores of each scaling.
_TASK: dict[str, Check] = {"metric": is_text, "items": is_count}

_HEADER: dict[str, Check] = {"note": is_text, "backend": is_text, "reason": is_text, "plan": is_plan}
_SUMMARY: dict[str, Check] = {
    **dict.fromkeys(("model", "text", "formats", "backend", "reason", "scaling"), is_text),
    **dict.fromkeys(("tokens", "window", "steps", "examples", "skipped_steps", "resumed_after_step"), is_count),
    "training_loss": is_loss,
    "validation_loss": is_before_and_after,
    "validation_accuracy": is_before_and_after,
    "cscale_range": is_range,
    "bias_map": is_map,
    "failures": are_failures,
}
_METRICS: dict[str, Check] = {
    **dict.fromkeys(("phase", "scaling"), is_text),
    **dict.fromkeys(("loss", "eval_loss"), is_loss),
    "step": is_count,
    "skipped": lambda value: isinstance(value, bool),
}


_OF_GROUP: dict[str, Check] = {"phase": is_text, "scaling": is_text}
_NOTES: dict[str, dict[str, Check]] = {
    "modules": {**_OF_GROUP, "fp8": are_texts, "frozen": are_texts, "kept": are_failures, "operands": are_failures},
    **{what: {**_OF_GROUP, "step": is_count, "module": is_text} for what in ("stale_weight", "frozen_weight")},
    "loss_scale": {**_OF_GROUP, "step": is_count, "value": is_number},
}


def _summary(path: Path, damaged: list[str]) -> dict[str, Any]:
    """The results, with only those scores that can be ones. `seconds` of a training is one number."""
    summary = checked(json_object(path, damaged), _SUMMARY, path, damaged)
    for name, check in _PER_SCALING.items():
        value = summary.get(name)
        if isinstance(value, dict):
            summary[name] = _per_scaling(value, check, f"{path}: {name}", damaged)
        elif name in summary and not (name == "seconds" and is_time(value)):
            damaged.append(says(path, name, summary.pop(name)))
    if "tasks" in summary:
        summary["tasks"] = _tasks(summary["tasks"], f"{path}: tasks", damaged)
    return summary


def _tasks(tasks: Any, where: str, damaged: list[str]) -> dict[str, Any]:
    """The tasks whose scores can be ones."""
    kept: dict[str, Any] = {}
    for name, task in tasks.items() if isinstance(tasks, dict) else [("tasks", tasks)]:
        whole = isinstance(task, dict) and all(key in task and check(task[key]) for key, check in _TASK.items())
        if whole and isinstance(task.get("scores"), dict):
            check = partial(_has_score, task["metric"])
            kept[name] = {**task, "scores": _per_scaling(task["scores"], check, f"{where}: {name}", damaged)}
        else:
            damaged.append(says(where, name, task))
    return kept


def _has_score(metric: str, value: Any) -> bool:
    """Whether this is what a scaling reached: numbers, the metric that counts among them."""
    if not isinstance(value, dict) or value.get(metric) is None:
        return False
    numbers = [*value.values(), *(value["difference"].values() if isinstance(value.get("difference"), dict) else ())]
    return all(number is None or is_number(number) for number in numbers if not isinstance(number, dict))


def _per_scaling(table: dict[str, Any], check: Check, where: str, damaged: list[str]) -> dict[str, Any]:
    """The values of each scaling, and of each bias, that can be ones."""
    kept: dict[str, Any] = {}
    for scaling, value in table.items():
        if scaling == "cscale" and isinstance(value, dict):
            kept[scaling] = {bias: score for bias, score in value.items() if is_bias(bias) and check(score)}
            damaged.extend(says(where, f"cscale:{bias}", value[bias]) for bias in value if bias not in kept[scaling])
        elif scaling != "cscale" and check(value):
            kept[scaling] = value
        else:
            damaged.append(says(where, scaling, value))
    return kept


def json_object(path: Path, damaged: list[str]) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file, or it is damaged, which `damaged` then says."""
    data = _bytes(path, damaged)
    try:
        content = json.loads(data) if data is not None else {}
        if not isinstance(content, dict):
            raise UserError("it holds no object")
    except (ValueError, RecursionError, MemoryError) as error:
        damaged.append(f"{path} is damaged: {error}")
        return {}
    return content


def _bytes(path: Path, damaged: list[str]) -> bytes | None:
    """What a file of a run holds; None if there is none, or it is none that ends (a pipe), or it leads elsewhere."""
    try:
        if path.is_symlink() and path.exists() and not is_inside(path, path.parent):
            damaged.append(f"{path} {LEADS_OUT}")
        elif path.is_file():
            return path.read_bytes()
        elif path.exists() or path.is_symlink():
            damaged.append(f"{path} is no file")
    except (OSError, MemoryError) as error:
        damaged.append(f"{path} cannot be read: {error}")
    return None


def _lines(path: Path, parse: Callable[[bytes], dict[str, Any] | None], damaged: list[str]) -> list[dict[str, Any]]:
    """The lines that can be parsed; one without an end was cut short by a crash, which is no damage."""
    rows: list[dict[str, Any]] = []
    wrong: list[int] = []
    *lines, _cut_short = (_bytes(path, damaged) or b"").split(b"\n")
    for number, line in enumerate(lines, 1):
        row = parse(line)
        if row is None:
            wrong.append(number)
        else:
            rows.append(row)
    if wrong:
        more = f", and {len(wrong) - 1} others" if len(wrong) > 1 else ""
        damaged.append(f"{path}: line {wrong[0]} is no {_LINES[path.name]}{more}")
    return rows


#: What a line of these files is.
_LINES = {"metrics.jsonl": "measurement", "notes.jsonl": "note"}


def _measurement(line: bytes) -> dict[str, Any] | None:
    row = _object(line)
    if row is None or not all(check(row[name]) for name, check in _METRICS.items() if name in row):
        return None
    return row if "step" in row or row.get("phase") != "train" else None


def _note(line: bytes) -> dict[str, Any] | None:
    row = _object(line)
    checks = {} if row is None or not is_text(row.get("note")) else _NOTES.get(row["note"], {})
    return row if row is not None and checks and all(check(row.get(name)) for name, check in checks.items()) else None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError, MemoryError):
        return None
    return row if isinstance(row, dict) else None


_Part = Callable[[pl.DataFrame], pl.DataFrame]


def _scales(run: RunFolder, damaged: list[str], each: _Part | None) -> pl.DataFrame:
    """The rows of the parts that can be read and hold what a cast can see; each part is looked at by itself.

    each: what is kept of a part.
    """
    before = after = 0

    def possible_rows(part: pl.DataFrame) -> pl.DataFrame:
        nonlocal before, after
        rows = part.filter(possible())
        before, after = before + part.height, after + rows.height
        return rows if each is None else each(rows)

    tables, lost = readable_parts(run.scales, SCHEMA, run.path, possible_rows)
    damaged.extend(map(str, lost))
    if after < before:
        damaged.append(f"{run.scales}: {before - after} of {before} rows hold what no cast can see")
    return pl.concat([possible_rows(pl.DataFrame(schema=SCHEMA)), *tables])


def possible(longest: int = LONGEST_MODULE) -> pl.Expr:
    """Whether a row can have been written by a run. longest: bytes of a module's name."""
    counts = [pl.col(name).is_between(0, pl.col("numel")) for name in ("saturated", "flushed", "nonfinite")]
    names = [pl.col(name).str.len_bytes() <= LONGEST_NAME for name in ("scaling", "phase")]
    names.append(pl.col("module").str.len_bytes() <= longest)
    bins = pl.col("exponents")
    checks = [
        pl.col("step").is_between(0, MOST),
        pl.col("layer").is_null() | pl.col("layer").is_between(0, MOST_LAYERS),
        pl.col("kind").is_in(KINDS),
        pl.col("role").is_in(ROLES),
        pl.col("format").is_in(list(FORMATS)),
        pl.col("scale_bias").is_between(-MOST_BITS, MOST_BITS),
        *(pl.col(name).is_null() | within for name, within in _of_several()),
        pl.col("amax").is_not_null(),
        pl.col("numel").is_between(0, MOST),
        bins.is_null() | ((bins.list.len() == NUM_EXPONENT_BINS) & ~bins.list.eval(pl.element().is_null()).list.any()),
    ]
    return reduce(lambda a, b: a & b, [*checks, *counts, *names]).fill_null(value=False)


def _of_several() -> list[tuple[str, pl.Expr]]:
    """What a column about several scales holds, where it holds anything."""
    return [
        ("granularity", pl.col("granularity").is_in(list(GRANULARITIES))),
        ("scale_bias_high", pl.col("scale_bias_high").is_between(pl.col("scale_bias"), MOST_BITS)),
        ("num_scales", pl.col("num_scales").is_between(0, pl.col("numel") + 1)),
    ]
