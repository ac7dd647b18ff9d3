"""A checkpoint's folder that is whole or not there, and that replaces only what octoscale wrote.

    out = target(out)                       links followed; an error for what can be no checkpoint
    end_exchange(out)                       what a killed process left
    check_free(out, overwrite=True)         an error if anything there is not ours
    begin(hidden := hidden_beside(out))     written to first
    put_in_place(hidden, out)               takes its name when all is there

A folder is ours if it lists its files (manifest.py); one with another file in it is never replaced, and the refusal
names the file.
"""

import ctypes
import os
import shutil
import sys
from pathlib import Path

from octoscale.system.errors import UserError
from octoscale.system.manifest import MANIFEST, first_stranger, kind_of

#: In a hidden folder: that octoscale began to write there.
BEGUN = ".octoscale.begun.json"

#: The kind of a checkpoint's manifest.
CHECKPOINT = "FP8 checkpoint"

_AT_FDCWD, _EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>


def target(out: Path) -> Path:
    """The folder that `out` means: a link stays, and what it points to is written.

    ValueError for a folder that cannot be renamed: the current one or one above it, the top of a file system.
    """
    folder = out.resolve()
    if folder == Path.cwd() or folder in Path.cwd().parents:
        raise UserError(f"{out} is the current folder, or above it: name a folder in it")
    if os.path.ismount(folder):
        raise UserError(f"{out} is where a file system begins: name a folder in it")
    return folder


def hidden_beside(out: Path) -> Path:
    """The folder in which `out` is prepared. FileExistsError if it holds what octoscale did not begin."""
    hidden = out.with_name(f".{out.name}.tmp")
    if _is_there(hidden) and not _is_ours(hidden):
        raise FileExistsError(f"{hidden} is in the way: delete it if it is of no use, or choose another folder")
    return hidden


def begin(hidden: Path) -> None:
    """Make the hidden folder, empty."""
    discard(hidden)
    hidden.mkdir(parents=True)


def discard(hidden: Path) -> None:
    """Delete a hidden folder: what says that it is ours goes last, should this be cut short."""
    markers = (BEGUN, MANIFEST)
    for path in sorted(hidden.iterdir(), key=lambda path: path.name in markers) if hidden.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if hidden.is_dir():
        hidden.rmdir()


def check_free(out: Path, *, overwrite: bool) -> None:
    """FileExistsError if `out` exists and may not be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose another folder")
    if not overwrite:
        raise FileExistsError(f"{out} exists already: choose another folder, or --overwrite")
    if kind_of(out) != CHECKPOINT and any(out.iterdir()):
        raise FileExistsError(
            f"{out} is no FP8 checkpoint that octoscale wrote ({MANIFEST} would say so): choose another folder"
        )
    if (name := first_stranger(out)) is not None:
        raise FileExistsError(
            f"{out} holds {name}, which octoscale did not write or somebody changed: move it, or choose another folder"
        )


def end_exchange(out: Path) -> None:
    """End the exchange in which a process was killed, where folders cannot swap their names at once."""
    if not _is_ours(_old_of(out)):
        return
    if out.exists():
        discard(_old_of(out))
    else:
        _old_of(out).rename(out)


def put_in_place(hidden: Path, out: Path) -> None:
    """Give the prepared folder its name; what stood there goes. It must have passed `check_free`."""
    if not out.exists():
        hidden.rename(out)
        return
    _exchange(hidden, out)
    discard(hidden)


def _exchange(hidden: Path, out: Path) -> None:
    """Let two folders swap their names: at once on Linux; else `out` is away for a moment, and found again later."""
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None), "renameat2", None)
        names = (_AT_FDCWD, os.fsencode(hidden), _AT_FDCWD, os.fsencode(out), _EXCHANGE)
        if rename is not None and rename(*names) == 0:
            return
    out.rename(_old_of(out))
    hidden.rename(out)
    _old_of(out).rename(hidden)


def _old_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.old.tmp")


def _is_ours(hidden: Path) -> bool:
    """Whether a stopped run left this: before it wrote anything, in the middle, or after the exchange."""
    if hidden.is_symlink() or not hidden.is_dir():
        return False
    is_marked = (hidden / BEGUN).exists() or kind_of(hidden) is not None
    return is_marked or all(path.name.startswith(f".{BEGUN}.") for path in hidden.iterdir())


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
