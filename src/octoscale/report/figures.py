"""The figures of a run, drawn from the files that it wrote and from nothing else.

    draw("runs/mine")        ->  runs/mine/figures/*.png and *.svg

    perplexity               which constant scales survive: a plateau, and a cliff on either side   (the paper's Fig. 5)
    scale_bias               which scale each layer wants, by depth and kind                        (its Fig. 6)
    exponents-<scaling>      the values of one module against what the format holds at its scale
    clipping                 where values saturate or are flushed: layers by kinds
    scale_bias_steps, loss   of a training: see training_figures.py

data.py computes the numbers that are shown; here they are drawn, and nothing is computed. What the files do not
allow is left out: an interrupted run has few scalings, a plain validation has no sweep. The same run draws the same
bytes.
"""

import difflib
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib import colormaps, style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import ROLES
from octoscale.report.contents import RunContents, read_run
from octoscale.report.data import (
    basin,
    clipped_shares,
    clipping_scalings,
    decades,
    default_module,
    excess,
    exponent_scalings,
    finite,
    main_scaling,
    scale_bias_by_layer,
    scalings_of,
    split_scores,
    with_histograms,
)
from octoscale.report.exponents import exponents_figure
from octoscale.report.style import (
    CURVE,
    KIND_STYLES,
    LINE_STYLES,
    ROLE_LABELS,
    SHADE,
    STYLE,
    WIDTH,
    KindStyle,
    decimal,
    integers,
    join,
    plain,
    save,
    with_footer,
)
from octoscale.report.training_data import has_losses, loss_curves, scale_bias_by_step
from octoscale.report.training_figures import loss_figure, scale_bias_steps_figure
from octoscale.validation.sweep import PERPLEXITY_TOLERANCE

#: Makes a figure when it is called.
Make = Callable[[], Figure]

#: The zoom of the perplexity figure ends here: % above the reference.
MAX_EXCESS = 10.0


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The PNG of each figure that was drawn, and by name what became of each other one."""

    paths: list[Path]
    failures: dict[str, Exception]


def draw(folder: Path | str, *, module: str | None = None) -> list[Path]:
    """Draw every figure that the run's files allow into its folder figures, as PNG and SVG; returns the PNG paths.

    A run without recorded scales and without perplexities of cscale biases has nothing to draw: an empty list.
    module: whose exponents are drawn; by default that of kind ffn_out which flushes most under amax. What is damaged
    is left out, with a warning.
    Raises FileNotFoundError if `folder` is no run, ValueError if the run lacks `module`.
    """
    contents = read_run(folder)
    for damage in contents.damaged:
        warnings.warn(f"left out: {damage}", stacklevel=2)
    drawing = draw_all(contents, module)
    for error in drawing.failures.values():
        raise error
    return drawing.paths


def draw_all(contents: RunContents, module: str | None = None) -> Drawing:
    """Draw what a run's contents allow; a figure that fails does not keep the others. ValueError as `draw`."""
    if module is not None:
        check_module(contents.scales, module)
    paths: list[Path] = []
    failures: dict[str, Exception] = {}
    with style.context(STYLE, after_reset=True):
        for stem, make in (*_figures(contents, module), *_training_figures(contents)):
            try:
                paths.append(save(make(), contents.figures, stem))
            except Exception as error:  # noqa: BLE001, PERF203  whoever draws says what failed, after what was measured
                failures[stem] = error
    return Drawing(paths=paths, failures=failures)


def draw_losses(runs: Sequence[RunContents]) -> Path:
    """Draw the losses of several trainings over each other, into the first one's figures; returns the PNG's path.

    Raises ValueError for a run that is no training.
    """
    with style.context(STYLE, after_reset=True):
        return save(loss_figure(loss_curves(runs), ""), runs[0].figures, "losses")


def _training_figures(contents: RunContents) -> Iterator[tuple[str, Make]]:
    """The figures of one training, as far as there are data for them."""
    plan = contents.header.get("plan", {})
    footer = ", ".join(str(plan[key]) for key in ("model", "scaling", "formats", "dtype") if key in plan)
    biases = scale_bias_by_step(contents.scales)
    if not biases.is_empty():
        moves = join("mode over modules and micro-batches", footer)
        yield "scale_bias_steps", partial(scale_bias_steps_figure, biases, moves)
    if has_losses(contents):
        yield "loss", partial(loss_figure, loss_curves([contents]), footer)


def _figures(contents: RunContents, module: str | None) -> Iterator[tuple[str, Make]]:
    """File stem and figure to be made, for each figure that there are data for."""
    rows, perplexity, footer = contents.scales, contents.summary.get("perplexity", {}), _footer(contents.summary)
    lines, points = split_scores(perplexity)
    if points and any(value is not None for value in (*lines.values(), *points.values())):
        yield "perplexity", partial(_perplexity_figure, lines, points, basin(perplexity), footer)
    main = main_scaling(scalings_of(rows))
    biases = scale_bias_by_layer(rows.filter(scaling=main or ""))
    if not biases.is_empty():
        of = join(f"mode over steps and modules, scaling {main}", footer)
        yield "scale_bias", partial(_scale_bias_figure, biases, of)
    module = module or default_module(rows) or ""
    of_module = with_histograms(rows.filter(module=module))
    for scaling in exponent_scalings(of_module, perplexity):
        of = join(f"{module}, scaling {scaling}", footer)
        yield _stem(scaling), partial(exponents_figure, of_module.filter(scaling=scaling), of)
    shares = clipped_shares(rows)
    if not shares.is_empty():
        yield "clipping", partial(_clipping_figure, shares, clipping_scalings(scalings_of(rows)), footer)


def _stem(scaling: str) -> str:
    """A file's name for a scaling's exponents, no longer than file systems take."""
    return f"exponents-{re.sub(r'[^A-Za-z0-9.=-]+', '_', scaling)}"[:200]


def _perplexity_figure(
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
    handles, labels = panels[0].get_legend_handles_labels()
    if passing:
        handles.append(Patch(facecolor=SHADE))
        labels.append(f"at most {100 * PERPLEXITY_TOLERANCE:g} % above amax")
    figure.legend(handles, labels, loc="outside upper left", ncols=4 if len(labels) <= 4 else 3)
    if near:
        _draw_zoom(panels[1], lines, points, str(reference), near)
    return with_footer(figure, footer)


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


def _scale_bias_figure(biases: pl.DataFrame, footer: str) -> Figure:
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
    panels[-1].set_xlim(_layers(biases).start - 0.7, _layers(biases).stop - 0.3)
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


def _clipping_figure(shares: pl.DataFrame, scalings: Sequence[str], footer: str) -> Figure:
    """Rows of panels are scalings, columns the two counts; in a panel kinds and roles by layers."""
    shares = shares.filter(pl.col("scaling").is_in(scalings))
    lines = [(role, kind) for role in ROLES for kind in KINDS if not shares.filter(role=role, kind=kind).is_empty()]
    layers = _layers(shares)
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


def _layers(rows: pl.DataFrame) -> range:
    layers: list[int] = rows["layer"].to_list()
    return range(min(layers), max(layers) + 1)


def _footer(summary: Mapping[str, Any]) -> str:
    """The model and the text, as far as the summary names them."""
    tokens = f"{summary['tokens']:,} tokens" if "tokens" in summary else ""
    window = f"windows of {summary['window']:,}" if "window" in summary else ""
    formats = f"{summary['formats']} formats" if "formats" in summary else ""
    return ", ".join(part for part in (summary.get("model"), tokens, window, formats) if part)


def check_module(rows: pl.DataFrame, module: str) -> None:
    """ValueError, naming near modules, unless the run has histograms of this module."""
    modules = rows["module"].unique(maintain_order=True).to_list()
    if module not in modules:
        near = difflib.get_close_matches(module, modules, n=4, cutoff=0.4) or modules[:4]
        hint = f"near names: {', '.join(near)}" if near else "it recorded none"
        raise ValueError(f"module {module!r} is not in this run; {hint}")
    if with_histograms(rows.filter(module=module)).is_empty():
        raise ValueError(f"module {module!r} has no histograms in this run: record with every=1, or any other than 0")
