"""The figure of an advice: what FP8 costs each layer, by depth and kind, and which are kept.

The estimate is a mark for each layer, on a logarithmic axis; bars are the measured costs of the costliest ones, with
their intervals, as far as they lie above the axis's end; rings are the layers that are kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from octoscale.conversion.kinds import KINDS
from octoscale.report.style import KIND_STYLES, WIDTH, integers, join, with_footer

#: What the figure needs of advice.json.
FIELDS = {"layers", "keep", "recipe", "model", "tokens"}


def advice_figure(advice: Mapping[str, Any]) -> Figure:
    """One series a kind; the costs in % of the perplexity. Layers without a cost, and outside a stack, are left out."""
    layers = [layer for layer in advice["layers"] if layer["layer"] is not None and layer["estimate"]["both"] > 0]
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.subplots()
    for kind in KINDS:
        _draw_kind(axes, [layer for layer in layers if layer["kind"] == kind], kind)
    kept = [layer for layer in layers if layer["module"] in (advice["keep"] or ())]
    look: dict[str, Any] = {"facecolors": "none", "edgecolors": "#000000", "linewidths": 1.0, "zorder": 4}
    axes.scatter(
        [_x(layer) for layer in kept], [_y(layer) for layer in kept], s=70, label="kept" if kept else None, **look
    )
    axes.set(yscale="log", xlabel="decoder layer", ylabel="cost in perplexity, %")
    axes.xaxis.set_major_locator(integers(16))
    axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=6)
    scaling, model = advice["recipe"], advice["model"]
    what = f"marks: estimated from one backward pass; bars: measured alone, 95 % interval; {model}, {scaling}"
    return with_footer(figure, join(what, f"{advice['tokens']:,} tokens"))


def _draw_kind(axes: Axes, layers: Sequence[Mapping[str, Any]], kind: str) -> None:
    if not layers:
        return
    look = KIND_STYLES[kind]
    marks: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": "none"}
    axes.plot([_x(layer) for layer in layers], [_y(layer) for layer in layers], label=look.label, **marks)
    floor = min(_y(layer) for layer in layers) / 2
    for layer in layers:
        expected = layer["alone"]["expected"] if "alone" in layer else {}
        if expected.get("low") is not None and expected["high"] > 0:
            low, high = max(100 * expected["low"], floor), 100 * expected["high"]
            axes.vlines(_x(layer), min(low, high), high, color=look.color, alpha=0.35, linewidth=2.5)


def _x(layer: Mapping[str, Any]) -> float:
    """Kinds of one decoder layer stand beside each other."""
    return float(layer["layer"] + 0.14 * (KINDS.index(layer["kind"]) - 1.5))


def _y(layer: Mapping[str, Any]) -> float:
    return 100 * math.expm1(min(layer["estimate"]["both"], 700.0))
