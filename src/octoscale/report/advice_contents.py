"""What advice.json says, as far as advise can have written it: damage is named, and the rest is shown.

A layer, or a list of layers, that is damaged is left out alone; a field that is, with the table that needs it.
"""

from pathlib import Path
from typing import Any

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.fields import (
    MOST_BITS,
    MOST_LAYERS,
    Check,
    are_texts,
    checked,
    is_count,
    is_number,
    is_text,
    says,
)


def advice_of(content: dict[str, Any], path: Path, damaged: list[str]) -> dict[str, Any]:
    """The content of advice.json, empty if there is none; what is wrong with the rest goes to `damaged`."""
    advice = checked(content, _FIELDS, path, damaged)
    for name, check in _ENTRIES.items():
        if name in advice:
            advice[name] = possible_entries(advice[name], check, f"{path}: {name}", damaged)
    return advice


def possible_entries(entries: Any, check: Check, where: str, damaged: list[str]) -> Any:
    """The entries of a list or a table that can be ones; what is wrong goes to `damaged`."""
    if isinstance(entries, list):
        named = {str(index): entry for index, entry in enumerate(entries)}
        return list(possible_entries(named, check, where, damaged).values())
    damaged.extend(says(where, name, entry) for name, entry in entries.items() if not check(entry))
    return {name: entry for name, entry in entries.items() if check(entry)}


def _is_mean(value: Any) -> bool:
    """A mean in nats with its interval; all None where it was not finite."""
    if not isinstance(value, dict) or not isinstance(value.get("is_clear"), bool):
        return False
    names = ("loss", "low", "high", "perplexity_excess")
    if not value.keys() >= set(names):
        return False
    may_lack = names if value["loss"] is None else ("perplexity_excess",)  # a huge loss has an excess that is infinite
    return all(is_number(value[name]) or (value[name] is None and name in may_lack) for name in names)


def _is_cost(value: Any) -> bool:
    """What is expected, and what was measured."""
    return isinstance(value, dict) and all(_is_mean(value.get(name)) for name in ("expected", "measured"))


def _are_costs(value: Any) -> bool:
    """On both texts."""
    return isinstance(value, dict) and all(_is_cost(value.get(name)) for name in ("search", "verify"))


def _is_list_with_cost(value: Any) -> bool:
    return _is_cost(value) and are_texts(value.get("keep"))


def _is_layer(value: Any) -> bool:
    """A layer with its estimate and its casts; if it was measured, what it costs alone, and what keeping it buys."""
    if not isinstance(value, dict) or not is_text(value.get("module")) or value.get("kind") not in KINDS:
        return False
    layer, estimate = value.get("layer"), value.get("estimate")
    if "layer" not in value or not (layer is None or (is_count(layer) and layer <= MOST_LAYERS)):
        return False
    if not isinstance(estimate, dict) or not is_number(estimate.get("both")):
        return False
    measured = "alone" in value or "bought" in value
    if measured and not (_is_cost(value.get("alone")) and _is_mean(value.get("bought"))):
        return False
    return all(_is_cast(value.get(role)) for role in _ROLES)


def _is_cast(value: Any) -> bool:
    """What the casts of a tensor did."""
    if not isinstance(value, dict) or not all(is_number(value.get(name)) for name in ("saturated", "flushed", "amax")):
        return False
    if not value.keys() >= {"sqnr_db", "scale_bias"}:
        return False
    sqnr, span = value["sqnr_db"], value["scale_bias"]
    return (sqnr is None or is_number(sqnr)) and (span is None or _is_span(span))


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(x) and abs(x) <= MOST_BITS for x in value)


#: Those of a forward pass.
_ROLES = [role for role in ROLES if role != "grad_output"]

_FIELDS: dict[str, Check] = {
    **dict.fromkeys(("model", "recipe", "text", "dtype", "backend", "reason"), is_text),
    **dict.fromkeys(("tokens", "window", "num_passes"), is_count),
    "verify_text": lambda value: value is None or is_text(value),
    "answer": are_texts,
    "keep": lambda value: value is None or are_texts(value),
    "cost": _are_costs,
    "cost_left": lambda value: value is None or _are_costs(value),
    "layers": lambda value: isinstance(value, list),
    **dict.fromkeys(("rankings", "scalings"), lambda value: isinstance(value, dict)),
}
_ENTRIES: dict[str, Check] = {"layers": _is_layer, "rankings": _is_list_with_cost, "scalings": _is_cost}
