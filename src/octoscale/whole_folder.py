"""A checkpoint's folder that is whole or not there, and that replaces only what octoscale wrote.

    check_free(out, overwrite=True)            an error if anything there is not ours
    hidden = hidden_beside(out)                written to first
    put_in_place(hidden, out)                  renamed when all is there

config.json of what we write lists its files, under `octoscale`. A folder with another file in it is never replaced: the
refusal names the file.
"""

import json
import shutil
from pathlib import Path

#: Under this key of config.json stands what the layouts of others have no word for.
OWN_KEY = "octoscale"
FILES = "files"


def hidden_beside(out: Path) -> Path:
    """The folder in which `out` is prepared."""
    return out.with_name(f".{out.name}.tmp")


def check_free(out: Path, *, overwrite: bool) -> None:
    """FileExistsError if `out` exists and may not be replaced. A replacement that was cut short is taken back first."""
    old = _old_of(out)
    if old.exists() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose another folder")
    if not overwrite:
        raise FileExistsError(f"{out} exists already: choose another folder, or --overwrite")
    ours = _files_of(out)
    if ours is None and any(out.iterdir()):
        raise FileExistsError(f"{out} is no checkpoint that octoscale wrote: it is not replaced; choose another folder")
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if not path.is_dir() and name not in (ours or ()):
            raise FileExistsError(f"{out} holds {name}, which octoscale did not write: choose another folder")


def put_in_place(hidden: Path, out: Path) -> None:
    """Give the prepared folder its name; what stood there goes. It must have passed `check_free`."""
    old = _old_of(out)
    if out.exists():
        out.rename(old)
    hidden.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def list_files(folder: Path) -> list[str]:
    """The files of a folder, config.json included, as config.json is to list them."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return sorted(found | {"config.json"})


def _old_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.old.tmp")


def _files_of(folder: Path) -> set[str] | None:
    """The files that config.json lists as ours; None if it does not."""
    try:
        files = json.loads((folder / "config.json").read_text(encoding="utf-8"))[OWN_KEY][FILES]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return set(files) if isinstance(files, list) and all(isinstance(name, str) for name in files) else None
