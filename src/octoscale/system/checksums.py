"""The checksum of each file of a folder, kept in it: a training does not go on with a file that has changed.

    write_checksums(folder)     checksums.json: name -> CRC-32, of the files that are there
    check_checksums(folder)     ValueError that names the first one that is another now
    crc_of(path)                of one file

A folder of an older version has none, and is taken as it is.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from octoscale.system.errors import UserError
from octoscale.system.whole_file import write_json

CHECKSUMS = "checksums.json"

_PIECE = 1 << 20  # bytes read at a time


def write_checksums(folder: Path, known: Mapping[str, int] | None = None) -> None:
    """Note the files that the folder and its subfolders hold now.

    known: by name, what was computed already, by who wrote the file: those are not read again.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKSUMS]
    crcs = dict(known or {})
    for name in (path.relative_to(folder).as_posix() for path in paths):
        if name not in crcs:
            crcs[name] = crc_of(folder / name)
    write_json(folder / CHECKSUMS, {name: f"{crcs[name]:08x}" for name in sorted(crcs)})


def check_checksums(folder: Path) -> None:
    """ValueError, naming the file, unless all files are as they were noted."""
    noted = folder / CHECKSUMS
    if not noted.exists() and not noted.is_symlink():
        return
    for name, expected in _read(noted).items():
        path = folder / name
        if not path.is_file() or f"{crc_of(path):08x}" != expected:
            what = "is not what was written there" if path.is_file() else "is missing, or no file"
            raise UserError(f"{path} {what}: delete {folder} to go on without it")


def crc_of(path: Path) -> int:
    """The CRC-32 of a file's bytes."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc


def _is_inside(name: str) -> bool:
    """Whether a name means a file of the folder or of its subfolders."""
    place = PurePosixPath(name)
    return name != "" and not place.is_absolute() and ".." not in place.parts


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(map(_is_inside, content)):
        raise UserError(f"{path} is damaged: delete {path.parent} to go on without it")
    return content
