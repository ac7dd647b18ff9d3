"""What decides a result that is written bit by bit, kept beside it: a stopped run goes on under the same terms only.

terms = {"layout": "vllm-fp8", ..., "files": state_of([...])}
begin_or_resume(hidden, terms, resume=True)
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from octoscale.system.errors import UserError
from octoscale.system.whole_file import write_json
from octoscale.system.whole_folder import BEGUN, begin

#: The term that says in which state the files were that are read.
FILES = "files"


def state_of(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Path -> size, time of the last write, number on the disk: another file, or one that was written to, differs."""
    stats = {str(path): path.stat() for path in paths}
    return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}


def begin_or_resume(hidden: Path, terms: Mapping[str, Any], *, resume: bool) -> None:
    """Make the hidden folder, or go on in the one that a stopped run left. ValueError if its terms were others."""
    begun = _read(hidden / BEGUN) if resume else None
    if begun is None:
        begin(hidden)
        write_json(hidden / BEGUN, dict(terms))
        return
    wanted = json.loads(json.dumps(terms))
    other = [name for name in wanted if begun.get(name) != wanted[name]]
    if other:
        raise UserError(f"what {hidden} holds was begun with {_in_words(other)}: leave out --resume")
    for left in hidden.glob(".*.tmp"):  # of a process that was killed while it wrote
        left.unlink()


def check_unchanged(before: Mapping[str, list[int]], now: Mapping[str, list[int]]) -> None:
    """ValueError if the files that were read are not what they were in the beginning."""
    changed = sorted(name for name in {**now, **before} if now.get(name) != before.get(name))
    if changed:
        raise UserError(f"{', '.join(changed)} changed while the checkpoint was read: begin again")


def _read(path: Path) -> dict[str, Any] | None:
    """The terms that a run began with; None if it did not come so far."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _in_words(names: list[str]) -> str:
    if names == [FILES]:
        return "another state of the source, which was written to since"
    return f"other options ({', '.join(names)})"
