"""What octoscale wrote in a folder: a list of its files, kept there, so that nothing else is ever deleted.

    write_manifest(folder, kind)    octoscale.json: what it is; name -> bytes, of all files that are there now
    kind_of(folder)                 what it is, in the words of whoever wrote it
    first_stranger(folder)          a file that is not of the list, or was changed since

No other program writes such a list: transformers, which carries unknown keys of a config.json along, does not copy it.
"""

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from octoscale.system.whole_file import write_json

MANIFEST = "octoscale.json"


def write_manifest(folder: Path, kind: str, *, without: Collection[str] = ()) -> None:
    """List the files that the folder holds now, which octoscale has just written, `without` those that will go."""
    names = sorted(set(_names(folder)) - {MANIFEST, *without})
    files = {name: (folder / name).stat().st_size for name in names}
    write_json(folder / MANIFEST, {"kind": kind, "files": files})


def kind_of(folder: Path) -> str | None:
    """What the folder's list says that it is; None without a list that can be read."""
    kind = _read(folder).get("kind")
    return kind if isinstance(kind, str) else None


def first_stranger(folder: Path) -> str | None:
    """The first file that is not as octoscale wrote it; None if all are, or are gone. Of a folder without a list: any.

    A link to a folder is a stranger: what it points to was not written here.
    """
    files = _read(folder).get("files")
    listed = files if isinstance(files, dict) else {}
    for name in sorted(_names(folder)):
        if name == MANIFEST and listed:
            continue
        try:
            size = (folder / name).stat().st_size
        except OSError:  # a link that leads nowhere
            return name
        if listed.get(name) != size:
            return name
    return None


def _names(folder: Path) -> Iterator[str]:
    """All that is no folder, and folders that hold nothing, which octoscale does not make."""
    for parent, folders, files in os.walk(folder):
        relative = Path(parent).relative_to(folder)
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from ((relative / name).as_posix() for name in (*files, *links))
        if not files and not folders and Path(parent) != folder:
            yield relative.as_posix()


def _read(folder: Path) -> dict[str, Any]:
    """The folder's list; empty if it has none."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
