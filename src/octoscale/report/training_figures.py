"""The figures of trainings, drawn from the files that they wrote.

    scale_bias_steps    how the scales move: kinds of layers by roles, over the steps   (the paper's Figures 7, 8, 9)
    loss                the losses of one or several runs over each other                (its Figure 10)

training_data.py computes the numbers. A constant scaling has no scales that move, and gets no such figure.
"""

import itertools
import math
from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.style import KIND_STYLES, LOOKS, ROLE_LABELS, WIDTH, integers, plain, with_footer
from octoscale.report.training_data import LossCurve, excess_by_step, mean_width, reference_curve

#: Beyond this, in %, the lower panel of the losses is cut off: a run that diverges would flatten the others.
MAX_DIFFERENCE = 10.0


def scale_bias_steps_figure(biases: pl.DataFrame, footer: str) -> Figure:
    """Rows are kinds, columns roles; a line a layer. One integer of scale_bias is as high in a column."""
    roles = [role for role in ROLES if role in biases["role"]]
    kinds = [kind for kind in KINDS if kind in biases["kind"]]
    layers: list[int] = sorted(biases["layer"].unique())
    figure = Figure(figsize=(WIDTH, 1.0 + 1.35 * len(kinds)))
    panels = figure.subplots(len(kinds), len(roles), sharex=True, sharey="col", squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        for axes, role in zip(row, roles, strict=True):
            for place, (look, layer) in enumerate(zip(LOOKS, layers, strict=False)):
                line = biases.filter(role=role, kind=kind, layer=layer)
                height = line["mode"] + 0.08 * (place - (len(layers) - 1) / 2)  # so that equal ones are all seen
                axes.plot(line["step"], height, color=look.color, linestyle=look.line, label=f"layer {layer}")
            axes.yaxis.set_major_locator(integers(5))
            axes.xaxis.set_major_locator(integers(5))
            axes.grid(axis="y")
        row[0].set_ylabel(f"{KIND_STYLES[kind].label}\nscale_bias")
    for axes, role in zip(panels[0], roles, strict=True):
        axes.set_title(ROLE_LABELS[role])
    for axes in panels[-1]:
        axes.set_xlabel("step")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return with_footer(figure, footer)


def loss_figure(curves: Sequence[LossCurve], footer: str) -> Figure:
    """Above the losses; below, if there are several runs, how far each lies above the reference."""
    several = len(curves) > 1
    figure = Figure(figsize=(WIDTH, 4.6 if several else 3.2))
    heights = [2, 1] if several else [1]
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for look, curve in zip(itertools.cycle(LOOKS), curves, strict=False):
        _draw_losses(panels[0], curve, look.color, look.line)
    panels[0].set_ylabel("loss, nats")
    panels[0].grid(axis="y")
    width = max(mean_width(len(curve.losses)) for curve in curves)
    if several:
        _draw_differences(panels[1], curves)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(integers())
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))
    notes = ["lines: training" + (f", mean of {width} steps" if width > 1 else ""), "circles: validation", footer]
    return with_footer(figure, "; ".join(note for note in notes if note))


def _draw_losses(axes: Axes, curve: LossCurve, color: str, line: object) -> None:
    """Single steps pale, their mean strong; crosses at the upper edge where a loss is not finite, ticks for skips."""
    axes.plot(curve.steps, curve.losses, color=color, linewidth=0.5, alpha=0.3)
    axes.plot(curve.steps, curve.mean, color=color, linestyle=line, label=plain(curve.label))
    if curve.validation:
        axes.plot(
            [*curve.validation], [*curve.validation.values()], "o", color=color, markerfacecolor="white", zorder=4
        )
    edge = axes.get_xaxis_transform()
    lost = [step for step, loss in zip(curve.steps, curve.losses, strict=True) if not math.isfinite(loss)]
    if lost:
        axes.plot(lost, [1] * len(lost), "x", color=color, transform=edge, clip_on=False)
    if curve.skipped:
        axes.plot(curve.skipped, [0.02] * len(curve.skipped), "|", color=color, transform=edge)


def _draw_differences(axes: Axes, curves: Sequence[LossCurve]) -> None:
    """The running means against the reference's."""
    reference = reference_curve(curves)
    for look, curve in zip(itertools.cycle(LOOKS), curves, strict=False):
        axes.plot(*excess_by_step(curve, reference), color=look.color, linestyle=look.line)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -MAX_DIFFERENCE), min(high, MAX_DIFFERENCE))
    axes.set_ylabel(f"above\n{plain(reference.label)}, %")
    axes.grid(axis="y")
