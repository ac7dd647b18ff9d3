"""What ends a command, told apart: a mistake that its user can mend, or a defect that we must.

A UserError says in its message what is wrong with what was given, or with what a file holds, and how to mend it. So do
the machine's own refusals: an OSError (no such file, a full disk), memory that does not suffice, a package that is
missing; and a FloatingPointError, of a result that is not finite. They are one line and exit code 2. Any other
exception, a ValueError of Python's or of a library's included, is a defect of octoscale, whatever the input was: its
traceback, exit code 1, and where to report it.
"""

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from octoscale.system.errors import UserError
from octoscale.system.printable import first_line, printable

#: What a command refuses with a message of its own.
MISTAKES = (UserError, OSError, FloatingPointError)


@contextmanager
def explained() -> Iterator[None]:
    """Run a command: its mistakes and defects end the process with their exit code and words."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # a PanicException of polars is no Exception
        line = mistake(error)
        if line is None:
            sys.stderr.write(_defect(error))
            sys.exit(1)
        if os.environ.get("OCTOSCALE_TRACEBACK"):
            raise
        sys.stderr.write(f"octoscale: error: {line}\n")
        sys.exit(2)


def mistake(error: BaseException) -> str | None:
    """One line about what the user can mend; None for a defect."""
    if isinstance(error, MISTAKES):
        return first_line(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_out_of_memory(error)):
        return f"not enough memory: {first_line(error)}"
    if isinstance(error, ImportError) and _is_package_missing(error):
        return f"{first_line(error)}: pip install it, or 'octoscale[train]' or 'octoscale[gguf]', which bring it"
    return None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Torch says so in words only, of a CPU."""
    return "can't allocate memory" in str(error) or "out of memory" in str(error)


def _is_package_missing(error: ImportError) -> bool:
    """Whether another package than ours is not installed: not a name that a module of ours lacks."""
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError):
        return package not in ("", "octoscale")
    return package == "" or importlib.util.find_spec(package) is None


def _defect(error: BaseException) -> str:
    from octoscale import __version__

    lines = printable("".join(traceback.format_exception(error)))
    return f"{lines}octoscale: this is a defect of octoscale {__version__}: please report it with the lines above\n"
