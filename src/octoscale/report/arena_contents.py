"""What can be read of a folder of `octoscale arena`: its table, as far as it can be one.

content = read_arena("runs/arena")      what arena.json holds; UserError, in a line, where it is none, or damaged
"""

from pathlib import Path
from typing import Any

from octoscale.report.contents import json_object
from octoscale.report.fields import Check, are_texts, is_number, is_text
from octoscale.system.errors import UserError

#: The file of the table.
ARENA = "arena.json"

_TEXTS = ("scaling", "scales", "verdict")
_NUMBERS = ("score", "gap", "low", "high", "bits", "megabytes", "seconds")


def is_arena(folder: Path) -> bool:
    """Whether a folder is one of `octoscale arena`, and no run."""
    return not (folder / "run.json").exists() and (folder / ARENA).exists()


def read_arena(folder: Path | str) -> dict[str, Any]:
    """The table of a folder, with the words around it. UserError if there is none that can be read."""
    path, damaged = Path(folder) / ARENA, list[str]()
    content = json_object(path, damaged)
    if damaged:
        raise UserError(damaged[0])
    wrong = [name for name, check in _FIELDS.items() if not check(content.get(name))]
    if wrong:
        raise UserError(f"{path} is damaged: {wrong[0]} is none of an arena; octoscale arena writes it again")
    return content


def _is_row(value: Any) -> bool:
    """High precision, or a contestant."""
    if not isinstance(value, dict) or not all(is_text(value.get(name)) for name in _TEXTS):
        return False
    if not all(name in value and (value[name] is None or is_number(value[name])) for name in _NUMBERS):
        return False
    return (value["low"] is None) == (value["high"] is None) and (value["low"] is None or value["gap"] is not None)


def _is_column(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("key") not in (*_TEXTS, *_NUMBERS) or not is_text(value.get("title")):
        return False
    digits = value.get("digits", -1)
    return digits is None or (isinstance(digits, int) and 0 <= digits <= 9)


def _are(check: Check) -> Check:
    return lambda values: isinstance(values, list) and len(values) > 1 and all(map(check, values))


_FIELDS: dict[str, Check] = {
    **dict.fromkeys(("title", "model", "against", "unit"), is_text),
    "trains": lambda value: isinstance(value, bool),
    "columns": _are(_is_column),
    "rows": _are(_is_row),
    "notes": are_texts,
}
