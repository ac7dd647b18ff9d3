"""The figure of perplexities: which constant scales survive, as in the paper's Figure 5.

A plateau, and a cliff on either side; horizontal lines are the scalings without a constant, the shaded biases pass.

    perplexity_figure(octoscale.load_run("runs/sweep").summary["perplexity"], style="paper")
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter

from octoscale.report.data.validation import basin, excess, finite, split_scores
from octoscale.report.figures.parts import add_legend, integers, with_note
from octoscale.report.figures.style import CURVE, LINE_STYLES, REPORT, SHADE, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown
from octoscale.system.errors import UserError
from octoscale.validation.criterion import PERPLEXITY_TOLERANCE

#: The zoom ends here: % above the reference.
MAX_EXCESS = 10.0

_Scores = Mapping[str, float | None]


@styled
def perplexity_figure(perplexity: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """Left the whole range on a logarithmic axis; right, if a bias comes near the reference, the basin in per cent.

    perplexity: of each scaling, constant ones by their bias under `cscale`, as a run's summary has it; None where it
    was not finite. UserError unless there is a constant scaling, and a number.
    """
    lines, points = split_scores(perplexity)
    passing = basin(perplexity)
    if not points or not any(score is not None for score in (*lines.values(), *points.values())):
        raise UserError("no perplexity of a constant scaling to draw: validate with --scaling cscale:-1, say, or sweep")
    reference = next(iter(finite(lines)), None)
    near = {} if reference is None else {b: x for b, x in excess(points, lines[reference]).items() if x <= MAX_EXCESS}
    figure = get_style(style).figure(3.1, wide=bool(near))
    stroke = figure.style.stroke
    panels = figure.subplots(1, 2 if near else 1, squeeze=False)[0]
    for axes in panels:
        if passing:
            axes.axvspan(min(passing) - 0.5, max(passing) + 0.5, color=SHADE, linewidth=0, zorder=0)
        axes.xaxis.set_major_locator(integers())
        axes.set_xlabel("constant scale_bias")
        axes.grid(axis="y")
    drawn = _draw_lines(panels[0], lines, stroke)
    labels = [f"{name}: not finite" if x is None else f"{name}: {x:#.4g}" for name, x in lines.items()]
    handles: list[Artist] = [*drawn, *_draw_points(panels[0], points)]
    labels += ["cscale", "cscale, not finite"]
    panels[0].set(yscale="log", ylabel="perplexity", title="all biases")
    _name_small_steps(panels[0], [*finite(lines).values(), *finite(points).values()])
    labels = labels[: len(handles)]
    if passing:
        handles.append(Patch(facecolor=SHADE))
        labels.append(f"at most {100 * PERPLEXITY_TOLERANCE:g} % above amax")
    add_legend(figure, handles, labels, 4 if len(labels) <= 4 else 3)
    if near:
        _draw_zoom(panels[1], lines, points, str(reference), near)
    return with_note(figure, note)


def _name_small_steps(axes: Axes, values: Sequence[float]) -> None:
    """Write 16, not 1.6 x 10^1, where the whole axis is little, and below 10,000: few biases, none far out."""
    if values and max(values) < 30 * min(values) and max(values) < 1e4:
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())


def _draw_zoom(
    axes: Axes,
    lines: _Scores,
    points: Mapping[int, float | None],
    reference: str,
    near: Mapping[int, float],
) -> None:
    """The biases within MAX_EXCESS; the line leaves at the top towards the others."""
    figure = cast("StyledFigure", axes.get_figure())
    levels: dict[str, float | None] = {**dict.fromkeys(lines), **excess(lines, lines[reference])}
    _draw_lines(axes, levels, figure.style.stroke)
    above = excess(points, lines[reference])
    _draw_points(axes, {bias: above.get(bias) for bias in points if min(near) - 1 <= bias <= max(near) + 1})
    inside = [*near.values(), *(level for level in finite(levels).values() if level <= MAX_EXCESS)]
    margin = 0.12 * max(max(inside) - min(inside), 0.1)
    axes.set(ylim=(min(inside) - margin, max(inside) + margin), xlim=(min(near) - 0.9, max(near) + 0.9))
    name = shown(reference, 0.15 * figure.get_figheight(), figure.style.text)
    axes.set(ylabel=f"perplexity above {name}'s, %", title=f"biases within {MAX_EXCESS:g} % of {name}")


def _draw_lines(axes: Axes, levels: _Scores, stroke: float) -> list[Line2D]:
    """Horizontal lines, each name with a style that it keeps from panel to panel; none for what is not finite."""
    drawn: list[Line2D] = []
    for level, (color, line) in zip(levels.values(), itertools.cycle(LINE_STYLES), strict=False):
        if level is None:
            drawn += axes.plot([], linestyle="none")
        else:
            drawn.append(axes.axhline(level, color=color, linestyle=line, linewidth=0.9 * stroke))
    return drawn


def _draw_points(axes: Axes, points: Mapping[int, float | None]) -> list[Line2D]:
    """The curve of cscale, broken where it is not finite; those biases are crosses at the upper edge."""
    values = [math.nan if value is None else value for value in points.values()]
    drawn = axes.plot([*points], values, color=CURVE, marker="o")
    lost = [bias for bias, value in points.items() if value is None]
    if lost:
        look: dict[str, Any] = {"color": CURVE, "marker": "x", "linestyle": "none"}
        look["markersize"] = 1.5 * rcParams["lines.markersize"]
        drawn += axes.plot(lost, [1] * len(lost), transform=axes.get_xaxis_transform(), clip_on=False, **look)
    return drawn
