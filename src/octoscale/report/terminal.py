"""Tables and progress bars for the terminal: what a run wrote, and the library's own data, as a reader sees it.

Whatever is shown goes through a `PlainConsole`: names from files are text, never markup or escape sequences.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from octoscale.numerics.formats import FORMATS
from octoscale.report.data.paired_losses import Excess, excesses
from octoscale.report.data.validation import reference_of
from octoscale.system.printable import printable
from octoscale.validation.role_map import pair_of
from octoscale.validation.scores import flatten

#: Called with the scaling, windows done, windows in all.
Report = Callable[[str, int, int], None]

_SPECIAL_VALUES = {
    "ieee": "inf, NaN (IEEE 754)",
    "fn": "NaN, one a sign",
    "fnuz": "NaN, the code of -0",
}


class PlainConsole(Console):
    """A console to which every text is just text: no markup, no emoji, no highlights, no control characters."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it, of the text's printable form."""
        return super().render_str(printable(text), **options)

    def print_text(self, text: str) -> None:
        """Print a text whose lines are never cut or folded."""
        self.print(text, soft_wrap=True)

    def print_table(self, table: Table) -> None:
        """Print a table whose columns are as wide as their longest words, wherever that ends: no number is ever cut."""
        unbounded = self.options.update(width=100_000)
        for column in table.columns:
            words = [Measurement.get(self, unbounded, cell).minimum for cell in (column.header, *column.cells)]
            column.min_width = max(words)
        self.print(table, crop=False)


def print_content(content: Any) -> None:
    """Print a table or a text, and anything else as JSON."""
    if isinstance(content, Table):
        PlainConsole().print_table(content)
    elif isinstance(content, str):
        PlainConsole().print_text(content)
    else:
        print_json(content)


def print_json(content: Any) -> None:
    """Print JSON: exact, whatever is in it."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def formats_table() -> Table:
    """The paper's Table 7: the formats with their derived numbers."""
    table = Table(title="FP8 formats (Perez et al. 2023, Table 7)")
    for column in ("format", "in the paper", "bias", "max", "min normal", "min subnormal", "special values"):
        table.add_column(column)
    for fmt in FORMATS.values():
        smallest = f"2^{fmt.min_normal_exponent}", f"2^{fmt.min_subnormal_exponent}"
        special = _SPECIAL_VALUES[fmt.special]
        table.add_row(fmt.name, fmt.paper_name, str(fmt.bias), f"{fmt.max:g}", *smallest, special)
    return table


def models_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The models that have names of their own."""
    table = Table(title="models; or a checkpoint folder, a .gguf file, a hub id org/name")
    for column, justify in (
        ("MODEL", "left"),
        ("linear weights", "right"),
        ("in FP8", "right"),
        ("what it is", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        weights = row["linear_weights"]
        table.add_row(row["name"], f"{weights / 1e6:,.0f} M", f"{weights / 2**30:.2f} GiB", row["description"])
    return table


def scores_table(summary: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]] = ()) -> Table:
    """The results of a run, one line a scaling, relative to the first high precision in it, else to the first scaling.

    metrics: the losses of its windows, of which the intervals are made. A map has its pairs.
    """
    scores = flatten(summary["perplexity"])
    if "bias_map" in summary:
        scores = {name: score for name, score in scores.items() if pair_of(name) is None}
    seconds = flatten(summary.get("seconds", {}))
    base = reference_of(scores)
    intervals = excesses(base, scores, metrics)
    what = f"{summary['model']}: " if "model" in summary else ""
    text = f" of {summary['text']}" if "text" in summary else ""
    length = f" over {summary['tokens']:,} tokens" if "tokens" in summary else ""
    paired = [f"; intervals of {found.windows:,} paired windows" for found in intervals.values()][:1]
    table = Table(title=f"{what}perplexity{length}{text}{''.join(paired)}")
    table.add_column("scaling")
    for name in ("perplexity", f"against {base}", *["95 % interval"] * bool(intervals), "seconds"):
        table.add_column(name, justify="right")
    for name, value in scores.items():
        cells = [name, perplexity_text(value), against(value, scores[base])]
        cells += [_interval(intervals.get(name))] if intervals else []
        table.add_row(*cells, f"{seconds[name]:.1f}" if name in seconds else "-")
    return table


def _interval(found: Excess | None) -> str:
    return "-" if found is None else f"{_excess_text(found.low)} to {_excess_text(found.high)}"


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Names and what they are, one line each."""
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        words = ", ".join(value) or "none" if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), words)
    return table


def bench_table(report: Mapping[str, Any]) -> Table:
    """Seconds of each candidate, then limits, and the ratios that carry over to other machines: a section each.

    A row that the report calls estimated says so, and from what.
    """
    table, estimated = facts_table({"measured": report["what"]} | report["machine"]), report.get("estimated", {})
    for title in (key for key in report if key not in ("what", "machine", "estimated")):
        table.add_section()
        for name, value in flatten_names(report[title]).items():
            how = f", estimated {estimated[name]}" if name in estimated else ""
            table.add_row(name.replace("_", " "), _figure(value, title) + how)
    return table


def _figure(value: float | None, kind: str) -> str:
    if value is None:
        return "not installed"
    return f"{value * 1e3:.3f} ms" if kind == "seconds" else f"{value:.3g}"


def flatten_names(table: Mapping[str, Any]) -> dict[str, Any]:
    """{a: {b: value}} -> {"a: b": value}."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= {f"{name}: {key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def perplexity_text(value: float | None) -> str:
    """A perplexity with four digits behind the point while that is readable, else with an exponent."""
    if value is None:
        return "not finite"
    return f"{value:.4f}" if value < 1e4 else f"{value:.2e}"


@contextmanager
def progress_bar(console: PlainConsole, num_scalings: int, unit: str = "windows") -> Iterator[Report]:
    """One bar over all scalings; call what it yields with (scaling, units done, units in all).

    Where the console is a file, the bar becomes one line for each scaling that is done, and one when its second unit
    is, with the expected time, if that is more than a few seconds: before the first, weights are cast.
    """
    if not console.is_terminal:
        yield _progress_lines(console, unit)
        return
    text = TextColumn("{task.description:24}", markup=False)
    bar = Progress(text, BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn(), console=console)
    with bar:
        task = bar.add_task("starting", total=None)
        seen: dict[str, int] = {}

        def report(scaling: str, done: int, total: int) -> None:
            seen[scaling] = done
            bar.update(task, description=printable(scaling), completed=sum(seen.values()), total=total * num_scalings)

        yield report


def _progress_lines(console: PlainConsole, unit: str) -> Report:
    first: dict[str, tuple[int, float]] = {}
    seen: dict[str, int] = {}

    def report(scaling: str, done: int, total: int) -> None:
        before, seen[scaling] = seen.get(scaling, 0), done
        start, began = first.setdefault(scaling, (done, time.monotonic()))
        if done == total > before:
            console.print_text(f"{scaling}: {done} {unit}")
        elif before == start < done:
            expected = (total - done) * (time.monotonic() - began) / (done - start)
            if expected > 5:
                console.print_text(f"{scaling}: {done} of {total} {unit}; {expected:.0f} s to go, about")

    return report


@contextmanager
def step_bar(console: PlainConsole, num_steps: int) -> Iterator[Callable[[int, float], None]]:
    """A bar over the steps of a training; call what it yields with (steps done, loss). In a file: a line each tenth."""
    if not console.is_terminal:
        tenth = max(1, num_steps // 10)
        yield lambda step, loss: console.print_text(f"step {step}: loss {loss:.4f}") if step % tenth == 0 else None
        return
    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=num_steps)
        yield lambda step, loss: bar.update(task, completed=step, description=f"loss {loss:.4f}")


@contextmanager
def bytes_bar(console: PlainConsole) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes, for `checkpoint.Progress`; in a file: nothing."""
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def training_table(summary: Mapping[str, Any]) -> Table:
    """What a training did: its length, and the validation before and after; what the summary lacks is left out."""
    unit = "tokens" if "tokens" in summary else "examples"
    lengths = [f"{summary['steps']:,}"] if "steps" in summary else []
    lengths += [f"{summary[unit]:,} {unit}"] if unit in summary else []
    lengths += [f"{summary['seconds']:.1f} s"] if "seconds" in summary else []
    facts = {name: summary[name] for name in ("model", "scaling") if name in summary} | {"steps": ", ".join(lengths)}
    if summary.get("skipped_steps"):
        facts["skipped"] = f"{summary['skipped_steps']:,} steps, whose gradients held infinity or NaN"
    if "training_loss" in summary:
        facts["training loss"] = f"{_number(summary['training_loss'])} on average"
    for name in ("loss", "accuracy"):
        values = summary.get(f"validation_{name}")
        if values is not None:
            facts[f"validation {name}"] = f"{_number(values['before'])} before, {_number(values['after'])} after"
    if "failure" in summary:
        facts["failure"] = summary["failure"]
    return facts_table(facts)


def runs_table(labels: Sequence[str], summaries: Sequence[Mapping[str, Any]]) -> Table:
    """What several trainings reached, a dash where one did not end; validation losses against the first one's."""
    with_accuracy = any("validation_accuracy" in summary for summary in summaries)
    table = Table(box=None, header_style="bold")
    table.add_column("run")
    for name in ("steps", "training loss", "validation loss", "against the first", *["accuracy"] * with_accuracy):
        table.add_column(name, justify="right")
    first = summaries[0].get("validation_loss", {}).get("after")
    for label, summary in zip(labels, summaries, strict=True):
        after = summary.get("validation_loss", {})
        cells = [
            f"{summary['steps']:,}" if "steps" in summary else "-",
            _number(summary["training_loss"]) if "training_loss" in summary else "-",
            _number(after["after"]) if after else "-",
            against(after.get("after"), first),
        ]
        accuracy = summary.get("validation_accuracy", {})
        table.add_row(label, *cells, *([_number(accuracy["after"]) if accuracy else "-"] if with_accuracy else []))
    return table


def _number(value: float | None) -> str:
    """Four digits; a loss that was not finite is null in a summary."""
    return "not finite" if value is None else f"{value:.4f}"


def against(value: float | None, base: float | None) -> str:
    """A perplexity relative to the reference: +3.52%, or x 15.7 where that is far away."""
    if value is None or not base or not math.isfinite(base):
        return "-"
    return _excess_text(value / base - 1)


def _excess_text(excess: float) -> str:
    return f"{excess:+.2%}" if abs(excess) < 10 else f"x {1 + excess:.3g}"
