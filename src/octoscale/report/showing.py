"""A run on the terminal: first what was measured, then what is damaged, then its figures.

A figure that fails comes last, as an error of the command: it never hides the table. JSON holds the same: `figures` are
those that were drawn, `damaged` and `not_drawn` are there if anything is.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octoscale.report import terminal
from octoscale.report.advice import advice_lines, advice_tables, terminal_table
from octoscale.report.contents import RunContents, read_run
from octoscale.report.data.bands import bands_in_words
from octoscale.report.data.paired_losses import excesses, excesses_to_json
from octoscale.report.data.training import has_losses, loss_curves
from octoscale.report.data.validation import reference_of
from octoscale.report.figures import of_run
from octoscale.report.figures.of_run import Drawing
from octoscale.report.figures.publish import Published
from octoscale.report.page.write import write_report
from octoscale.report.parity import parity_lines, parity_tables
from octoscale.report.tasks_table import tasks_table
from octoscale.runs.folder import RunFolder
from octoscale.system.errors import UserError
from octoscale.system.printable import first_line, printable
from octoscale.validation.scores import flatten


def show(folder: Path | str, *, as_json: bool, module: str | None = None, with_page: bool = False) -> None:
    """Print a run's results, draw its figures, and write its page. Whatever a figure raises is raised after that."""
    contents = read_run(folder)
    if module is not None:
        of_run.check_module(contents.scales, module)
    if not as_json:
        _print_results(contents)
    drawing = of_run.draw_all(contents, module)
    contents = replace(contents, scales=contents.scales.clear())  # the page reads them part by part
    page = write_report([folder], RunFolder(contents.path).report) if with_page else None
    if as_json:
        found = {
            **contents.summary,
            **contents.advice,
            **contents.parity,
            **_paired(contents),
            "run": str(contents.path),
            "figures": [str(path) for path in drawing.paths],
            **({"page": str(page)} if page else {}),
        }
        terminal.print_json(found | _lacking(contents.damaged, drawing))
    else:
        _print_lines([f"records and {len(drawing.paths)} figures: {contents.path}", *([_open(page)] if page else [])])
    for name, error in drawing.failures.items():
        raise _about(name, error) from error


def compare(folders: Sequence[Path | str], *, as_json: bool) -> None:
    """Print what several runs reached, draw the losses of trainings over each other, and write a page of all.

    UserError if one holds nothing to compare.
    """
    runs = [read_run(folder) for folder in folders]
    damaged = [damage for run in runs for damage in run.damaged]
    for run in runs:
        if not run.damaged and not _has_results(run):
            raise UserError(f"{run.path} holds nothing to compare: no losses, no results, no scales")
    trainings = [run for run in runs if has_losses(run)]
    readable = [run for run in runs if _has_results(run)]
    if not readable:
        raise UserError(f"nothing of these runs can be read: {damaged[0]}")
    if not as_json:
        _print_comparison(trainings, readable)
        _say_damaged(damaged)
    drawn = [of_run.draw_losses(trainings)] if trainings else []
    page = write_report([run.path for run in runs], RunFolder(runs[0].path).report)
    if as_json:
        of_runs = [{**run.summary, **_paired(run), "run": str(run.path)} for run in readable]
        found = {"runs": of_runs, "figures": [str(path) for path in drawn], "page": str(page)}
        terminal.print_json(found | ({"damaged": damaged} if damaged else {}))
    else:
        _print_lines([*(f"the losses over each other: {path}" for path in drawn), _open(page)])


def _has_results(run: RunContents) -> bool:
    return has_losses(run) or bool(run.summary) or not run.scales.is_empty()


def _print_comparison(trainings: Sequence[RunContents], runs: Sequence[RunContents]) -> None:
    """Trainings in one table, other runs in one each."""
    if trainings:
        labels = [curve.label for curve in loss_curves(trainings)]
        terminal.print_content(terminal.runs_table(labels, [run.summary for run in trainings]))
    for run in runs:
        if run.summary.get("perplexity"):
            terminal.print_content(terminal.scores_table(run.summary, run.metrics))
        if run.summary.get("tasks"):
            terminal.print_content(tasks_table(run.summary))


def show_published(path: Path, published: Published, lacking: Sequence[str], *, as_json: bool) -> None:
    """Print which figures were written, each with its caption, and what the others need; raises as `show`.

    lacking: of the run, or reproduction, at `path`, what is missing or damaged, a line each.
    """
    drawing = published.drawing
    if as_json:
        files = {stem: [str(path) for path in paths] for stem, paths in drawing.files.items()}
        found = {"run": str(path), "figures": files, "captions": drawing.captions, "needs": published.needs}
        terminal.print_json(found | {"missing": [*lacking]} | _lacking([], drawing))
    else:
        for stem, paths in drawing.files.items():
            _print_lines([f"{stem}{', '.join(path.suffix for path in paths)}: {drawing.captions[stem]}"])
        _print_lines([f"no {name}: {why}" for name, why in published.needs.items()])
        number = len(drawing.files)
        _print_lines([f"{number} figure{'s' * (number != 1)}: {published.folder}"])
        _warn(lacking)
    for name, error in drawing.failures.items():
        raise _about(name, error) from error


def _paired(contents: RunContents) -> dict[str, Any]:
    """The differences between perplexities with their intervals; nothing where there is none."""
    scores = flatten(contents.summary.get("perplexity", {}))
    found = excesses(reference_of(scores), scores, contents.metrics)
    return {"perplexity_excess": excesses_to_json(reference_of(scores), found)} if found else {}


def _print_results(contents: RunContents) -> None:
    summary, header = contents.summary, contents.header
    if summary.get("perplexity"):
        terminal.print_content(terminal.scores_table(summary, contents.metrics))
    if summary.get("tasks"):
        terminal.print_content(tasks_table(summary))
    if "validation_loss" in summary:
        terminal.print_content(terminal.training_table(summary))
    if contents.advice:
        _print_advice(contents)
        return
    for table in parity_tables(contents.parity):
        terminal.print_content(terminal_table(table))
    if not (contents.has_results or contents.damaged):
        _print_lines([_what_is_kept(contents.path)])
    lines = [header.get("note", ""), *(summary.get(name, {}).get("text", "") for name in ("cscale_range", "bias_map"))]
    lines += [f"{scaling}: {failure}" for scaling, failure in summary.get("failures", {}).items()]
    lines += parity_lines(contents.parity)
    if "backend" in header and not contents.parity:
        lines.append(f"backend: {header['backend']}" + (f" ({header['reason']})" if "reason" in header else ""))
    lines += bands_in_words(contents.scales)
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


def _open(page: Path) -> str:
    return f"to explore it, open {page} in a browser"


def _lacking(damaged: Sequence[str], drawing: Drawing) -> dict[str, Any]:
    not_drawn = {name: first_line(error) for name, error in drawing.failures.items()}
    return ({"damaged": list(damaged)} if damaged else {}) | ({"not_drawn": not_drawn} if not_drawn else {})


def _about(name: str, error: Exception) -> Exception:
    """The error with the figure's name, if it is one of the disk; a defect stays what it is."""
    return OSError(f"the figure {name} could not be drawn: {error}") if isinstance(error, OSError) else error
