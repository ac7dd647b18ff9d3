"""What a command prints, where its run goes, and how Ctrl-C ends it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks

if TYPE_CHECKING:
    from octoscale.paper.cell import Cell

T = TypeVar("T")


def show(content: Any) -> None:
    """Print a table, a text, or JSON."""
    from octoscale.report.terminal import print_content

    print_content(content)


def say(text: str) -> None:
    """A line on standard error, beside the bars of progress."""
    from octoscale.report.terminal import PlainConsole

    PlainConsole(stderr=True).print_text(text)


def run_folder(out: Path | None, command: str) -> Path:
    """The folder of a run: --out, or a new one below runs/."""
    return out or Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def shared_folder(out: Path | None, command: str) -> Path:
    """The same where many ranks write to one. UserError if they would each name their own."""
    if out is None and num_ranks() > 1:
        raise UserError("on many ranks, name the run's folder: --out RUN")
    return run_folder(out, command)


def together(do: Callable[[], T]) -> T:
    """What this process does, and each of many ranks, which meet before: what one is refused, all of them hear."""
    if num_ranks() == 1:
        return do()
    from octoscale.distributed import mesh

    with mesh.explained():
        mesh.join()
        return mesh.together(do)


def check_alone(command: str) -> None:
    """UserError for a command that many ranks would only repeat."""
    if num_ranks() > 1:
        raise UserError(f"octoscale {command} runs in one process: start it without torchrun")


def new_folder(out: Path | None, named: Path | None) -> Path:
    """The folder that a command is to write: OUT, or --out. UserError for neither, or both."""
    if (out is None) == (named is None):
        raise UserError("name the new checkpoint's folder, once: OUT behind the model, or --out OUT")
    return out or named or Path()


def check_resume(resume: bool, out: Path | None, overwrite: bool) -> None:
    """UserError for --resume without the run to go on with, or with the wish to replace it."""
    if resume and (out is None or overwrite):
        raise UserError("--resume goes on with the run that --out names" + (", not --overwrite" if overwrite else ""))


@contextmanager
def watched(wanted: bool, folder: Path) -> Iterator[None]:
    """If wanted, serve the page of a run while the block runs, and until an open page shows how it ended."""
    if not wanted:
        yield
        return
    from octoscale.report.page.server import serving

    with serving(folder, to_the_end=True) as url:
        say(f"watch it at {url}")
        yield


@contextmanager
def interruptible(what_is_there: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends with exit code 130, and with a line that says what is there."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{what_is_there()}\n")
        raise typer.Exit(130) from None


@contextmanager
def cell_bar(cell: "Cell") -> Iterator[Any]:
    """A line that says which cell is measured (paper/cell.py), and a bar of its progress."""
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
