"""The results of a long command, one small file each: a command that was killed goes on where it was.

    cells = Cells(run.path / "cells", {"model": "gpt-10m", "fingerprint": "9f3c", "window": 512})
    row = cells.get_or_make("piqa, cscale:-1", lambda: measure(...))

    identity.json                           what all results depend on, written first
    piqa_cscale_-1-2f0c8b7d41aa.json        {"key": ..., "crc32": ..., "value": ...}

The identity is whatever a result would change with: settings, the model's fingerprint, versions. A folder with another
one is refused, and what differs is named. A file is whole or not there (system/whole_file.py), so a kill damages none;
one that is damaged all the same is refused, never made again in silence: somebody may have quoted its number. A file's
name is the key as far as all file systems take it, and a hash of it. Who writes here holds the folder (system/lock.py).
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from octoscale.system.errors import UserError
from octoscale.system.whole_file import write_json

IDENTITY = "identity.json"

#: What a file of such a folder is called.
NAMES = r"identity\.json|[a-z0-9.=+_-]*-[0-9a-f]{12}\.json"

_LONGEST = 80  # characters of a key in a file's name
_REMEDY = "delete it, and its result is made again"


class Cells:
    """Results by key, in `folder`, which is made if need be. Keys are any texts; values what JSON holds, but not null.

    Raises UserError if the folder has another identity, or one that cannot be read.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        noted, wanted = _noted(folder), json.loads(json.dumps(identity))
        if noted is None:
            write_json(folder / IDENTITY, wanted)
        else:
            _check_identity(folder, noted, wanted)

    def get(self, key: str) -> Any:
        """The result of a key; None if there is none. UserError if it is damaged."""
        path = self._path(key)
        if not path.exists():
            return None
        content = _read(path, _REMEDY)
        if content.get("key") != key or content.get("crc32") != _crc(content.get("value")):
            raise UserError(f"{path} is damaged: {_REMEDY}")
        return content.get("value")

    def put(self, key: str, value: Any) -> None:
        """Keep a result, in place of an older one. ValueError for None, and for NaN and infinity anywhere in it."""
        if value is None:
            raise ValueError(f"{key}: None stands for no result")
        kept = json.loads(json.dumps(value, allow_nan=False))
        write_json(self._path(key), {"key": key, "crc32": _crc(kept), "value": kept})

    def get_or_make(self, key: str, make: Callable[[], Any]) -> Any:
        """The result of a key, made and kept if there is none: the same, with lists for tuples, either way."""
        if self.get(key) is None:
            self.put(key, make())
        return self.get(key)

    def _path(self, key: str) -> Path:
        readable = re.sub(r"[^a-z0-9.=+-]+", "_", key.lower()).lstrip(".")[:_LONGEST]
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return self._folder / f"{readable}-{digest}.json"


def check_words(folder: Path, words: Mapping[str, Any]) -> None:
    """UserError if `folder` holds results of other words than these: the part of an identity that is known at once.

    So a command can refuse before it reads a model. As `Cells`, if the identity cannot be read.
    """
    noted = _noted(folder)
    if noted is not None:
        known = {name: value for name, value in noted.items() if name in words}
        _check_identity(folder, known, json.loads(json.dumps(words)))


def _noted(folder: Path) -> dict[str, Any] | None:
    """The identity of the results in a folder; None if there are none yet."""
    path = folder / IDENTITY
    if path.exists():
        return _read(path, f"delete {folder}, and begin again")
    if folder.exists() and any(folder.glob("*.json")):
        raise UserError(f"{folder} holds results without {IDENTITY}: nobody knows of what; delete it")
    return None


def _check_identity(folder: Path, noted: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    names = [name for name in {**noted, **wanted} if noted.get(name) != wanted.get(name)]
    if names:
        differ = ", ".join(f"{name} {_said(noted, name)}, not {_said(wanted, name)}" for name in names)
        raise UserError(f"the results in {folder} were made with {differ}: go on with the same, or in another folder")


def _said(identity: Mapping[str, Any], name: str) -> str:
    return str(identity.get(name, "unknown"))


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: {remedy}")
    return content


def _crc(value: Any) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"
