"""The figure of what is lost: where values saturate or are flushed, layers by kinds and roles."""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.data import decades, layers_of
from octoscale.report.style import KIND_STYLES, ROLE_LABELS, WIDTH, decimal, integers, join, plain, with_footer


def clipping_figure(shares: pl.DataFrame, scalings: Sequence[str], footer: str) -> Figure:
    """Rows of panels are scalings, columns the two counts; in a panel kinds and roles by layers."""
    shares = shares.filter(pl.col("scaling").is_in(scalings))
    lines = [(role, kind) for role in ROLES for kind in KINDS if not shares.filter(role=role, kind=kind).is_empty()]
    layers = layers_of(shares)
    norm, colors = LogNorm(*decades([*shares["saturated"], *shares["flushed"]])), colormaps["viridis_r"]
    figure = Figure(figsize=(WIDTH, 1.1 + (0.35 + 0.17 * len(lines)) * len(scalings)))
    panels = figure.subplots(len(scalings), 2, sharex=True, sharey=True, squeeze=False)
    for row, scaling in zip(panels, scalings, strict=True):
        for axes, count in zip(row, ("saturated", "flushed"), strict=True):
            cells = shares.filter(scaling=scaling).select("role", "kind", "layer", pl.col(count).alias("share"))
            _draw_cells(axes, cells, lines, layers, norm, colors)
            axes.set_title(plain(f"{scaling}: {count}"))
    labels = [f"{KIND_STYLES[kind].label}, {ROLE_LABELS[role]}" for role, kind in lines]
    panels[0, 0].set(yticks=range(len(lines)), yticklabels=labels, ylim=(len(lines) - 0.5, -0.5))
    for axes in panels[-1]:
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_major_locator(integers())
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=panels, label="share of the values, %", aspect=40)
    bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(decimal)
    complete = len(shares) == len(lines) * len(layers) * len(scalings)
    return with_footer(figure, join("white: none" if complete else "white: none, hatched: not recorded", footer))


def _draw_cells(
    axes: Axes, cells: pl.DataFrame, lines: Sequence[tuple[str, str]], layers: range, norm: LogNorm, colors: Colormap
) -> None:
    """A cell for each line and layer: white where nothing is lost, hatched where the run recorded none."""
    table = [[math.nan for _ in layers] for _ in lines]
    for role, kind, layer, share in cells.iter_rows():
        table[lines.index((role, kind))][layer - layers.start] = share
    columns = [layer - 0.5 for layer in (*layers, layers.stop)]
    rows = [index - 0.5 for index in range(len(lines) + 1)]
    lost = [[share or math.nan for share in row] for row in table]
    axes.pcolormesh(columns, rows, lost, norm=norm, cmap=colors, edgecolors="face", linewidth=0.2)
    for y, row in enumerate(table):
        for x, share in zip(layers, row, strict=True):
            if math.isnan(share):
                hatched: dict[str, Any] = {"hatch": "////", "facecolor": "none", "edgecolor": "0.6", "linewidth": 0}
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), width=1, height=1, **hatched))
    if cells.filter(pl.col("share") > 0).is_empty():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color="0.35")
