"""The figure of a parity: how far outputs lie from exact ones, in ulp, by kind of layer and way of summing.

A line is what share of the outputs lies farther away than that; rounding itself may take half an ulp.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import RESULTS
from octoscale.report.figures.parts import add_legend, decimal, join, with_note
from octoscale.report.figures.style import KIND_STYLES, LOOKS, REPORT, SHADE, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown

#: What the figure needs of parity.json.
FIELDS = {"kinds", "exponents", "dtype"}

#: Of the exponents, those that are named, so that their names do not touch.
_EACH = 4
#: The ends of an axis on which nothing is drawn, in %.
_NOTHING = (0.1, 100.0)


@styled
def parity_figure(parity: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """A panel a kind of layers, and a row of panels for each of the three products that were compared.

    parity: as parity.json has it, with a kind at least.
    """
    rows = parity["kinds"]
    results = [result for result in RESULTS if any(row["result"] == result for row in rows)]
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    names = list(dict.fromkeys(row["sums"] for row in rows))
    figure = get_style(style).figure(1.0 + 1.7 * len(results))
    panels = figure.subplots(len(results), len(kinds), sharex=True, sharey=True, squeeze=False)
    handles: list[Line2D] = []
    for result, line in zip(results, panels, strict=True):
        for kind, axes in zip(kinds, line, strict=True):
            there = [row for row in rows if (row["result"], row["kind"]) == (result, kind)]
            drawn = _draw(axes, there, names, parity["exponents"])
            handles = handles or drawn
        line[0].set_ylabel(f"{result},\nfarther away, %")
    if not any(any(row["above"]) for row in rows):  # all sums are exact: no line gives the axis its ends
        panels[0, 0].set_ylim(*_NOTHING)
    for kind, axes in zip(kinds, panels[0], strict=True):
        axes.set_title(KIND_STYLES[kind].label)
    dtype = shown(parity["dtype"], 0.1 * figure.get_figwidth(), figure.style.text)
    for axes in panels[-1]:
        axes.set_xlabel(f"from exact, ulp of {dtype}")
    add_legend(figure, handles, names, 6)
    lowest = f"a line that is not there lies below {_power(parity['exponents'][0])} ulp"
    return with_note(figure, join(f"shaded: less than rounding may take, 1/2 ulp; {lowest}", note))


def _draw(
    axes: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str], exponents: Sequence[int]
) -> list[Line2D]:
    handles = []
    for name, look in zip(names, itertools.cycle(LOOKS), strict=False):
        row = next((row for row in rows if row["sums"] == name), None)
        shares = [] if row is None else [100 * count / max(1, row["outputs"]) or math.nan for count in row["above"]]
        x = [2.0**exponent for exponent in exponents] if shares else []
        handles += axes.plot(x, shares, color=look.color, linestyle=look.line, marker=look.marker, markevery=_EACH)
    lowest, highest = 2.0 ** exponents[0], 2.0 ** exponents[-1]
    axes.axvspan(lowest, 0.5, color=SHADE, linewidth=0, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(lowest, highest))
    axes.set_xscale("log", base=2)
    named = [exponent for exponent in exponents[1:-1] if exponent % _EACH == 0]
    axes.set_xticks([2.0**exponent for exponent in named], [_power(exponent) for exponent in named])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(decimal)
    axes.grid(axis="y")
    return handles


def _power(exponent: int) -> str:
    """16, or 1/16."""
    return f"{2**exponent}" if exponent >= 0 else f"1/{2**-exponent}"
