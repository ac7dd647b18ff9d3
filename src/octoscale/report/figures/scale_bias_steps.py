"""The figure of scales that move: kinds of layers by roles, over the steps, as in the paper's Figures 7, 8 and 9.

    scale_bias_steps_figure(octoscale.load_run("runs/train").scales, style="paper")

A constant scaling has no scales that move, and gets no such figure.
"""

import polars as pl

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.data.training import scale_bias_of_training
from octoscale.report.figures.parts import add_legend, integers, join, with_note
from octoscale.report.figures.style import KIND_STYLES, LOOKS, REPORT, ROLE_LABELS, StyledFigure, get_style, styled
from octoscale.report.figures.words import fitting_size
from octoscale.system.errors import UserError


def scale_bias_steps_figure(scales: pl.DataFrame, *, style: str = REPORT, note: str = "") -> StyledFigure:
    """The scale_bias of the first, the middle and the last layers by step: its mode over modules and micro-batches.

    From the rows of a training. UserError if they hold none whose scale adapts.
    """
    biases = scale_bias_of_training(scales)
    if biases.is_empty():
        raise UserError("no scale of these rows moves: they are of no training, or its scaling is constant")
    return draw_scale_bias_steps(biases, style=style, note=join("mode over modules and micro-batches", note))


@styled
def draw_scale_bias_steps(biases: pl.DataFrame, *, style: str = REPORT, note: str = "") -> StyledFigure:
    """The same from its numbers, role, kind, layer, step -> mode, as `scale_bias_of_training` makes them.

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
                height = line["mode"] + 0.08 * (place - (len(layers) - 1) / 2)  # so that equal ones are all seen
                axes.plot(line["step"], height, color=look.color, linestyle=look.line, label=f"layer {layer}")
            axes.yaxis.set_major_locator(integers(5))
            axes.xaxis.set_major_locator(integers(5))
            axes.grid(axis="y")
        row[0].set_ylabel(f"{KIND_STYLES[kind].label}\nscale_bias", fontsize=size)
    for axes, role in zip(panels[0], roles, strict=True):
        axes.set_title(ROLE_LABELS[role])
    for axes in panels[-1]:
        axes.set_xlabel("step")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    add_legend(figure, handles, labels, len(labels))
    return with_note(figure, note)
