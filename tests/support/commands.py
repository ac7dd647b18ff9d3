"""Commands as processes of their own, which can be killed: forked from a server that has imported all, so that they
start at once.
"""

import importlib.util
import io
import multiprocessing
import os
import signal
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_NAMES = (
    *("cli.main", "checkpoints.hf", "models.loading", "models.export", "models.materialize"),
    *("validation.run", "training.run", "report.terminal", "report.figures"),
)
_MODULES = [f"octoscale.{name}" for name in _NAMES]
assert all(map(importlib.util.find_spec, _MODULES)), "the server would pass over one that is not there"
_CONTEXT.set_forkserver_preload([*_MODULES, "warm"])

#: What Python says of a file before it is touched: the moments at which a process may end, or a disk be full.
_WRITES = ("open", "os.mkdir", "os.rename", "os.truncate")
_TOUCHES = (*_WRITES, "os.remove", "os.rmdir", "shutil.rmtree")


class Command:
    """`octoscale words` in a process.

    at: `kill` it, or let the disk be `full`, at its n-th touch of a file below `folder`. largest_file: in bytes.
    """

    def __init__(self, *words, folder: Path, at: int = 0, what: str = "kill", largest_file: int = 0) -> None:
        self.log = folder / f".log-{id(self)}"
        arguments = ([str(word) for word in words], str(self.log), str(folder), at, what, largest_file)
        self.process = _CONTEXT.Process(target=_run, args=arguments)
        self.process.start()

    def kill(self) -> None:
        """SIGKILL, wherever it is; nothing if it has ended."""
        if self.process.is_alive():
            self.process.kill()

    def wait(self) -> tuple[int, str]:
        """Exit code (-9 if it was killed), and its error lines."""
        self.process.join(300)
        assert self.process.exitcode is not None, "it hangs"
        text = self.log.read_text() if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        assert "Traceback" not in text, text
        return self.process.exitcode, "\n".join(line for line in text.splitlines() if "error:" in line)


def _run(words: list[str], log: str, folder: str, at: int, what: str, largest_file: int) -> None:
    output = os.open(log, os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb", 0), write_through=True) for number in (1, 2))
    if largest_file:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    if at:
        sys.addaudithook(_acting(at, what, folder))
    sys.argv = ["octoscale", *words]
    from octoscale.cli.main import main

    main()


def _acting(at: int, what: str, folder: str):
    """What is called with each event of Python's."""
    touches = [0]

    def hook(event: str, arguments: tuple) -> None:
        if event not in _TOUCHES or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        touches[0] += 1
        if what == "kill" and touches[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "full" and touches[0] >= at and event in _WRITES:
            raise OSError(28, os.strerror(28), arguments[0])

    return hook
