"""Commands as processes forked from this one, each in a folder of its own, and what is wrong with how one ended."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from octoscale.cli import main as cli
from octoscale.report.figures import of_run

SECONDS = 120  # a command that takes longer hangs


MEMORY = 12 << 30  # bytes; a command that asks for more reads what it should not


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int
    arguments: str
    out: str
    err: str


class Command:
    """`octoscale ARGUMENTS` in a process of its own, forked from this one; it makes its arguments itself.

    Nothing of polars runs before the fork: its threads would not be there after it.
    """

    def __init__(self, make: Callable[[], Sequence[str]], folder: Path) -> None:
        self._files = [folder / name for name in ("arguments", "stdout", "stderr")]
        self._deadline = time.monotonic() + SECONDS
        self._child = os.fork()
        if self._child == 0:
            try:
                _run(make, self._files)
            finally:
                os._exit(99)

    def end(self, *, wait: bool = True) -> End | None:
        """How it ended, with code -9 if it had to be killed; None if it goes on."""
        while True:
            late = time.monotonic() > self._deadline
            if late:
                os.kill(self._child, signal.SIGKILL)
            done, status = os.waitpid(self._child, 0 if late else os.WNOHANG)
            if done:
                texts = (file.read_text(errors="replace") if file.exists() else "" for file in self._files)
                return End(os.waitstatus_to_exitcode(status), *texts)
            if not wait:
                return None
            time.sleep(0.005)


def _run(make: Callable[[], Sequence[str]], files: Sequence[Path]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)  # after a fork, torch makes its pool anew at the first use, and two threads at once fail
    arguments = make()
    files[0].write_text(" ".join(arguments))
    for number, file in enumerate(files[1:], 1):
        os.dup2(os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    sys.argv = ["octoscale", *arguments]
    os.chdir(files[0].parent)
    code = _exit_code()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code() -> int:
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def faults(end: End, named: Sequence[str]) -> list[str]:
    """What is wrong with how a command ended; nothing, if all is right."""
    found = []
    if end.code not in (0, 2):
        found.append(f"exit code {end.code}")
    if "Traceback" in end.err:
        found.append("a traceback")
    if "\x1b" in end.out + end.err:
        found.append("an escape sequence")
    errors = [line for line in end.err.splitlines() if line.startswith("octoscale: error: ")]
    if end.code == 2 and len(errors) != 1:
        found.append(f"{len(errors)} lines of errors")
    elif end.code == 2 and not any(name in errors[0] for name in named):
        found.append("the error names no file")
    return found


@pytest.fixture(scope="module", autouse=True)
def small_figures():
    """Figures are drawn to be drawn, not to be looked at; one thread, as a fork must not lose others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    save = of_run.save

    def small(figure, folder, stem, formats=()):
        figure.set_dpi(20)
        return save(figure, folder, stem, ("svg",))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "save", small)
        yield
    torch.set_num_threads(threads)
