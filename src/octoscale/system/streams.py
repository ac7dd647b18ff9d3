"""Standard streams that the caller closed before a command began: they lead nowhere, instead of not being there.

A pipe whose reader goes while we write is typer's matter: it ends the command quietly, with exit code 1.
"""

import os
import sys
from pathlib import Path


def open_missing_streams() -> None:
    """Put the null device in the place of each standard stream that Python found closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  as long as the process
