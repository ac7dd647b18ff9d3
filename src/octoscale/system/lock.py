"""One writer to a folder: a second command on the same one ends with a line, and leaves the first alone.

    with exclusive(Path("llama-fp8")): ...       a checkpoint, which is renamed: the lock is a file beside it
    with exclusive_run(Path("runs/mine")): ...   a run, which grows where it is: the lock is a file in it

The lock is the operating system's, on an empty file; it ends with the process, however that ends. On a network file
system that does not pass locks on, it only holds within one machine; where there are none at all, a warning says so.
"""

import errno
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: The name of the lock in a run's folder, and the end of its name beside a checkpoint's.
LOCK = ".octoscale.lock"

#: What file systems without locks answer.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs. FileExistsError if it is held already.

    The parents of the folder are made if need be, the folder is not.
    """
    folder = folder.resolve()
    with _making(folder.parent), _locked(folder.with_name(f".{folder.name}{LOCK}"), folder):
        yield


@contextmanager
def exclusive_run(folder: Path | str, *, join: bool = False) -> Iterator[None]:
    """Hold a run's folder while the block runs; it is made if need be, and goes again if nothing was written to it.

    FileExistsError if it is held already, be it by this process. join: this process may hold it, as whoever records
    within a training, or beside another recorder, does; it is free again when the last one lets go.
    """
    folder = Path(folder).resolve()
    with _guard:
        if folder in _held and not join:
            raise _in_use(folder)
        holders, stack = _held.get(folder) or (0, _enter_run(folder))
        _held[folder] = holders + 1, stack
    try:
        yield
    finally:
        with _guard:
            holders, stack = _held.pop(folder)
            if holders > 1:
                _held[folder] = holders - 1, stack
            else:
                stack.close()


def is_held(folder: Path | str) -> bool | None:
    """Whether a process holds a run's folder, be it this one, or another user's. None: there is a lock, but the
    file system, or its rights, let nobody here ask for it.

    It is asked by trying to share the lock for a moment: whoever begins in that very moment would be refused.
    """
    folder = Path(folder).resolve()
    with _guard:
        if folder in _held:
            return True
    try:
        descriptor = os.open(folder / LOCK, _ASKING)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        return not _share(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def is_left(folder: Path | str) -> bool:
    """Whether a run's folder has a lock: if nobody holds it, the process that did was killed."""
    return (Path(folder) / LOCK).exists()


#: The runs that this process holds: how often, and how to let go.
_held: dict[Path, tuple[int, ExitStack]] = {}
_guard = threading.Lock()


def _enter_run(folder: Path) -> ExitStack:
    """Make and lock a run's folder; closing what is returned undoes both."""
    with ExitStack() as stack:
        stack.enter_context(_making(folder))
        stack.enter_context(_locked(folder / LOCK, folder))
        return stack.pop_all()


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; of those that were not there, the empty ones go in the end."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


@contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold the lock in the file `path`, which is made, and deleted in the end."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        if not _take_if_possible(descriptor, folder):
            os.close(descriptor)
            raise _in_use(folder)
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # the one before us deleted the file after we had opened it
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _in_use(folder: Path) -> FileExistsError:
    return FileExistsError(f"another octoscale command is writing {folder}: wait, or choose another folder")


def _take_if_possible(descriptor: int, folder: Path) -> bool:
    """Whether nobody else holds the lock; a warning where nobody could."""
    try:
        return _take(descriptor)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(f"the file system of {folder} has no locks: let no other command write there", stacklevel=2)
        return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the file that we hold is the one that others find there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    _ASKING = os.O_RDWR

    def _take(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _share(descriptor: int) -> bool:
        return _take(descriptor)
else:
    import fcntl

    #: Reading is all that others may do with a user's lock, and all that sharing it needs; a pipe keeps nobody waiting.
    _ASKING = os.O_RDONLY | os.O_NONBLOCK

    def _take(descriptor: int) -> bool:
        return _flock(descriptor, fcntl.LOCK_EX)

    def _share(descriptor: int) -> bool:
        return _flock(descriptor, fcntl.LOCK_SH)

    def _flock(descriptor: int, how: int) -> bool:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
