"""The figure of an advice: what FP8 costs each layer, by depth and kind, and which are kept.

The estimate is a mark for each layer, on a logarithmic axis; bars are what the costliest ones are expected to cost,
each alone in FP8, with their intervals, as far as they lie above the axis's end; rings are the layers that are kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rcParams
from matplotlib.axes import Axes

from octoscale.conversion.kinds import KINDS
from octoscale.report.figures.parts import add_legend, integers, join, with_note
from octoscale.report.figures.style import BLACK, KIND_STYLES, REPORT, StyledFigure, get_style, styled

#: What the figure needs of advice.json.
FIELDS = {"layers", "keep", "recipe", "model", "tokens"}


@styled
def advice_figure(advice: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """One series a kind; the costs in % of the perplexity. Layers without a cost, and outside a stack, are left out.

    advice: as advice.json has it.
    """
    layers = [layer for layer in advice["layers"] if layer["layer"] is not None and layer["estimate"]["both"] > 0]
    figure = get_style(style).figure(3.4)
    axes = figure.subplots()
    for kind in KINDS:
        _draw_kind(axes, [layer for layer in layers if layer["kind"] == kind], kind, figure.style.stroke)
    kept = [layer for layer in layers if layer["module"] in (advice["keep"] or ())]
    look: dict[str, Any] = {"facecolors": "none", "edgecolors": BLACK, "zorder": 4}
    size = {"s": 70 * (rcParams["lines.markersize"] / 4) ** 2, "linewidths": figure.style.stroke}
    x, y = [_x(layer) for layer in kept], [_y(layer) for layer in kept]
    axes.scatter(x, y, label="kept" if kept else None, **look, **size)
    axes.set(yscale="log", xlabel="decoder layer", ylabel="cost in perplexity, %")
    axes.xaxis.set_major_locator(integers(16))
    axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    add_legend(figure, handles, labels, 6)
    scaling, model = advice["recipe"], advice["model"]
    what = "marks: estimated from one backward pass; bars: expected, each alone in FP8, 95 % interval"
    return with_note(figure, join(f"{what}; {model}, {scaling}, {advice['tokens']:,} tokens", note))


def _draw_kind(axes: Axes, layers: Sequence[Mapping[str, Any]], kind: str, stroke: float) -> None:
    if not layers:
        return
    look = KIND_STYLES[kind]
    marks: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": "none"}
    axes.plot([_x(layer) for layer in layers], [_y(layer) for layer in layers], label=look.label, **marks)
    floor = min(_y(layer) for layer in layers) / 2
    for layer in layers:
        expected = layer["alone"]["expected"] if "alone" in layer else {}
        if expected.get("low") is not None and (expected.get("high") or 0.0) > 0:
            low, high = max(100 * expected["low"], floor), 100 * expected["high"]
            axes.vlines(_x(layer), min(low, high), high, color=look.color, alpha=0.35, linewidth=2.5 * stroke)


def _x(layer: Mapping[str, Any]) -> float:
    """Kinds of one decoder layer stand beside each other."""
    return float(layer["layer"] + 0.14 * (KINDS.index(layer["kind"]) - 1.5))


def _y(layer: Mapping[str, Any]) -> float:
    return 100 * math.expm1(min(layer["estimate"]["both"], 700.0))
