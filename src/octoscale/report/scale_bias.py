"""The figure of scales: which scale_bias each layer wants, by depth, kind and role, as in the paper's Figure 6."""

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.data import layers_of
from octoscale.report.style import KIND_STYLES, ROLE_LABELS, WIDTH, KindStyle, integers, with_footer


def scale_bias_figure(biases: pl.DataFrame, footer: str) -> Figure:
    """One panel a role, one series a kind; one integer of scale_bias is as high in every panel."""
    roles = [role for role in ROLES if role in biases["role"]]
    kinds = [kind for kind in KINDS if kind in biases["kind"]]
    bounds = biases.group_by("role").agg(pl.col("low").min() - 0.8, pl.col("high").max() + 0.8)
    limits = {role: (low, high) for role, low, high in bounds.iter_rows()}
    spans = [limits[role][1] - limits[role][0] for role in roles]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.5 * len(roles) + min(0.22 * sum(spans), 6.0)))
    panels = figure.subplots(len(roles), 1, sharex=True, squeeze=False, height_ratios=spans)[:, 0]
    for axes, role in zip(panels, roles, strict=True):
        for index, kind in enumerate(kinds):
            place = index - (len(kinds) - 1) / 2  # series on the same integer are moved apart, so that each is seen
            _draw_series(axes, biases.filter(role=role, kind=kind), KIND_STYLES[kind], place)
        axes.yaxis.set_major_locator(integers())
        axes.set(ylabel="scale_bias", ylim=limits[role], title=ROLE_LABELS[role])
        axes.grid(axis="y")
    panels[-1].set_xlabel("decoder layer")
    panels[-1].xaxis.set_major_locator(integers(16))
    panels[-1].set_xlim(layers_of(biases).start - 0.7, layers_of(biases).stop - 0.3)
    looks = [KIND_STYLES[kind] for kind in kinds]
    handles: list[Artist] = [
        Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, label=look.label) for look in looks
    ]
    handles.append(Line2D([], [], color="0.5", alpha=0.4, linewidth=3, label="smallest to largest"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return with_footer(figure, footer)


def _draw_series(axes: Axes, series: pl.DataFrame, look: KindStyle, place: float) -> None:
    layers, mode, low, high = (series[column].to_list() for column in ("layer", "mode", "low", "high"))
    x = [layer + 0.12 * place for layer in layers]
    axes.vlines(x, low, high, color=look.color, alpha=0.3, linewidth=2.5)
    y = [value + 0.08 * place for value in mode]
    axes.plot(x, y, color=look.color, marker=look.marker, linestyle=look.line)
