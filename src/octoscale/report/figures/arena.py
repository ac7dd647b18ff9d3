"""The figure of a contest: how far each scaling lies from high precision, and what noise leaves open.

A row a contestant, a mark at its gap, a bar over the 95 % interval. A filled mark is told from high precision, a hollow
one is not: its bar holds 0. Who has no number has a cross at the edge, and says so. Where one lies so far out that the
others would be a point, the axis ends before it: its mark is an arrow, with its number.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from octoscale.report.figures.parts import add_legend, join, with_note
from octoscale.report.figures.style import BLACK, CURVE, REPORT, SHADE, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown

#: A gap lies beyond the axis that is this many times as large as what the median contestant's interval reaches.
_FAR = 6.0
#: An axis reaches at least over this many units to each side.
_LEAST = 1e-4

#: How a gap is drawn that is told from high precision, and one that is not.
_TOLD: dict[str, Any] = {"color": CURVE, "marker": "o", "linestyle": "none"}
_OPEN: dict[str, Any] = _TOLD | {"markerfacecolor": "white"}


@styled
def arena_figure(arena: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """One panel. arena: as arena.json has it."""
    rows = [row for row in arena["rows"] if row["scaling"] != arena["against"]]
    figure = get_style(style).figure(1.3 + 0.27 * len(rows))
    axes = figure.subplots()
    low, high = _ends(rows)
    for place, row in enumerate(rows):
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color=SHADE, linewidth=0, zorder=0)
        _draw(axes, place, row, low, high)
    axes.axvline(0, color=BLACK, linestyle="--", linewidth=0.9 * figure.style.stroke)
    names = [shown(row["scaling"], 0.3 * figure.get_figwidth(), figure.style.text) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", length=0)
    what = "validation loss above {}'s, nats a token" if arena["trains"] else "perplexity above {}'s, %"
    axes.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), xlabel=what.format(shown(arena["against"])))
    axes.grid(axis="x")
    against = shown(arena["against"], 0.15 * figure.get_figwidth(), figure.style.text)
    add_legend(
        figure,
        [Line2D([], [], **_TOLD), Line2D([], [], **_OPEN)],
        [f"told from {against}", f"not told from {against}"],
        2,
    )
    bars = f"{arena['title']}; bars: 95 % intervals of the paired difference, over the {arena['unit']}"
    return with_note(figure, join(bars, note))


def _ends(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Of the axis: all intervals that are not far out, 0 included, and some room."""
    reach = sorted(max(map(abs, _numbers(row))) for row in rows if row["gap"] is not None)
    far = _FAR * max(reach[len(reach) // 2], _LEAST) if reach else math.inf
    there = [x for row in rows if row["gap"] is not None and abs(row["gap"]) <= far for x in _numbers(row)]
    ends = [0.0, *(min(max(x, -far), far) for x in there)]
    room = 0.06 * max(max(ends) - min(ends), _LEAST)
    return min(ends) - room, max(ends) + 2 * room


def _numbers(row: Mapping[str, Any]) -> list[float]:
    """A row's gap, and the ends of its interval if it has one."""
    return [row[name] for name in ("gap", "low", "high") if row[name] is not None]


def _draw(axes: Axes, place: int, row: Mapping[str, Any], low: float, high: float) -> None:
    gap, ends = row["gap"], (row["low"], row["high"])
    if gap is None:
        axes.plot([high], [place], color=BLACK, marker="x", linestyle="none", clip_on=False)
        is_refused = str(row["verdict"]).startswith("refused")
        _write(axes, high, place, "refused" if is_refused else "no finite result", is_right=True)
        return
    if not low <= gap <= high:
        is_right = gap > high
        axes.plot([high if is_right else low], [place], color=CURVE, marker=">" if is_right else "<", clip_on=False)
        _write(axes, high if is_right else low, place, f"{gap:+.3g}", is_right=is_right)
        return
    is_told = ends[0] is not None and (ends[0] > 0 or ends[1] < 0)
    if ends[0] is not None:
        axes.plot(ends, [place, place], color=CURVE, marker="|")
    axes.plot([gap], [place], **(_TOLD if is_told else _OPEN), zorder=3)


def _write(axes: Axes, x: float, place: int, text: str, *, is_right: bool) -> None:
    """Words beside a mark at an edge, towards the middle."""
    look: dict[str, Any] = {"ha": "right" if is_right else "left", "va": "center", "color": "0.25"}
    axes.annotate(text, (x, place), xytext=(-8 if is_right else 8, 0), textcoords="offset points", **look)
