"""The figure of losses of one or several trainings, over each other, as in the paper's Figure 10.

    loss_figure(loss_curves([read_run("runs/bf16"), read_run("runs/amax")]))

Above the losses; below, if there are several runs, how far each lies above the reference.
"""

import itertools
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from octoscale.report.data.training import LossCurve, excess_by_step, mean_width, reference_curve
from octoscale.report.figures.parts import add_legend, integers, with_note
from octoscale.report.figures.style import LOOKS, REPORT, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown
from octoscale.system.errors import UserError

#: Beyond this, in %, the lower panel of the losses is cut off: a run that diverges would flatten the others.
MAX_DIFFERENCE = 10.0


@styled
def loss_figure(curves: Sequence[LossCurve], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """Single steps pale, their running mean strong, circles for validation; nats a token, or an example.

    curves: as `data.training.loss_curves` makes them from runs. Crosses at the upper edge stand where a loss is not
    finite, ticks at the lower one for steps that were skipped. UserError without a curve.
    """
    if not curves:
        raise UserError("no losses to draw: name a training")
    several = len(curves) > 1
    figure = get_style(style).figure(4.6 if several else 3.2, wide=False)
    heights = [2, 1] if several else [1]
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    stroke = figure.style.stroke
    lines = [
        _draw_losses(panels[0], curve, look.color, look.line, stroke)
        for look, curve in zip(itertools.cycle(LOOKS), curves, strict=False)
    ]
    panels[0].set_ylabel("loss, nats")
    panels[0].grid(axis="y")
    width = max(mean_width(len(curve.losses)) for curve in curves)
    if several:
        _draw_differences(panels[1], curves, figure)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(integers())
    add_legend(figure, lines, [curve.label for curve in curves], min(4, len(curves)))
    notes = ["lines: training" + (f", mean of {width} steps" if width > 1 else ""), "circles: validation", note]
    return with_note(figure, "; ".join(text for text in notes if text))


def _draw_losses(axes: Axes, curve: LossCurve, color: str, line: str, stroke: float) -> Line2D:
    """Returns the line of the mean."""
    axes.plot(curve.steps, curve.losses, color=color, linewidth=0.5 * stroke, alpha=0.3)
    (mean,) = axes.plot(curve.steps, curve.mean, color=color, linestyle=line)
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
    return mean


def _draw_differences(axes: Axes, curves: Sequence[LossCurve], figure: StyledFigure) -> None:
    """The running means against the reference's."""
    reference = reference_curve(curves)
    for look, curve in zip(itertools.cycle(LOOKS), curves, strict=False):
        axes.plot(*excess_by_step(curve, reference), color=look.color, linestyle=look.line)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -MAX_DIFFERENCE), min(high, MAX_DIFFERENCE))
    name = shown(reference.label, 0.2 * figure.get_figheight(), figure.style.text)
    axes.set_ylabel(f"above\n{name}, %")
    axes.grid(axis="y")
