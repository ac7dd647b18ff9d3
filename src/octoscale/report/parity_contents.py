"""What parity.json says, as far as parity can have written it: damage is named, and the rest is shown.

A row of kinds, a layer, or a family of made operands that is damaged is left out alone; a field that is, with the
tables and figures that need it.
"""

from functools import partial
from pathlib import Path
from typing import Any

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import RESULTS
from octoscale.report.advice_contents import possible_entries
from octoscale.report.fields import MOST_LAYERS, Check, are_texts, checked, is_count, is_number, is_text

#: The way of summing that the others are compared with, and that is next to exact itself.
FLOAT32 = "float32"

#: There are no more ways of summing; no difference is larger, or smaller without being 0; none is counted beyond.
MOST_WAYS, _MOST_SIZE, _MOST_EXPONENT = 16, 1e30, 64


def parity_of(content: dict[str, Any], path: Path, damaged: list[str]) -> dict[str, Any]:
    """The content of parity.json, empty if there is none; what is wrong with the rest goes to `damaged`."""
    parity = checked(content, _FIELDS, path, damaged)
    is_kind = partial(_is_kind, len(parity.get("exponents", ())))
    checks: dict[str, Check] = {"kinds": is_kind, "layers": _is_layer, "lengths": _is_family}
    for name, check in checks.items():
        if name in parity:
            parity[name] = possible_entries(parity[name], check, f"{path}: {name}", damaged)
    return parity


def _is_kind(num_exponents: int, value: Any) -> bool:
    """A kind of layers, one of its products, summed in one way; so many exponents have counts."""
    if not _is_place(value) or not is_text(value.get("sums")):
        return False
    counts = value.get("outputs"), value.get("changed")
    if not all(map(is_count, counts)) or counts[1] > counts[0]:
        return False
    above = value.get("above")
    if not _are(is_count, above) or len(above) != num_exponents or any(count > counts[0] for count in above):
        return False
    return _has(_may_lack, ("median", "worst"), value.get("of_casts"))


def _is_layer(value: Any) -> bool:
    """A layer, one of its products, and the error of its sums."""
    if not _is_place(value) or not is_text(value.get("module")) or "layer" not in value:
        return False
    layer, shares = value["layer"], value.get("of_casts")
    if not (layer is None or (is_count(layer) and layer <= MOST_LAYERS)):
        return False
    return isinstance(shares, dict) and len(shares) <= MOST_WAYS and all(map(_may_lack, shares.values()))


def _is_place(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") in KINDS and value.get("result") in RESULTS


def _is_family(value: Any) -> bool:
    """Made operands: the errors of each way, as many as there are lengths."""
    if not isinstance(value, dict) or not all(is_text(value.get(name)) for name in ("operands", "says")):
        return False
    lengths, series = value.get("lengths"), value.get("series")
    if not _are(is_count, lengths) or not lengths or 0 in lengths or not isinstance(series, list):
        return False
    are_errors = partial(_are_errors, len(lengths))
    return are_errors(value.get("casts")) and all(
        isinstance(row, dict)
        and is_text(row.get("sums"))
        and are_errors(row.get("error"))
        and are_errors(row.get("largest"))
        for row in series
    )


def _are_errors(count: int, value: Any) -> bool:
    return _are(_is_size, value) and len(value) == count


def _are(check: Check, value: Any) -> bool:
    return isinstance(value, list) and all(map(check, value))


def _has(check: Check, names: tuple[str, ...], value: Any) -> bool:
    return isinstance(value, dict) and all(name in value and check(value[name]) for name in names)


def _is_size(value: Any) -> bool:
    return is_number(value) and (value == 0 or 1 / _MOST_SIZE <= value <= _MOST_SIZE)


def _is_exponent(value: Any) -> bool:
    """Of two."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_EXPONENT


def _may_lack(value: Any) -> bool:
    return value is None or _is_size(value)


_FIELDS: dict[str, Check] = {
    **dict.fromkeys(("model", "text", "formats", "scaling", "dtype", "backend", "reason"), is_text),
    **dict.fromkeys(("tokens", "window", "rows"), is_count),
    "answer": are_texts,
    "exponents": lambda value: _are(_is_exponent, value) and len(value) > 1 and value == sorted(set(value)),
    **dict.fromkeys(("kinds", "layers", "lengths"), lambda value: isinstance(value, list)),
}
