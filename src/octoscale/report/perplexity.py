"""The figure of perplexities: which constant scales survive, as in the paper's Figure 5.

A plateau, and a cliff on either side; horizontal lines are the scalings without a constant, the shaded biases pass.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter

from octoscale.report.data import excess, finite
from octoscale.report.style import CURVE, LINE_STYLES, SHADE, WIDTH, integers, plain, with_footer
from octoscale.validation.criterion import PERPLEXITY_TOLERANCE

#: The zoom ends here: % above the reference.
MAX_EXCESS = 10.0


def perplexity_figure(
    lines: Mapping[str, float | None], points: Mapping[int, float | None], passing: Sequence[int], footer: str
) -> Figure:
    """Left the whole range on a logarithmic axis; right, if a bias comes near the reference, the basin in per cent."""
    reference = next(iter(finite(lines)), None)
    near = {} if reference is None else {b: x for b, x in excess(points, lines[reference]).items() if x <= MAX_EXCESS}
    figure = Figure(figsize=(WIDTH, 3.1))
    panels = figure.subplots(1, 2 if near else 1, squeeze=False)[0]
    for axes in panels:
        if passing:
            axes.axvspan(min(passing) - 0.5, max(passing) + 0.5, color=SHADE, linewidth=0, zorder=0)
        axes.xaxis.set_major_locator(integers())
        axes.set_xlabel("constant scale_bias")
        axes.grid(axis="y")
    _draw_lines(panels[0], lines, {name: plain(f"{name}: {x:#.4g}") for name, x in finite(lines).items()})
    _draw_points(panels[0], points)
    panels[0].set(yscale="log", ylabel="perplexity", title="all biases")
    _name_small_steps(panels[0], [*finite(lines).values(), *finite(points).values()])
    handles, labels = panels[0].get_legend_handles_labels()
    if passing:
        handles.append(Patch(facecolor=SHADE))
        labels.append(f"at most {100 * PERPLEXITY_TOLERANCE:g} % above amax")
    figure.legend(handles, labels, loc="outside upper left", ncols=4 if len(labels) <= 4 else 3)
    if near:
        _draw_zoom(panels[1], lines, points, str(reference), near)
    return with_footer(figure, footer)


def _name_small_steps(axes: Axes, values: Sequence[float]) -> None:
    """Write 16, not 1.6 x 10^1, where the whole axis is little, and below 10,000: few biases, none far out."""
    if values and max(values) < 30 * min(values) and max(values) < 1e4:
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())


def _draw_zoom(
    axes: Axes,
    lines: Mapping[str, float | None],
    points: Mapping[int, float | None],
    reference: str,
    near: Mapping[int, float],
) -> None:
    """The biases within MAX_EXCESS; the line leaves at the top towards the others."""
    levels: dict[str, float | None] = {**dict.fromkeys(lines), **excess(lines, lines[reference])}
    _draw_lines(axes, levels, {})
    above = excess(points, lines[reference])
    _draw_points(axes, {bias: above.get(bias) for bias in points if min(near) - 1 <= bias <= max(near) + 1})
    shown = [*near.values(), *(level for level in finite(levels).values() if level <= MAX_EXCESS)]
    margin = 0.12 * max(max(shown) - min(shown), 0.1)
    axes.set(ylim=(min(shown) - margin, max(shown) + margin), xlim=(min(near) - 0.9, max(near) + 0.9))
    axes.set(ylabel=f"perplexity above {reference}'s, %", title=f"biases within {MAX_EXCESS:g} % of {reference}")


def _draw_lines(axes: Axes, levels: Mapping[str, float | None], labels: Mapping[str, str]) -> None:
    """Horizontal lines, each name with a style that it keeps from panel to panel."""
    for (name, level), (color, line) in zip(levels.items(), itertools.cycle(LINE_STYLES), strict=False):
        if level is None:
            axes.plot([], linestyle="none", label=plain(f"{name}: not finite"))
        else:
            axes.axhline(
                level, color=color, linestyle=line, linewidth=0.9, label=plain(labels[name]) if name in labels else None
            )


def _draw_points(axes: Axes, points: Mapping[int, float | None]) -> None:
    """The curve of cscale, broken where it is not finite; those biases are crosses at the upper edge."""
    values = [math.nan if value is None else value for value in points.values()]
    axes.plot([*points], values, color=CURVE, marker="o", label="cscale")
    lost = [bias for bias, value in points.items() if value is None]
    if lost:
        look: dict[str, Any] = {"color": CURVE, "marker": "x", "markersize": 6, "linestyle": "none"}
        edge = axes.get_xaxis_transform()
        axes.plot(lost, [1] * len(lost), transform=edge, clip_on=False, label="cscale, not finite", **look)
