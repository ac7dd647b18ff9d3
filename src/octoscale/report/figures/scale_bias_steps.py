"""The figure of scales that move: kinds of layers by roles, over the steps, as in the paper's Figures 7, 8 and 9.

    scale_bias_steps_figure(octoscale.load_run("runs/train").scales, style="paper")

A constant scaling has no scales that move, and gets no such figure. Where tensors have several scales, a line is that
of the lowest, which holds amax, and a band reaches from the lowest to the highest of all modules and micro-batches.
"""

from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.data.bands import each_of, granularities_of
from octoscale.report.data.training import bands_of_training, scale_bias_of_training
from octoscale.report.figures.parts import add_legend, integers, join, with_note
from octoscale.report.figures.style import (
    KIND_STYLES,
    LOOKS,
    REPORT,
    ROLE_LABELS,
    KindStyle,
    StyledFigure,
    get_style,
    styled,
)
from octoscale.report.figures.words import fitting_size
from octoscale.system.errors import UserError

#: How a band looks: several of them lie over each other, so it is its thin upper edge that says whose it is.
_BAND: dict[str, Any] = {"alpha": 0.1, "linewidth": 0}


def scale_bias_steps_figure(scales: pl.DataFrame, *, style: str = REPORT, note: str = "") -> StyledFigure:
    """The scale_bias of the first, the middle and the last layers by step: its mode over modules and micro-batches.

    From the rows of a training. UserError if they hold none whose scale adapts.
    """
    biases = scale_bias_of_training(scales)
    if biases.is_empty():
        raise UserError("no scale of these rows moves: they are of no training, or its scaling is constant")
    bands = bands_of_training(scales)
    what = "mode over modules and micro-batches"
    if not bands.is_empty():
        own = each_of(granularities_of(scales))
        what = f"a scale for {own}: strong lines are the lowest, {what}; bands reach to the highest, thin lines"
    return draw_scale_bias_steps(biases, bands, style=style, note=join(what, note))


@styled
def draw_scale_bias_steps(
    biases: pl.DataFrame, bands: pl.DataFrame | None = None, *, style: str = REPORT, note: str = ""
) -> StyledFigure:
    """The same from its numbers, role, kind, layer, step -> mode, as `scale_bias_of_training` makes them.

    bands: role, kind, layer, step -> low, high, as `bands_of_training` makes them; None for one scale a tensor.
    Rows are kinds, columns roles; a line a layer. One integer of scale_bias is as high in a column.
    """
    roles = [role for role in ROLES if role in biases["role"]]
    kinds = [kind for kind in KINDS if kind in biases["kind"]]
    layers: list[int] = sorted(biases["layer"].unique())
    figure = get_style(style).figure(1.0 + 1.35 * len(kinds))
    panels = figure.subplots(len(kinds), len(roles), sharex=True, sharey="col", squeeze=False)
    room = 0.7 * figure.get_figheight() / len(kinds)
    size = min(fitting_size(KIND_STYLES[kind].label, room, figure.style.text) for kind in kinds)
    for row, kind in zip(panels, kinds, strict=True):
        for axes, role in zip(row, roles, strict=True):
            for place, (look, layer) in enumerate(zip(LOOKS, layers, strict=False)):
                line = biases.filter(role=role, kind=kind, layer=layer)
                apart = 0.08 * (place - (len(layers) - 1) / 2)  # so that equal ones are all seen
                axes.plot(
                    line["step"], line["mode"] + apart, color=look.color, linestyle=look.line, label=f"layer {layer}"
                )
                if bands is not None:
                    _draw_band(axes, bands.filter(role=role, kind=kind, layer=layer), look, apart, figure.style.stroke)
            axes.yaxis.set_major_locator(integers(5))
            axes.xaxis.set_major_locator(integers(5))
            axes.grid(axis="y")
        row[0].set_ylabel(f"{KIND_STYLES[kind].label}\nscale_bias", fontsize=size)
    for axes, role in zip(panels[0], roles, strict=True):
        axes.set_title(ROLE_LABELS[role])
    for axes in panels[-1]:
        axes.set_xlabel("step")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    if bands is not None and not bands.is_empty():
        handles, labels = [*handles, Patch(color="0.5", **_BAND)], [*labels, "lowest to highest scale"]
    add_legend(figure, handles, labels, len(labels))
    return with_note(figure, note)


def _draw_band(axes: Axes, band: pl.DataFrame, look: KindStyle, apart: float, stroke: float) -> None:
    """From the lowest to the highest scale, with an edge above in the look of the line."""
    axes.fill_between(band["step"], band["low"], band["high"] + apart, color=look.color, **_BAND)
    axes.plot(
        band["step"], band["high"] + apart, color=look.color, linestyle=look.line, linewidth=0.6 * stroke, alpha=0.6
    )
