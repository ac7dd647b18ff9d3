"""One writer to a folder: a second command on the same one ends with a line, and leaves the first alone.

    with exclusive(Path("runs/mine")): ...

The lock is the operating system's, on an empty file `.mine.lock` beside the folder; it ends with the process, however
that ends. On network file systems that do not pass locks on, it only holds within one machine.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for this process while the block runs. FileExistsError if another process holds it.

    The parents of the folder are made if need be, the folder is not.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        if not _take(descriptor):
            os.close(descriptor)
            raise FileExistsError(f"another octoscale command is writing {folder}: wait, or choose another")
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # the one before us deleted the file while we waited for it
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that we hold is the one that others find there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _take(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
