"""The figure of a parity by length: the error of a sum of so many products, on operands that are made.

Beside the sums stand the casts to FP8, whose error does not grow, and what the report of DeepSeek-V3 says of a Hopper.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from octoscale.report.figures.parts import add_legend, join, with_note
from octoscale.report.figures.style import LOOKS, REPORT, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown

#: What the figure needs of parity.json.
FIELDS = {"lengths"}

#: "nearly 2 %" at K = 4,096, the largest relative error of a product of two random matrices that it does not describe
#: (arXiv 2412.19437, section 3.5.2): in the panels of such matrices.
_DEEPSEEK = (4096, 2.0)
_OF_MATRICES = ("normal", "uniform")

#: Every so many lengths are named.
_EACH = 2


@styled
def parity_lengths_figure(parity: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """A panel a family of operands; the norm of the error in % of that of the sums, both axes logarithmic.

    parity: as parity.json has it, with a family at least.
    """
    families = parity["lengths"]
    names = list(dict.fromkeys(row["sums"] for family in families for row in family["series"]))
    columns = min(2, len(families))
    lines = -(-len(families) // columns)
    figure = get_style(style).figure(0.9 + 2.1 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    found: dict[str, Artist] = {}
    for family, axes in zip(families, panels.flat, strict=False):
        found |= _draw(axes, family, names)
        axes.set_title(shown(family["says"], 0.9 * figure.get_figwidth() / columns, figure.style.text))
    for axes in panels.flat[len(families) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("error of the sums, %")
    for axes in panels[-1]:
        axes.set_xlabel("products in a sum")
    add_legend(figure, [*found.values()], [*found], 4)
    return with_note(figure, join("root of the mean square of the errors, over that of the sums", note))


def _draw(axes: Axes, family: Mapping[str, Any], names: list[str]) -> dict[str, Artist]:
    """The lines, by what the legend calls them."""
    drawn: dict[str, Artist] = {}
    lengths = family["lengths"]
    series = {row["sums"]: row["error"] for row in family["series"]}
    for name, look in zip(names, itertools.cycle(LOOKS), strict=False):
        errors = [100 * error or math.nan for error in series.get(name, [])]
        x = lengths if errors else []
        (drawn[name],) = axes.plot(x, errors, color=look.color, linestyle=look.line, marker=look.marker)
    casts = [100 * error or math.nan for error in family["casts"]]
    (drawn["the casts to FP8"],) = axes.plot(lengths, casts, color="0.5", linestyle="-", linewidth=2.5, alpha=0.6)
    if family["operands"] in _OF_MATRICES:
        star: dict[str, Any] = {"color": "0.2", "marker": "*", "linestyle": "none", "markersize": 9, "zorder": 5}
        (drawn["DeepSeek-V3's report: nearly 2 %, the largest"],) = axes.plot(*([value] for value in _DEEPSEEK), **star)
    axes.set(yscale="log")
    axes.set_xscale("log", base=2)
    named = lengths[::_EACH]
    axes.set_xticks(named, [f"{length:,}" for length in named])
    axes.minorticks_off()
    axes.grid(axis="y")
    return drawn
