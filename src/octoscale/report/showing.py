"""A run on the terminal: first what was measured, then what is damaged, then its figures.

A figure that fails comes last, as an error of the command: it never hides the table. JSON holds the same: `figures` are
those that were drawn, `damaged` and `not_drawn` are there if anything is.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octoscale.report import terminal
from octoscale.report.advice import advice_lines, advice_tables, terminal_table
from octoscale.report.contents import RunContents, read_run
from octoscale.report.data.training import has_losses, loss_curves
from octoscale.report.figures import of_run
from octoscale.report.figures.of_run import Drawing
from octoscale.report.figures.publish import Published
from octoscale.report.tasks_table import tasks_table
from octoscale.runs.folder import RunFolder
from octoscale.system.errors import UserError
from octoscale.system.printable import first_line, printable


def show(folder: Path | str, *, as_json: bool, module: str | None = None) -> None:
    """Print a run's results, and draw its figures. Whatever a figure raises is raised after that."""
    contents = read_run(folder)
    if module is not None:
        of_run.check_module(contents.scales, module)
    if not as_json:
        _print_results(contents)
    drawing = of_run.draw_all(contents, module)
    if as_json:
        found = {
            **contents.summary,
            **contents.advice,
            "run": str(contents.path),
            "figures": [str(path) for path in drawing.paths],
        }
        terminal.print_json(found | _lacking(contents.damaged, drawing))
    else:
        _print_lines([f"records and {len(drawing.paths)} figures: {contents.path}"])
    for name, error in drawing.failures.items():
        raise _about(name, error) from error


def compare(folders: Sequence[Path | str], *, as_json: bool) -> None:
    """Print what several trainings reached, and draw their losses over each other."""
    runs = [read_run(folder) for folder in folders]
    damaged = [damage for run in runs for damage in run.damaged]
    readable = [run for run in runs if has_losses(run) or not run.damaged]
    if not readable:
        raise UserError(f"no losses of these runs can be read: {damaged[0]}")
    labels = [curve.label for curve in loss_curves(readable)]
    if not as_json:
        terminal.print_content(terminal.runs_table(labels, [run.summary for run in readable]))
        _say_damaged(damaged)
    drawn = of_run.draw_losses(readable)
    if as_json:
        of_runs = [{**run.summary, "run": str(run.path)} for run in readable]
        terminal.print_json({"runs": of_runs, "figures": [str(drawn)]} | ({"damaged": damaged} if damaged else {}))
    else:
        _print_lines([f"the losses over each other: {drawn}"])


def show_published(contents: RunContents, published: Published, *, as_json: bool) -> None:
    """Print which figures were written, each with its caption, and what the others need; raises as `show`."""
    drawing, lacking = published.drawing, contents.missing
    if as_json:
        files = {stem: [str(path) for path in paths] for stem, paths in drawing.files.items()}
        found = {"run": str(contents.path), "figures": files, "captions": drawing.captions, "needs": published.needs}
        terminal.print_json(found | {"missing": lacking} | _lacking([], drawing))
    else:
        for stem, paths in drawing.files.items():
            _print_lines([f"{stem}{', '.join(path.suffix for path in paths)}: {drawing.captions[stem]}"])
        _print_lines([f"no {name}: {why}" for name, why in published.needs.items()])
        _print_lines([f"{len(drawing.files)} figures: {published.folder}"])
        _warn(lacking)
    for name, error in drawing.failures.items():
        raise _about(name, error) from error


def _print_results(contents: RunContents) -> None:
    summary, header = contents.summary, contents.header
    if summary.get("perplexity"):
        terminal.print_content(terminal.scores_table(summary))
    if summary.get("tasks"):
        terminal.print_content(tasks_table(summary))
    if "validation_loss" in summary:
        terminal.print_content(terminal.training_table(summary))
    if contents.advice:
        _print_advice(contents)
        return
    if not (contents.has_results or contents.damaged):
        _print_lines([_what_is_kept(contents.path)])
    lines = [header.get("note", ""), *(summary.get(name, {}).get("text", "") for name in ("cscale_range", "bias_map"))]
    lines += [f"{scaling}: {failure}" for scaling, failure in summary.get("failures", {}).items()]
    if "backend" in header:
        lines.append(f"backend: {header['backend']}" + (f" ({header['reason']})" if "reason" in header else ""))
    _print_lines(lines)
    _say_damaged(contents.damaged)


def _print_advice(contents: RunContents) -> None:
    for table in advice_tables(contents.advice):
        terminal.print_content(terminal_table(table))
    recipe = RunFolder(contents.path).recipe
    lines = [contents.header.get("note", ""), *advice_lines(contents.advice)]
    _print_lines([*lines, f"the recipe: --recipe {recipe}" if recipe.exists() else ""])
    _say_damaged(contents.damaged)


def _what_is_kept(folder: Path) -> str:
    """Of a run that has no results yet."""
    cells = RunFolder(folder).cells
    hint = f"; {cells} holds what was measured: the same command with --resume --out {folder} goes on"
    return f"no results yet{hint if cells.is_dir() else ''}"


def _print_lines(lines: Sequence[str]) -> None:
    terminal.print_content("\n".join(line for line in lines if line))


def _say_damaged(damaged: Sequence[str]) -> None:
    _warn([f"damaged, and left out: {damage}" for damage in damaged])


def _warn(lines: Sequence[str]) -> None:
    """On stderr, where they do not mix with results."""
    sys.stdout.flush()
    for line in lines:
        sys.stderr.write(f"octoscale: {printable(line)}\n")


def _lacking(damaged: Sequence[str], drawing: Drawing) -> dict[str, Any]:
    not_drawn = {name: first_line(error) for name, error in drawing.failures.items()}
    return ({"damaged": list(damaged)} if damaged else {}) | ({"not_drawn": not_drawn} if not_drawn else {})


def _about(name: str, error: Exception) -> Exception:
    """The error with the figure's name, if it is one of the disk; a defect stays what it is."""
    return OSError(f"the figure {name} could not be drawn: {error}") if isinstance(error, OSError) else error
