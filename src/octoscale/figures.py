"""The figures of a run, drawn from the files that it wrote and from nothing else.

    draw("runs/mine")        ->  runs/mine/figures/*.png and *.svg

    perplexity               which constant scales survive: a plateau, and a cliff on either side   (the paper's Fig. 5)
    scale_bias               which scale each layer wants, by depth and kind                        (its Fig. 6)
    exponents-<scaling>      the values of one module against what the format holds at its scale
    clipping                 where values saturate or are flushed: layers by kinds
    scale_bias_steps, loss   of a training: see training_figures.py

figure_data.py computes the numbers that are shown; here they are drawn, and nothing is computed. What the files do not
allow is left out: an interrupted run has few scalings, a plain validation has no sweep. The same run draws the same
bytes.
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
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
from matplotlib.ticker import FixedLocator, NullLocator

from octoscale.figure_data import (
    Reach,
    basin,
    clipped_shares,
    clipping_scalings,
    decades,
    default_module,
    excess,
    exponent_scalings,
    finite,
    histogram,
    main_scaling,
    mode_of,
    reach,
    scale_bias_by_layer,
    scalings_of,
    shares_by_exponent,
    split_scores,
    with_histograms,
)
from octoscale.figure_style import (
    CURVE,
    KIND_STYLES,
    LINE_STYLES,
    ROLE_LABELS,
    SHADE,
    STYLE,
    WIDTH,
    KindStyle,
    integers,
    join,
    save,
    with_footer,
)
from octoscale.formats import ROLES, get_format
from octoscale.kinds import KINDS
from octoscale.runfolder import RunFolder
from octoscale.sweep import PERPLEXITY_TOLERANCE
from octoscale.telemetry import SCHEMA, read_scales
from octoscale.training_figure_data import has_losses, loss_curves, scale_bias_by_step
from octoscale.training_figures import loss_figure, scale_bias_steps_figure

#: The zoom of the perplexity figure ends here: % above the reference.
MAX_EXCESS = 10.0


def draw(folder: Path | str, *, module: str | None = None) -> list[Path]:
    """Draw every figure that the run's files allow into its folder figures, as PNG and SVG; returns the PNG paths.

    A run without recorded scales and without perplexities of cscale biases has nothing to draw: an empty list.
    module: whose exponents are drawn; by default that of kind ffn_out which flushes most under amax.
    Raises FileNotFoundError if `folder` is no run, ValueError if the run lacks `module`.
    """
    run = RunFolder.open(folder)
    summary = run.read_json(run.summary) if run.summary.exists() else {}
    rows = read_scales(run.path) if any(run.scales.glob("part-*.parquet")) else pl.DataFrame(schema=SCHEMA)
    if module is not None:
        _check_module(rows, module)
    with style.context(STYLE, after_reset=True):
        drawn = {**dict(_figures(summary, rows, module)), **dict(_training_figures(run, rows))}
        return [save(figure, run.figures, stem) for stem, figure in drawn.items()]


def draw_losses(folders: Sequence[Path | str]) -> Path:
    """Draw the losses of several trainings over each other, into the first one's figures; returns the PNG's path.

    Raises FileNotFoundError for a folder that is no run, ValueError for one that is no training.
    """
    runs = [RunFolder.open(folder) for folder in folders]
    with style.context(STYLE, after_reset=True):
        return save(loss_figure(loss_curves(runs), ""), runs[0].figures, "losses")


def _training_figures(run: RunFolder, rows: pl.DataFrame) -> Iterator[tuple[str, Figure]]:
    """The figures of one training, as far as there are data for them."""
    plan = run.read_json(run.header).get("plan", {})
    footer = ", ".join(str(plan[key]) for key in ("model", "scaling", "formats", "dtype") if key in plan)
    biases = scale_bias_by_step(rows)
    if not biases.is_empty():
        yield "scale_bias_steps", scale_bias_steps_figure(biases, join("mode over modules and micro-batches", footer))
    if has_losses(run):
        yield "loss", loss_figure(loss_curves([run]), footer)


def _figures(summary: Mapping[str, Any], rows: pl.DataFrame, module: str | None) -> Iterator[tuple[str, Figure]]:
    """File stem and figure, for each figure that there are data for."""
    perplexity, footer = summary.get("perplexity", {}), _footer(summary)
    lines, points = split_scores(perplexity)
    if points and any(value is not None for value in (*lines.values(), *points.values())):
        yield "perplexity", _perplexity_figure(lines, points, basin(perplexity), footer)
    main = main_scaling(scalings_of(rows))
    biases = scale_bias_by_layer(rows.filter(scaling=main or ""))
    if not biases.is_empty():
        yield "scale_bias", _scale_bias_figure(biases, join(f"mode over steps and modules, scaling {main}", footer))
    module = module or default_module(rows) or ""
    of_module = with_histograms(rows.filter(module=module))
    for scaling in exponent_scalings(of_module, perplexity):
        stem = f"exponents-{re.sub(r'[^A-Za-z0-9.=-]+', '_', scaling)}"
        yield stem, _exponents_figure(of_module.filter(scaling=scaling), join(f"{module}, scaling {scaling}", footer))
    shares = clipped_shares(rows)
    if not shares.is_empty():
        yield "clipping", _clipping_figure(shares, clipping_scalings(scalings_of(rows)), footer)


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
    _draw_lines(panels[0], lines, {name: name if x is None else f"{name}: {x:#.4g}" for name, x in lines.items()})
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
            axes.plot([], linestyle="none", label=f"{name}: not finite")
        else:
            axes.axhline(level, color=color, linestyle=line, linewidth=0.9, label=labels.get(name))


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


def _exponents_figure(rows: pl.DataFrame, footer: str) -> Figure:
    """One panel a role; an exponent is as wide in every panel."""
    roles = [role for role in ROLES if not rows.filter(role=role).is_empty()]
    figure = Figure(figsize=(WIDTH, 0.9 + 1.7 * len(roles)))
    panels = figure.subplots(len(roles), 1, squeeze=False)[:, 0]
    ranges = [_draw_exponents(axes, rows.filter(role=role)) for axes, role in zip(panels, roles, strict=True)]
    span = max(right - left for left, right in ranges)
    for axes, role, (left, right) in zip(panels, roles, ranges, strict=True):
        middle = (left + right) / 2
        _draw_reach(axes, rows.filter(role=role), middle - span / 2, middle + span / 2)
    panels[-1].set_xlabel("exponent of the value, log2|x|")
    return with_footer(figure, footer)


def _draw_exponents(axes: Axes, rows: pl.DataFrame) -> tuple[float, float]:
    """The histogram, down to the smallest share on its upper side; returns the range of exponents to be shown."""
    shares = shares_by_exponent(rows)
    peak = max(shares, key=lambda exponent: shares[exponent])
    smallest = min(share for exponent, share in shares.items() if exponent >= peak)
    floor = min(0, math.floor(math.log10(smallest) - 0.5))  # half a decade below, so that its bar is seen
    edges = [*range(min(exponent for exponent in shares if shares[exponent] >= 10.0**floor), max(shares) + 2)]
    values = [shares.get(exponent, 0.0) for exponent in edges[:-1]]
    axes.stairs(values, edges, baseline=10.0**floor, fill=True, color="#9ECAE9")
    axes.stairs(values, edges, baseline=10.0**floor, color=CURVE)
    top = 2.8 - 0.4 * floor  # above 100 %: room for the names of the regions
    axes.set(yscale="log", ylim=(10.0**floor, 10.0**top), ylabel="share of non-zero\nvalues, %")
    axes.yaxis.set_major_locator(FixedLocator([10.0**k for k in range(2, floor - 1, -2)]))
    axes.yaxis.set_major_formatter(_decimal)
    axes.yaxis.set_minor_locator(NullLocator())
    held = _reach(rows)
    return min(edges[0], held.flushed - 5), max(edges[-1], held.saturated + 5)


def _draw_reach(axes: Axes, rows: pl.DataFrame, left: float, right: float) -> None:
    """The regions of the format, each with its name, and with the share of the values that are lost there."""
    held = _reach(rows)
    lost: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.5", "linewidth": 0, "zorder": 3}
    axes.axvspan(left, held.flushed, hatch="////", **lost)
    axes.axvspan(held.flushed, held.normal, color=SHADE, linewidth=0, zorder=0)
    axes.axvspan(held.saturated, right, hatch="xxxx", **lost)
    axes.set_xlim(left, right)
    axes.vlines([held.flushed, held.saturated], 0, 1, transform=axes.get_xaxis_transform(), color="0.3", linewidth=0.8)
    regions = {
        f"flushed\n{_lost_share(rows, 'flushed')}": (left, held.flushed),
        "sub-\nnormal": (held.flushed, held.normal),
        "normal": (held.normal, held.saturated),
        f"saturated\n{_lost_share(rows, 'saturated')}": (held.saturated, right),
    }
    for text, (low, high) in regions.items():
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if "%" in text else None
        look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7.5, "bbox": box, "zorder": 4}
        axes.text((low + high) / 2, 0.95, text, transform=axes.get_xaxis_transform(), **look)
    biases = rows["scale_bias"]
    mode = f"scale_bias {mode_of(biases)}" + (" (mode)" if biases.n_unique() > 1 else "")
    axes.set_title(f"{ROLE_LABELS[rows['role'][0]]}: {rows['format'][0]}, {mode}")


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
            axes.set_title(f"{scaling}: {count}")
    labels = [f"{KIND_STYLES[kind].label}, {ROLE_LABELS[role]}" for role, kind in lines]
    panels[0, 0].set(yticks=range(len(lines)), yticklabels=labels, ylim=(len(lines) - 0.5, -0.5))
    for axes in panels[-1]:
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_major_locator(integers())
    bar = figure.colorbar(ScalarMappable(norm, colors), ax=panels, label="share of the values, %", aspect=40)
    bar.minorticks_off()
    bar.ax.yaxis.set_major_formatter(_decimal)
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


def _decimal(value: float, _: float) -> str:
    """100, 1, 0.00001: never with an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _reach(rows: pl.DataFrame) -> Reach:
    return reach(get_format(rows["format"][0]), mode_of(rows["scale_bias"]))


def _lost_share(rows: pl.DataFrame, count: str) -> str:
    """The share of the non-zero values that is saturated, or flushed, in words."""
    share = 100 * rows[count].sum() / sum(histogram(rows).values())
    return f"{share:.2g} %" if share < 10 else f"{share:.0f} %"


def _footer(summary: Mapping[str, Any]) -> str:
    """The model and the text, as far as the summary names them."""
    tokens = f"{summary['tokens']:,} tokens" if "tokens" in summary else ""
    window = f"windows of {summary['window']:,}" if "window" in summary else ""
    formats = f"{summary['formats']} formats" if "formats" in summary else ""
    return ", ".join(part for part in (summary.get("model"), tokens, window, formats) if part)


def _check_module(rows: pl.DataFrame, module: str) -> None:
    """ValueError, naming near modules, unless the run has histograms of this module."""
    modules = rows["module"].unique(maintain_order=True).to_list()
    if module not in modules:
        near = difflib.get_close_matches(module, modules, n=4, cutoff=0.4) or modules[:4]
        hint = f"near names: {', '.join(near)}" if near else "it recorded none"
        raise ValueError(f"module {module!r} is not in this run; {hint}")
    if with_histograms(rows.filter(module=module)).is_empty():
        raise ValueError(f"module {module!r} has no histograms in this run: record with every=1, or any other than 0")
