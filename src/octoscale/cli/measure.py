"""Commands that measure what FP8 does to a model: demo, validate, sweep, reproduce."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octoscale.cli.app import MEASURE, app
from octoscale.cli.options import Json, Out, Overwrite, Words, takes
from octoscale.cli.output import interruptible, run_folder, say, show
from octoscale.paper.settings import Reproduction
from octoscale.system.heap import keep_freed_memory
from octoscale.validation.settings import Demo, Sweep, Validation

if TYPE_CHECKING:
    from octoscale.paper.cell import Cell

_PLACE = "The folder of tables, figures and measurements; what is there is not measured again."


@app.command(rich_help_panel=MEASURE)
@takes(Demo)
def demo(words: Words[Demo], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """See what FP8 does to a real model: SmolLM2-135M in bf16, FP8-AMAX, and FP8-CSCALE with biases -8 to 6."""
    settings = words.settings().validation()
    _carry_out(settings, run_folder(out, "demo"), overwrite, as_json, find_range=True)


@app.command(rich_help_panel=MEASURE)
@takes(Validation)
def validate(words: Words[Validation], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Measure a model under one or several scalings: a text's perplexity, tasks; and record every scale."""
    from octoscale.validation.run import scalings_for

    settings = words.settings(scalings=scalings_for(**words.values))
    _carry_out(settings, run_folder(out, "validate"), overwrite, as_json)


@app.command(rich_help_panel=MEASURE)
@takes(Sweep)
def sweep(words: Words[Sweep], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Find the constant scales (FP8-CSCALE) that a model survives.

    A bias passes if its perplexity is within 0.5 % of FP8-AMAX's; with --task, if its accuracy is at least 99.5 % of
    the high-precision one.
    """
    from octoscale.validation.run import check_sweep

    settings = words.settings().validation()
    check_sweep(settings.model)
    _carry_out(settings, run_folder(out, "sweep"), overwrite, as_json, find_range=True)


@app.command(rich_help_panel=MEASURE)
@takes(Reproduction)
def reproduce(
    words: Words[Reproduction],
    out: Annotated[Path, typer.Option(help=_PLACE)] = Path("runs/reproduce"),
    as_json: Json = False,
) -> None:
    """Measure a table or figure of the paper (Perez et al. 2023) again, beside its own numbers.

    Each measurement is kept: after Ctrl-C, or a kill, the same command goes on.
    """
    settings = words.settings()
    from octoscale.paper.reproduce import reproduce as make
    from octoscale.report.paper_figures import draw_paper
    from octoscale.report.paper_page import write_page

    keep_freed_memory()
    with interruptible(lambda: f"interrupted; what was measured is kept in {out}: the same command goes on"):
        names = make(settings, out, bars=_cell_bar)
    pictures = draw_paper(out)
    write_page(out)
    if as_json:
        contents = {name: json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in names}
        show(contents | {"folder": str(out), "figures": [str(path) for path in pictures]})
        return
    tables = [out / f"{name}.md" for name in names if name.startswith("table")]
    texts = [path.read_text(encoding="utf-8") for path in tables]
    show("\n".join([*texts, f"tables and {len(pictures)} figures: {out / 'index.html'}"]))


@contextmanager
def _cell_bar(cell: "Cell") -> Iterator[Any]:
    """A line that says what is measured, and a bar of its progress."""
    from octoscale.report import terminal
    from octoscale.training.settings import Training

    console = terminal.PlainConsole(stderr=True)
    say(cell.label)
    if isinstance(cell.words, Training):
        with terminal.step_bar(console, cell.words.steps) as progress:
            yield progress
    else:
        with terminal.progress_bar(console, 1, cell.words.unit) as report:
            yield report


def _carry_out(settings: Validation, folder: Path, overwrite: bool, as_json: bool, *, find_range: bool = False) -> None:
    """Run a validation with a progress bar, then show it; on Ctrl-C say what is there and exit with 130."""
    from octoscale.report import showing, terminal
    from octoscale.validation.run import check_finite, run_validation

    def what_is_there() -> str:
        there = f"; what was measured until now: octoscale report {folder}" if (folder / "run.json").exists() else ""
        return f"interrupted{there}"

    keep_freed_memory()
    say(f"loading {settings.model}; the run goes to {folder}")
    console, unit = terminal.PlainConsole(stderr=True), settings.unit
    with interruptible(what_is_there), terminal.progress_bar(console, len(settings.scalings), unit) as progress:
        run = run_validation(settings, folder, overwrite=overwrite, find_range=find_range, progress=progress)
    showing.show(run.path, as_json=as_json)
    check_finite(run)
