"""What can be read of a folder of `octoscale reproduce`: the numbers of its figures, as far as they can be some.

    contents = read_paper("runs/reproduce")
    contents.figures["fig5"]                 what fig5.json holds; each of its fields has the type that a figure takes
    contents.damaged                         what is not so, one line each

A file of which a field is no such number is left out whole: a figure with a part of its panels would be another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.contents import json_object
from octoscale.report.fields import MOST_BITS, MOST_LAYERS, Check, is_count, is_loss, is_number, is_text
from octoscale.system.errors import UserError
from octoscale.system.printable import printable

#: The figures of the paper, in the order in which they are drawn.
FIGURES = ("fig5", "fig6", "fig7", "fig8", "fig9", "fig10")

#: A score in per cent, and where an interval of it may end.
MOST_PERCENT = 300

#: What of each table and figure the command was, and what was left out.
MADE = "made.json"


@dataclass(frozen=True, kw_only=True)
class PaperContents:
    """The figures of a reproduction by name; why others were left out; and what is damaged."""

    path: Path
    figures: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    damaged: list[str]


def is_reproduction(folder: Path) -> bool:
    """Whether a folder is one of `octoscale reproduce`, and no run."""
    names = (MADE, *(f"{name}.json" for name in FIGURES))
    return not (folder / "run.json").exists() and any((folder / name).exists() for name in names)


def read_paper(folder: Path | str) -> PaperContents:
    """Read the figures of a folder. UserError, in a line, if it holds none, or none that can be read."""
    folder, damaged = Path(folder), list[str]()
    figures = {name: content for name in FIGURES if (content := _figure(folder, name, damaged))}
    if not figures:
        why = (
            damaged[0] if damaged else f"{folder} holds no figure of the paper, {FIGURES[0]}.json to {FIGURES[-1]}.json"
        )
        raise UserError(f"{why}; octoscale reproduce {FIGURES[0]} --out {folder} makes one")
    left_out = json_object(folder / MADE, damaged).get("left_out")
    texts = left_out.items() if isinstance(left_out, dict) else ()
    return PaperContents(
        path=folder,
        figures=figures,
        left_out={name: printable(why) for name, why in texts if is_text(why)},
        damaged=damaged,
    )


def _figure(folder: Path, name: str, damaged: list[str]) -> dict[str, Any]:
    """What a figure's file holds; empty without one, or if it is damaged."""
    path = folder / f"{name}.json"
    content = json_object(path, damaged)
    if not content:
        return {}
    panels = content.get("panels")
    if not is_text(content.get("title")) or not _are(panels, _PANELS[name]):
        damaged.append(f"{path} is damaged: it holds no numbers of {name}")
        return {}
    return content


def _are(values: Any, check: Check) -> bool:
    """Whether this is a list of one thing or more, all of them so."""
    return isinstance(values, list) and bool(values) and all(map(check, values))


def _has(checks: Mapping[str, Check], may_lack: Mapping[str, Check] = MappingProxyType({})) -> Check:
    """Whether something has these fields, and others as they are to be, if it has them."""

    def check(value: Any) -> bool:
        if not isinstance(value, dict) or not checks.keys() <= value.keys():
            return False
        return all(each(value[name]) for name, each in {**may_lack, **checks}.items() if name in value)

    return check


def _lists(checks: Mapping[str, Check], **others: Check) -> Check:
    """Whether something has lists of these, which are as long as each other, and other fields beside them."""

    def check(value: Any) -> bool:
        is_whole = _has({name: _each(one) for name, one in checks.items()} | others)(value)
        return is_whole and len({len(value[name]) for name in checks}) == 1

    return check


def _each(check: Check) -> Check:
    return lambda values: _are(values, check)


def _up_to(most: int) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) <= most


def _one_of(words: tuple[str, ...]) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _none_or(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_percent(value: Any) -> bool:
    """A score, or an end of its interval, which may lie beyond all scores."""
    return is_number(value) and abs(value) <= MOST_PERCENT


_BIAS, _LAYER = _up_to(MOST_BITS), _up_to(MOST_LAYERS)
_OF = {"role": _one_of(tuple(ROLES)), "kind": _one_of(tuple(KINDS))}
_WHO: dict[str, Check] = {"model": is_text, "task": is_text}
_SCORE: dict[str, Check] = {"score": _none_or(_is_percent)}
_BARS: dict[str, Check] = {"low": _is_percent, "high": _is_percent}

_LINE, _POINT = _has({"scaling": is_text, **_SCORE}, _BARS), _has({"bias": _BIAS, **_SCORE}, _BARS)
_LAYERS = _lists({"layer": _LAYER, "mode": _BIAS, "low": _BIAS, "high": _BIAS}, **_OF)
_STEPS = _lists({"step": is_count, "mode": _BIAS}, layer=_LAYER, **_OF)
_LOSSES = _lists({"step": is_count, "loss": is_loss}, scaling=is_text)


def _is_accuracy(panel: Any) -> bool:
    """Whether a panel has lines and points, and its first line, high precision, a score."""
    checks = {**_WHO, "seed": _none_or(is_count), "lines": _each(_LINE), "points": _each(_POINT)}
    return _has(checks)(panel) and panel["lines"][0]["score"] is not None


_OF_STEPS = _has({**_WHO, "seed": _none_or(is_count), "series": _each(_STEPS)})

_PANELS: dict[str, Check] = {
    "fig5": _is_accuracy,
    "fig6": _has({"model": is_text, "text": is_text, "tokens": is_count, "series": _each(_LAYERS)}),
    **dict.fromkeys(("fig7", "fig8", "fig9"), _OF_STEPS),
    "fig10": _has({**_WHO, "series": _each(_LOSSES)}),
}
