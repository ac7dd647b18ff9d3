"""The figure of scales: which scale_bias each layer wants, by depth, kind and role, as in the paper's Figure 6.

    scale_bias_figure(octoscale.load_run("runs/mine").scales, style="paper").savefig("scales.pdf")

Marks are the most frequent scale_bias, bars behind them reach from the smallest to the largest. Of tensors with several
scales, a mark is that of the lowest, which holds amax, and bars reach to the highest.
"""

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.data.bands import each_of, granularities_of
from octoscale.report.data.validation import layers_of, main_scaling, scalings_of
from octoscale.report.figures.parts import add_legend, integers, join, label_rows, with_note
from octoscale.report.figures.style import KIND_STYLES, REPORT, ROLE_LABELS, KindStyle, StyledFigure, get_style, styled
from octoscale.runs.scale_bias import scale_bias_by_layer
from octoscale.system.errors import UserError

#: More layers than this need the width of a page.
_MOST_IN_A_COLUMN = 16


def scale_bias_figure(
    scales: pl.DataFrame, *, scaling: str | None = None, style: str = REPORT, note: str = ""
) -> StyledFigure:
    """The scale_bias of each layer: its mode over steps and modules, and the range, from the rows of a run.

    scaling: which of the run's; by default amax, or the first that is not constant. UserError if there is no layer
    with a scale under it: tensors whose amax is 0 or not finite have none.
    """
    scaling = main_scaling(scalings_of(scales)) if scaling is None else scaling
    biases = scale_bias_by_layer(scales, scaling or "")
    if biases.is_empty():
        raise UserError(f"no scale_bias of decoder layers under {scaling or 'a scaling that adapts'} in these rows")
    several = granularities_of(scales.filter(pl.col("scaling") == scaling))
    if not several:
        return draw_scale_bias(biases, style=style, note=join(f"mode over steps and modules, scaling {scaling}", note))
    words = (
        f"a scale for {each_of(several)}: marks are the mode of the lowest over steps and modules, scaling {scaling}"
    )
    return draw_scale_bias(biases, bars="lowest to highest scale", style=style, note=join(words, note))


@styled
def draw_scale_bias(
    biases: pl.DataFrame, *, bars: str = "smallest to largest", style: str = REPORT, note: str = ""
) -> StyledFigure:
    """The same from its numbers, role, kind, layer -> mode, low, high, as `scale_bias_by_layer` makes them.

    bars: what reaches from low to high, in words. One panel a role, one series a kind; one integer of scale_bias is as
    high in every panel.
    """
    roles = [role for role in ROLES if role in biases["role"]]
    kinds = [kind for kind in KINDS if kind in biases["kind"]]
    bounds = biases.group_by("role").agg(pl.col("low").min() - 0.8, pl.col("high").max() + 0.8)
    limits = {role: (low, high) for role, low, high in bounds.iter_rows()}
    spans = [limits[role][1] - limits[role][0] for role in roles]
    height = 1.2 + 0.5 * len(roles) + min(0.22 * sum(spans), 6.0)
    figure = get_style(style).figure(height, wide=len(layers_of(biases)) > _MOST_IN_A_COLUMN)
    panels = figure.subplots(len(roles), 1, sharex=True, squeeze=False, height_ratios=spans)[:, 0]
    for axes, role in zip(panels, roles, strict=True):
        for index, kind in enumerate(kinds):
            place = index - (len(kinds) - 1) / 2  # series on the same integer are moved apart, so that each is seen
            _draw_series(axes, biases.filter(role=role, kind=kind), KIND_STYLES[kind], place, figure.style.stroke)
        axes.yaxis.set_major_locator(integers())
        axes.set(ylim=limits[role], title=ROLE_LABELS[role])
        axes.grid(axis="y")
    label_rows(figure, [*panels], "scale_bias", spans)
    panels[-1].set_xlabel("decoder layer")
    panels[-1].xaxis.set_major_locator(integers(16))
    panels[-1].set_xlim(layers_of(biases).start - 0.7, layers_of(biases).stop - 0.3)
    looks = [KIND_STYLES[kind] for kind in kinds]
    handles: list[Artist] = [
        Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, label=look.label) for look in looks
    ]
    handles.append(Line2D([], [], color="0.5", alpha=0.4, linewidth=3 * figure.style.stroke, label=bars))
    add_legend(figure, handles, [str(handle.get_label()) for handle in handles], len(handles))
    return with_note(figure, note)


def _draw_series(axes: Axes, series: pl.DataFrame, look: KindStyle, place: float, stroke: float) -> None:
    layers, mode, low, high = (series[column].to_list() for column in ("layer", "mode", "low", "high"))
    x = [layer + 0.12 * place for layer in layers]
    axes.vlines(x, low, high, color=look.color, alpha=0.3, linewidth=2.5 * stroke)
    y = [value + 0.08 * place for value in mode]
    axes.plot(x, y, color=look.color, marker=look.marker, linestyle=look.line)
