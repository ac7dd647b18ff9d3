"""The figure of pairs of biases: what a constant for the weights and one for the inputs cost together.

A cell a pair: its color says how much worse than the reference it is, a dot that it passes beyond noise, a ring that
noise leaves it undecided.

    bias_map_figure(octoscale.load_run("runs/sweep").summary["bias_map"])
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from octoscale.report.figures.parts import add_legend, decimal, with_note
from octoscale.report.figures.style import HATCHED, REPORT, ROLE_LABELS, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown
from octoscale.system.errors import UserError

#: Where the colors begin and end, in % of perplexity or points of accuracy; what is better has the first color.
_LEAST = 0.1
_MOST = {"perplexity": 1000.0, "accuracy": 100.0}
_COLORS = colormaps["viridis_r"]

#: How a verdict is drawn, and what the legend calls it.
_MARKS: dict[str, tuple[dict[str, Any], str]] = {
    "passes": ({"markerfacecolor": "black"}, "passes beyond noise"),
    "undecided": ({"markerfacecolor": "white"}, "undecided"),
}
_POINT: dict[str, Any] = {"marker": "o", "linestyle": "none", "markeredgecolor": "black", "markeredgewidth": 0.7}

#: Of a cell: its column, its row, and itself.
_Place = tuple[int, int, Mapping[str, Any]]


@styled
def bias_map_figure(found: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """The map that a sweep put into its summary: the first of its roles upwards, the second one to the right.

    UserError for one without a pair.
    """
    if not found["cells"]:
        raise UserError("this map of biases holds no pair: nothing was measured")
    upwards, right = found["roles"]
    rows, columns = (sorted({cell[role] for cell in found["cells"]}) for role in (upwards, right))
    places: list[_Place] = [(columns.index(cell[right]), rows.index(cell[upwards]), cell) for cell in found["cells"]]
    figure = get_style(style).figure(1.5 + min(max(0.25 * len(rows), 1.5), 6.0), wide=len(columns) > 8)
    axes = figure.subplots()
    norm = LogNorm(_LEAST, _MOST[found["what"]])
    _draw_cells(axes, places, norm)
    handles: list[Artist] = [_draw_marks(axes, places, verdict) for verdict in _MARKS]
    handles += [Patch(label="not finite", **HATCHED)] * any(cell["worse"] is None for *_, cell in places)
    axes.set(xlim=(0, len(columns)), ylim=(0, len(rows)))
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.set(xlabel=f"scale_bias of {ROLE_LABELS[right]}", ylabel=f"scale_bias of {ROLE_LABELS[upwards]}")
    add_legend(figure, handles, [str(handle.get_label()) for handle in handles], len(handles))
    _draw_bar(figure, axes, ScalarMappable(norm, _COLORS), found)
    return with_note(figure, note)


def _draw_cells(axes: Axes, places: Sequence[_Place], norm: LogNorm) -> None:
    """A colored cell for each pair, hatched where there is no number."""
    table = [[math.nan] * (1 + max(x for x, *_ in places)) for _ in range(1 + max(y for _, y, _ in places))]
    for x, y, cell in places:
        if cell["worse"] is None:
            axes.add_patch(Rectangle((x, y), width=1, height=1, **HATCHED))
        else:
            table[y][x] = max(cell["worse"], _LEAST)
    axes.pcolormesh(table, norm=norm, cmap=_COLORS, edgecolors="face", linewidth=0.2)


def _draw_marks(axes: Axes, places: Sequence[_Place], verdict: str) -> Line2D:
    """A mark on each cell of this verdict."""
    look, label = _MARKS[verdict]
    marked = [(x, y) for x, y, cell in places if cell["verdict"] == verdict]
    axes.plot([x + 0.5 for x, _ in marked], [y + 0.5 for _, y in marked], **_POINT, **look)
    return Line2D([], [], label=label, **_POINT, **look)


def _draw_bar(figure: StyledFigure, axes: Axes, colors: ScalarMappable, found: Mapping[str, Any]) -> None:
    """What the colors mean."""
    what, against = found["what"], shown(found["against"], 0.3 * figure.get_figheight(), figure.style.text)
    label = f"perplexity above {against}'s, %" if what == "perplexity" else f"accuracy below {against}'s, points"
    bar = figure.colorbar(colors, ax=axes, label=label, extend="both", aspect=30)
    bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(decimal)
