"""The entry point: put the commands together, and end each with the words and the exit code that its mistake has.

Torch is imported inside the commands that need it, so that `octoscale --help` answers at once. A mistake of the user's
is one line and exit code 2; OCTOSCALE_TRACEBACK=1 shows where it was noticed. A defect of ours is a traceback and exit
code 1 (system/explained.py). Ctrl-C ends a run with exit code 130 and leaves what was measured until then.
"""

import io
import sys

# each puts its commands into the app
from octoscale.cli import advise, arena, bench, look, measure, parity, plan, reproduce, ship, train  # noqa: F401
from octoscale.cli.app import app
from octoscale.system.explained import explained
from octoscale.system.streams import open_missing_streams
from octoscale.system.waiting import bound_spinning

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    bound_spinning()
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character shows its number
    with explained():
        app()
