"""What a field of a run's files may hold: the type and the range that a run writes; anything else is damage."""

import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

#: No run has more steps, or tokens, or layers, and no scale more bits; a larger number is damage.
MOST, MOST_LAYERS, MOST_BITS, LONGEST_NAME = 2**53, 1000, 1100, 1000

#: Bytes of a module's name, which a model may nest as deep as it likes.
LONGEST_MODULE = 2**16

#: Whether a field may hold this.
Check = Callable[[Any], bool]


def checked(content: dict[str, Any], checks: Mapping[str, Check], path: Path, damaged: list[str]) -> dict[str, Any]:
    """The fields that hold what they may; each other one is named, and left out."""
    wrong = [name for name, check in checks.items() if name in content and not check(content[name])]
    damaged.extend(says(path, name, content[name]) for name in wrong)
    return {name: value for name, value in content.items() if name not in wrong}


def says(where: Path | str, name: str, value: Any) -> str:
    """What stands somewhere, in a line."""
    return f"{where}: {reprlib.repr(name)[1:-1]} is {reprlib.repr(value)}"


def is_text(value: Any) -> bool:
    """Any text."""
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    """A finite number that is not absurd."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MOST
    return isinstance(value, float) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """How many of something."""
    return isinstance(value, int) and is_number(value) and value >= 0


def is_score(value: Any) -> bool:
    """A perplexity; None for one that was not finite."""
    return value is None or (is_number(value) and value > 0)


def is_time(value: Any) -> bool:
    """Seconds."""
    return is_number(value) and value >= 0


def is_loss(value: Any) -> bool:
    """A loss; None for one that was not finite."""
    return value is None or is_number(value)


def is_before_and_after(value: Any) -> bool:
    """Losses before and after a training."""
    return isinstance(value, dict) and {"before", "after"} <= value.keys() and all(map(is_loss, value.values()))


def is_plan(value: Any) -> bool:
    """What a command was told."""
    return isinstance(value, dict)


def is_range(value: Any) -> bool:
    """A range of biases, in words at least."""
    return isinstance(value, dict) and is_text(value.get("text"))


def is_map(value: Any) -> bool:
    """A map of pairs of biases: without cells, or with what a figure of them needs."""
    if not is_range(value) or not isinstance(value.get("cells"), list):
        return False
    known = value.get("what") in ("perplexity", "accuracy") and is_text(value.get("against"))
    roles = value.get("roles") in (["weight", "input"], ["input", "weight"])
    return not value["cells"] or (known and roles and all(map(is_pair, value["cells"])))


def is_pair(value: Any) -> bool:
    """A pair of biases, and what became of it."""
    if not isinstance(value, dict) or value.get("verdict") not in ("passes", "undecided", "fails"):
        return False
    biases = [value.get("weight"), value.get("input")]
    return all(isinstance(x, int) and abs(x) <= MOST_BITS for x in biases) and is_loss(value.get("worse"))


def are_failures(value: Any) -> bool:
    """Texts by scaling."""
    return isinstance(value, dict) and all(map(is_text, value.values()))


def are_texts(value: Any) -> bool:
    """Texts, one after the other."""
    return isinstance(value, list) and all(map(is_text, value))


def is_bias(key: str) -> bool:
    """A constant, as the key of a table."""
    digits = key.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 4 and int(digits) <= MOST_BITS
