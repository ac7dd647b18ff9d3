"""The figure of what is lost: where values saturate or are flushed, layers by kinds and roles.

    clipping_figure(octoscale.load_run("runs/mine").scales, scalings=["amax"], style="slides")

White is a layer that loses nothing, hatched one that the run did not record.
"""

import math
from collections.abc import Sequence

import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.patches import Rectangle

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.data.validation import clipped_shares, clipping_scalings, decades, layers_of, scalings_of
from octoscale.report.figures.parts import decimal, integers, join, with_note
from octoscale.report.figures.style import HATCHED, KIND_STYLES, REPORT, ROLE_LABELS, StyledFigure, get_style, styled
from octoscale.report.figures.words import POINTS, shown
from octoscale.system.errors import UserError


@styled
def clipping_figure(
    scales: pl.DataFrame, *, scalings: Sequence[str] | None = None, style: str = REPORT, note: str = ""
) -> StyledFigure:
    """The shares of saturated and flushed values over all steps, in % of all values, from the rows of a run.

    Rows of panels are scalings, columns the two counts; in a panel kinds and roles by layers. scalings: by default the
    main one, and of the constant ones those with the largest and the smallest bias. UserError if these rows hold no
    layer of one.
    """
    scalings = clipping_scalings(scalings_of(scales)) if scalings is None else list(scalings)
    shares = clipped_shares(scales.filter(pl.col("scaling").is_in(scalings)))
    if shares.is_empty():
        raise UserError(f"no decoder layer was recorded under {' or '.join(scalings) or 'any scaling'} in these rows")
    lines = [(role, kind) for role in ROLES for kind in KINDS if not shares.filter(role=role, kind=kind).is_empty()]
    layers = layers_of(shares)
    norm, colors = LogNorm(*decades([*shares["saturated"], *shares["flushed"]])), colormaps["viridis_r"]
    figure = get_style(style).figure(1.1 + (0.35 + 0.17 * len(lines)) * len(scalings))
    panels = figure.subplots(len(scalings), 2, sharex=True, sharey=True, squeeze=False)
    for row, scaling in zip(panels, scalings, strict=True):
        for axes, count in zip(row, ("saturated", "flushed"), strict=True):
            cells = shares.filter(scaling=scaling).select("role", "kind", "layer", pl.col(count).alias("share"))
            _draw_cells(axes, cells, lines, layers, norm, colors)
            room = 0.22 * figure.get_figwidth()
            axes.set_title(f"{shown(scaling, room, figure.style.text)}: {count}")
    labels = [f"{KIND_STYLES[kind].label}, {ROLE_LABELS[role]}" for role, kind in lines]
    panels[0, 0].set(yticks=range(len(lines)), ylim=(len(lines) - 0.5, -0.5))
    for axes in panels[:, 0]:
        axes.set_yticks(range(len(lines)), labels, fontsize=_row_size(figure, len(lines), len(scalings)))
    for axes in panels[-1]:
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_major_locator(integers())
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=panels, label="share of the values, %", aspect=40)
    bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(decimal)
    complete = len(shares) == len(lines) * len(layers) * len(scalings)
    return with_note(figure, join("white: none" if complete else "white: none, hatched: not recorded", note))


def _row_size(figure: StyledFigure, num_lines: int, num_panels: int) -> float:
    """Letters that are no higher than a row of cells, in points; titles and the lower axis take some of the height."""
    text = figure.style.text
    return min(text, 0.9 * (POINTS * figure.get_figheight() - text * (4 + 2.4 * num_panels)) / num_lines / num_panels)


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
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), width=1, height=1, **HATCHED))
    if cells.filter(pl.col("share") > 0).is_empty():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color="0.35")
