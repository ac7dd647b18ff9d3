"""The figure of `octoscale bench growth`: whether FP8 costs more as work grows.

Left, a decoder layer of each size; right, the same work on each of more ranks. A mark is the ratio of the medians, its
line reaches over the middle half of the turns; at 1 a step in FP8 takes as long as in bfloat16. The axis begins at 0,
so that a height is a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from octoscale.report.figures.parts import join, with_note
from octoscale.report.figures.style import BLACK, CURVE, REPORT, StyledFigure, get_style, styled

_OF_A_LAYER = "a layer of "
_RATIO = "time_over_bf16, "


@styled
def growth_figure(report: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """Two panels, by size and by ranks. report: what `octoscale bench growth --json` prints."""
    ratios = {name.removeprefix(_RATIO): ratio for name, ratio in report["ratios"].items()}
    sizes = [what for what in ratios if what.startswith(_OF_A_LAYER)]
    ranks = [what for what in ratios if what not in sizes]
    spread = report["quartiles of the turns' ratios"]
    figure = get_style(style).figure(2.6)
    panels = figure.subplots(1, 2, sharey=True, width_ratios=[max(2, len(sizes)), max(2, len(ranks))])
    labels = [what.removeprefix(_OF_A_LAYER).upper().replace("GPT-", "") for what in sizes]
    for axes, named, ticks, title in (
        (panels[0], sizes, labels, "a decoder layer of a GPT, one process"),
        (panels[1], ranks, ranks, "equal work on each rank"),
    ):
        _draw_panel(axes, [(ratios[what], spread[what]) for what in named], ticks)
        axes.set_title(title)
    tallest = max([1.0, *ratios.values(), *(of["upper"] for of in spread.values())])
    panels[0].set(ylabel="a step's time over bfloat16's", ylim=(0, 1.25 * tallest))
    cpu, threads = report["machine"]["cpu"], report["machine"]["threads"]
    what = f"FP8-AMAX; {report['what']}; lines: the middle half of the turns; {cpu}, {threads} threads"
    return with_note(figure, join(what, note))


def _draw_panel(axes: Axes, points: Sequence[tuple[float, Mapping[str, float]]], ticks: Sequence[str]) -> None:
    """Marks that a line joins, from left to right as work grows, each with its number."""
    places, heights = list(range(len(points))), [ratio for ratio, _ in points]
    axes.axhline(1, color=BLACK, linestyle="--", linewidth=0.8)
    axes.vlines(places, [of["lower"] for _, of in points], [of["upper"] for _, of in points], color=CURVE, alpha=0.5)
    axes.plot(places, heights, color=CURVE, marker="o")
    for place, (ratio, of) in enumerate(points):
        above = (place, max(ratio, of["upper"], 1.0 if abs(ratio - 1) < 0.1 else 0.0))
        axes.annotate(f"{ratio:.2f}", above, xytext=(0, 5), textcoords="offset points", ha="center")
    axes.set_xticks(places, ticks)
    axes.set_xlim(-0.5, len(points) - 0.5)
    axes.grid(axis="y")
