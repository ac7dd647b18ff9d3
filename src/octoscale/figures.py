"""The figures of a run, drawn from the files that it wrote and from nothing else.

    draw("runs/mine")        ->  runs/mine/figures/*.png and *.svg

    perplexity               which constant scales survive: a plateau, and a cliff on either side   (the paper's Fig. 5)
    scale_bias               which scale each layer wants, by depth and kind                        (its Fig. 6)
    exponents-<scaling>      the values of one module against what the format holds at its scale
    clipping                 where values saturate or are flushed: layers by kinds

Numbers come first and pictures after: each figure is one or two small functions from the rows of a run to the numbers
that are shown, and one that draws them and computes nothing. What the files do not allow is left out: an interrupted
run has no summary, a plain validation has no sweep. The same run draws the same bytes.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from octoscale.backends.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.convert import KINDS
from octoscale.formats import ROLES, Format, get_format
from octoscale.runfolder import RunFolder, replacing
from octoscale.sweep import PERPLEXITY_TOLERANCE, bias_range
from octoscale.telemetry import SCHEMA, read_scales

#: The precisions without FP8, the first of which is what the others are measured against.
REFERENCES = ("bf16", "fp16", "fp32")
#: The zoom of the perplexity figure ends here: per cent above the reference.
MAX_EXCESS = 10.0

ROLE_LABELS = {"weight": "weights", "input": "activations", "grad_output": "gradients"}


@dataclass(frozen=True, kw_only=True)
class KindStyle:
    """How a kind of layer is called, after the paper's plots, and drawn: no two alike in grey print."""

    label: str
    color: str
    marker: str
    line: str


#: Colors of Okabe and Ito, which all readers can tell apart.
KIND_STYLES: dict[str, KindStyle] = dict(
    zip(
        KINDS,
        (
            KindStyle(label="attn qkv", color="#0072B2", marker="o", line="-"),
            KindStyle(label="attn out", color="#D55E00", marker="s", line="--"),
            KindStyle(label="ff intermediate", color="#009E73", marker="^", line="-."),
            KindStyle(label="ff output", color="#CC79A7", marker="D", line=":"),
            KindStyle(label="other", color="#000000", marker="v", line="-"),
        ),
        strict=True,
    )
)
LINE_STYLES = (("#000000", "--"), ("#D55E00", "-"), ("#009E73", "-."), ("#CC79A7", ":"), ("#E69F00", (0, (5, 1, 1, 1))))

STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "octoscale",
}
WIDTH = 7.2  # inches: the text width of a page
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def draw(folder: Path | str, *, module: str | None = None) -> list[Path]:
    """Draw every figure that the run's files allow into its folder figures, as PNG and SVG; returns the PNG paths.

    module: whose exponents are drawn; by default that of kind ffn_out which flushes most under amax.
    Raises FileNotFoundError if `folder` is no run, ValueError if the run has nothing to draw or lacks `module`.
    """
    run = RunFolder.open(folder)
    summary = run.read_json(run.summary) if run.summary.exists() else {}
    rows = read_scales(run.path) if any(run.scales.glob("part-*.parquet")) else pl.DataFrame(schema=SCHEMA)
    if module is not None:
        _check_module(rows, module)
    with style.context(STYLE, after_reset=True):
        figures = dict(_figures(summary, rows, module))
        if not figures:
            raise ValueError(f"{run.path} has nothing to draw: neither perplexities of cscale biases nor recorded scales")
        return [_save(figure, run.figures, stem) for stem, figure in figures.items()]


# The numbers that are shown.


def finite(scores: Mapping[str, float | None]) -> dict[str, float]:
    """The scores that are numbers: a null stands for one that was not finite."""
    return {name: score for name, score in scores.items() if score is not None and math.isfinite(score)}


def lines_and_points(perplexity: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[int, float | None]]:
    """The perplexities without a bias, high precision first and then in the run's order; those of cscale by bias."""
    names = [*REFERENCES, *(name for name in perplexity if name not in REFERENCES)]
    lines = {name: perplexity[name] for name in names if name in perplexity and name != "cscale"}
    return lines, {int(bias): value for bias, value in sorted(perplexity.get("cscale", {}).items(), key=_bias)}


def basin(perplexity: Mapping[str, Any]) -> list[int]:
    """The biases that pass `sweep.bias_range` by perplexity; none if there is no amax to compare with."""
    if not perplexity.get("amax") or not perplexity.get("cscale"):
        return []
    found = bias_range({"perplexity": perplexity})
    return [] if found.low is None or found.high is None else list(range(found.low, found.high + 1))


def main_scaling(scalings: Sequence[str]) -> str | None:
    """`amax` if it was run, else the first scaling that is not constant; None if all are."""
    adaptive = [scaling for scaling in scalings if _constant_bias(scaling) is None]
    return "amax" if "amax" in adaptive else next(iter(adaptive), None)


def scale_bias_by_layer(rows: pl.DataFrame) -> pl.DataFrame:
    """role, kind, layer -> mode, low, high of scale_bias over steps and modules; the smallest of equal modes.

    Tensors without a scale of their own, amax 0 or not finite, are left out; so are modules outside a stack of layers.
    """
    has_scale = pl.col("amax").is_finite() & (pl.col("amax") > 0) & pl.col("layer").is_not_null()
    bias = pl.col("scale_bias")
    groups = rows.filter(has_scale).group_by("role", "kind", "layer")
    return groups.agg(mode=bias.mode().min(), low=bias.min(), high=bias.max()).sort("role", "kind", "layer")


def shares_by_exponent(rows: pl.DataFrame) -> dict[int, float]:
    """Binary exponent -> share of the non-zero finite values in %, histograms summed over rows; without empty bins."""
    counts = [sum(column) for column in zip(*rows["exponents"].drop_nulls().to_list(), strict=True)]
    occupied = {index - EXPONENT_OFFSET: n for index, n in enumerate(counts) if n and 0 < index < NUM_EXPONENT_BINS - 1}
    return {exponent: 100 * n / sum(occupied.values()) for exponent, n in occupied.items()}


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a format holds at a scale_bias, as log2|x| of the values before scaling.

    At or below `flushed` a value rounds to zero, above `saturated` it is clamped, and between `flushed` and `normal`
    it is subnormal: it loses a bit of precision with each exponent.
    """

    flushed: float
    normal: float
    saturated: float


def reach(fmt: Format, scale_bias: int) -> Reach:
    """The reach of a format at a scale_bias. Half the smallest subnormal still rounds to the even code, zero."""
    return Reach(
        flushed=fmt.min_subnormal_exponent - 1 - scale_bias,
        normal=fmt.min_normal_exponent - scale_bias,
        saturated=math.log2(fmt.max) - scale_bias,
    )


def clipped_shares(rows: pl.DataFrame) -> pl.DataFrame:
    """scaling, role, kind, layer -> saturated, flushed: shares in % of all values, zeros included, over all steps."""
    groups = rows.filter(pl.col("layer").is_not_null()).group_by("scaling", "role", "kind", "layer")
    sums = groups.agg(pl.col("saturated", "flushed", "numel").sum()).filter(pl.col("numel") > 0)
    shares = [(100 * pl.col(count) / pl.col("numel")).alias(count) for count in ("saturated", "flushed")]
    return sums.select("scaling", "role", "kind", "layer", *shares).sort("scaling", "role", "kind", "layer")


def clipping_scalings(scalings: Sequence[str]) -> list[str]:
    """The main scaling, and of the constant ones those with the largest and the smallest bias."""
    constant = sorted((bias, scaling) for scaling in scalings if (bias := _constant_bias(scaling)) is not None)
    edges = [scaling for _, scaling in (constant[-1:] + constant[:-1][:1])]
    main = main_scaling(scalings)
    return edges if main is None else [main, *edges]


def default_module(rows: pl.DataFrame) -> str | None:
    """The module of kind ffn_out, with a histogram, that flushes most under the main scaling; the middle one if none
    flushes. Among all kinds if there is no ffn_out, among all scalings if there is no main one.
    """
    rows = rows.filter(pl.col("exponents").is_not_null())
    main = main_scaling(_scalings(rows))
    rows = rows if main is None else rows.filter(scaling=main)
    rows = rows if rows.filter(kind="ffn_out").is_empty() else rows.filter(kind="ffn_out")
    groups = rows.group_by("module", maintain_order=True)
    modules = groups.agg(pl.col("layer").first(), share=pl.col("flushed").sum() / pl.col("numel").sum())
    if modules.is_empty():
        return None
    modules = modules.sort("layer", maintain_order=True)
    worst = modules.sort("share", descending=True, maintain_order=True).row(0, named=True)
    return str(worst["module"] if worst["share"] > 0 else modules["module"][(len(modules) - 1) // 2])


def exponent_scalings(rows: pl.DataFrame, perplexity: Mapping[str, Any]) -> list[str]:
    """Of one module's rows with histograms: the main scaling, and the constant one with the worst perplexity.

    Where perplexities are missing or equal, the worst is the one that clips the largest share of the values.
    """
    rows = rows.filter(pl.col("exponents").is_not_null())
    clipped = dict(
        rows.group_by("scaling")
        .agg((pl.col("saturated") + pl.col("flushed")).sum() / pl.col("numel").sum())
        .iter_rows()
    )
    scores = {f"cscale:{bias}": math.inf if x is None else x for bias, x in perplexity.get("cscale", {}).items()}
    scalings = _scalings(rows)
    constant = [scaling for scaling in scalings if _constant_bias(scaling) is not None]
    worst = max(constant, key=lambda scaling: (scores.get(scaling, 0.0), clipped[scaling]), default=None)
    return [scaling for scaling in (main_scaling(scalings), worst) if scaling is not None]


# The pictures.


def _figures(summary: Mapping[str, Any], rows: pl.DataFrame, module: str | None) -> Iterator[tuple[str, Figure]]:
    """File stem and figure, for each figure that there are data for."""
    perplexity, footer = summary.get("perplexity", {}), _footer(summary)
    lines, points = lines_and_points(perplexity)
    if points and (finite(lines) or any(value is not None for value in points.values())):
        yield "perplexity", _perplexity_figure(perplexity, footer)
    main = main_scaling(_scalings(rows))
    biases = scale_bias_by_layer(rows.filter(scaling=main)) if main is not None else pl.DataFrame()
    if not biases.is_empty():
        yield "scale_bias", _scale_bias_figure(biases, f"scaling {main}; {footer}" if footer else f"scaling {main}")
    module = module if module is not None else default_module(rows)
    of_module = rows.filter(pl.col("module") == module, pl.col("exponents").is_not_null())
    for scaling in exponent_scalings(of_module, perplexity):
        figure = _exponents_figure(of_module.filter(scaling=scaling), f"{module}, scaling {scaling}", footer)
        yield f"exponents-{re.sub(r'[^A-Za-z0-9.=-]+', '_', scaling)}", figure
    shares = clipped_shares(rows)
    if not shares.is_empty():
        yield "clipping", _clipping_figure(shares, clipping_scalings(_scalings(rows)), footer)


def _perplexity_figure(perplexity: Mapping[str, Any], footer: str) -> Figure:
    """Left the whole range on a logarithmic axis, right the basin in per cent above the reference."""
    lines, points = lines_and_points(perplexity)
    numbers = finite(lines)
    reference = next(iter(numbers), None)
    shown = {bias: value for bias, value in points.items() if value is not None}
    near: dict[int, float] = {}
    if reference is not None:
        excess = {bias: 100 * (value / numbers[reference] - 1) for bias, value in shown.items()}
        near = {bias: value for bias, value in excess.items() if value <= MAX_EXCESS}
    figure = Figure(figsize=(WIDTH, 3.1))
    panels = figure.subplots(1, 2 if near else 1, squeeze=False)[0]
    for axes in panels:
        _shade_biases(axes, basin(perplexity))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
        axes.set_xlabel("constant scale_bias")
        axes.grid(axis="y")
    _draw_lines(panels[0], {name: (value, f"{name}: {value:.5g}") for name, value in numbers.items()})
    panels[0].set(yscale="log", ylabel="perplexity", title="all biases")
    panels[0].plot([*shown], [*shown.values()], color="#0072B2", marker="o", label="cscale")
    lost = [bias for bias, value in points.items() if value is None]
    if lost:
        top = panels[0].get_xaxis_transform()
        mark: dict[str, Any] = {"color": "#0072B2", "marker": "x", "linestyle": "none", "clip_on": False}
        panels[0].plot(lost, [1.0] * len(lost), transform=top, markersize=6, label="cscale, not finite", **mark)
    if near and reference is not None:
        _draw_zoom(panels[1], excess, near, reference, numbers)
    handles, labels = panels[0].get_legend_handles_labels()
    if basin(perplexity):
        handles.append(Patch(facecolor="0.9"))
        labels.append(f"within {PERPLEXITY_TOLERANCE:.1%} of amax")
    figure.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)))
    return _with_footer(figure, footer)


def _draw_zoom(
    axes: Axes,
    excess: Mapping[int, float],
    near: Mapping[int, float],
    reference: str,
    numbers: Mapping[str, float],
) -> None:
    """The biases within MAX_EXCESS; the line leaves at the top towards the others."""
    lines = {name: 100 * (value / numbers[reference] - 1) for name, value in numbers.items()}
    lines = {name: value for name, value in lines.items() if value <= MAX_EXCESS}
    _draw_lines(axes, {name: (value, name) for name, value in lines.items()})
    axes.plot([*excess], [*excess.values()], color="#0072B2", marker="o")
    low, high = min([*near.values(), *lines.values()]), max([*near.values(), *lines.values()])
    margin = 0.12 * max(high - low, 0.1)
    axes.set(ylim=(low - margin, high + margin), xlim=(min(near) - 0.9, max(near) + 0.9))
    axes.set(ylabel=f"perplexity above {reference}'s, %", title=f"biases within {MAX_EXCESS:.0f} % of {reference}")


def _draw_lines(axes: Axes, lines: Mapping[str, tuple[float, str]]) -> None:
    """Horizontal lines, each name with a style that it keeps from panel to panel."""
    for index, (value, label) in enumerate(lines.values()):
        color, line = LINE_STYLES[index % len(LINE_STYLES)]
        axes.axhline(value, color=color, linestyle=line, linewidth=0.9, label=label)


def _shade_biases(axes: Axes, biases: Sequence[int]) -> None:
    if biases:
        axes.axvspan(min(biases) - 0.5, max(biases) + 0.5, color="0.9", linewidth=0, zorder=0)


def _scale_bias_figure(biases: pl.DataFrame, footer: str) -> Figure:
    """One panel a role, one series a kind; one integer of scale_bias is as high in every panel."""
    roles = [role for role in ROLES if role in biases["role"]]
    kinds = [kind for kind in KINDS if kind in biases["kind"]]
    spans = [biases.filter(role=role).select(pl.col("high").max() - pl.col("low").min()).item() + 2 for role in roles]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.6 * len(roles) + min(0.22 * sum(spans), 6.0)))
    panels = figure.subplots(len(roles), 1, sharex=True, squeeze=False, height_ratios=spans)[:, 0]
    for axes, role in zip(panels, roles, strict=True):
        for index, kind in enumerate(kinds):
            _draw_series(axes, biases.filter(role=role, kind=kind), KIND_STYLES[kind], (index - len(kinds) / 2) * 0.1)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(ylabel="scale_bias", title=ROLE_LABELS[role])
        axes.grid(axis="y")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    panels[-1].set_xlabel("decoder layer")
    handles = [
        Line2D([], [], color=look.color, marker=look.marker, linestyle=look.line, label=look.label)
        for look in (KIND_STYLES[kind] for kind in kinds)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return _with_footer(figure, footer)


def _draw_series(axes: Axes, series: pl.DataFrame, look: KindStyle, shift: float) -> None:
    layers, mode, low, high = (series[column].to_list() for column in ("layer", "mode", "low", "high"))
    axes.fill_between(layers, low, high, color=look.color, alpha=0.15, linewidth=0)
    axes.plot(layers, [value + shift for value in mode], color=look.color, marker=look.marker, linestyle=look.line)


def _exponents_figure(rows: pl.DataFrame, what: str, footer: str) -> Figure:
    """One panel a role, on one axis of exponents."""
    roles = [role for role in ROLES if role in rows["role"]]
    figure = Figure(figsize=(WIDTH, 0.9 + 1.7 * len(roles)))
    panels = figure.subplots(len(roles), 1, sharex=True, squeeze=False)[:, 0]
    for axes, role in zip(panels, roles, strict=True):
        _draw_exponents(axes, rows.filter(role=role), ROLE_LABELS[role])
    panels[-1].set_xlabel("exponent of the value, log2|x|")
    return _with_footer(figure, f"{what}; {footer}" if footer else what)


def _draw_exponents(axes: Axes, rows: pl.DataFrame, label: str) -> None:
    """The histogram, over the regions of the format: flushed, subnormal, normal, saturated."""
    shares = shares_by_exponent(rows)
    biases = rows["scale_bias"]
    scale_bias = min(biases.mode().to_list())
    held = reach(get_format(rows["format"][0]), scale_bias)
    peak = max(shares, key=lambda exponent: shares[exponent])
    floor = 10.0 ** math.floor(math.log10(min(share for exponent, share in shares.items() if exponent >= peak)))
    first = min(exponent for exponent, share in shares.items() if share >= floor)
    left, right = min(first, held.flushed - 5), max(max(shares) + 1, held.saturated + 5)

    edges = [*range(first, max(shares) + 2)]
    axes.stairs([shares.get(exponent, 0.0) for exponent in edges[:-1]], edges, baseline=floor, fill=True, color="#56B4E9")
    axes.stairs([shares.get(exponent, 0.0) for exponent in edges[:-1]], edges, baseline=floor, color="#0072B2")
    hatched: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.35", "linewidth": 0, "zorder": 3}
    axes.axvspan(-200, held.flushed, hatch="////", **hatched)
    axes.axvspan(held.saturated, 200, hatch="xxxx", **hatched)
    axes.axvspan(held.flushed, held.normal, color="0.9", linewidth=0, zorder=0)
    for edge in (held.flushed, held.normal, held.saturated):
        axes.axvline(edge, color="0.35", linewidth=0.7, linestyle=":" if edge == held.normal else "-")
    num_values = sum(sum(histogram[1:-1]) for histogram in rows["exponents"])
    regions = {
        f"flushed\n{_percent(rows['flushed'].sum(), num_values)}": (left, held.flushed),
        "subnormal": (held.flushed, held.normal),
        "normal": (held.normal, held.saturated),
        f"saturated\n{_percent(rows['saturated'].sum(), num_values)}": (held.saturated, right),
    }
    for text, (low, high) in regions.items():
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if "\n" in text else None
        axes.text((low + high) / 2, 0.95, text, transform=axes.get_xaxis_transform(), ha="center", va="top", bbox=box, fontsize=7.5, zorder=4)
    mode = "" if biases.n_unique() == 1 else " (mode)"
    axes.set(title=f"{label}: {rows['format'][0]}, scale_bias {scale_bias}{mode}", ylabel="share of non-zero\nvalues, %")
    axes.set(xlim=(left, right), yscale="log", ylim=(floor, 100 * (100 / floor) ** 0.3))
    axes.yaxis.set_major_locator(FixedLocator([10.0**k for k in range(round(math.log10(floor)), 3, 2)]))
    axes.yaxis.set_minor_locator(NullLocator())


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "0 %" if not part else f"{share:.2g} %" if share < 10 else f"{share:.0f} %"


def _clipping_figure(shares: pl.DataFrame, scalings: Sequence[str], footer: str) -> Figure:
    """Rows of panels are scalings, columns the two counts; in a panel kinds and roles by layers."""
    lines = [(role, kind) for role in ROLES for kind in KINDS if not shares.filter(role=role, kind=kind).is_empty()]
    layers = range(shares["layer"].min(), shares["layer"].max() + 1)
    figure = Figure(figsize=(WIDTH, 1.1 + (0.35 + 0.17 * len(lines)) * len(scalings)))
    panels = figure.subplots(len(scalings), 2, sharex=True, sharey=True, squeeze=False)
    norm, colors = _share_colors(shares.filter(pl.col("scaling").is_in(scalings)))
    for row, scaling in zip(panels, scalings, strict=True):
        for axes, count in zip(row, ("saturated", "flushed"), strict=True):
            cells = shares.filter(scaling=scaling)
            table = {(role, kind, layer): value for role, kind, layer, value in cells.select("role", "kind", "layer", count).iter_rows()}
            values = [[table.get((*line, layer), math.nan) for layer in layers] for line in lines]
            axes.set_facecolor("white")
            axes.pcolormesh([layer - 0.5 for layer in (*layers, layers.stop)], [i - 0.5 for i in range(len(lines) + 1)],
               [[v or math.nan for v in row] for row in values], norm=norm, cmap=colors, edgecolors="0.92", linewidth=0.3)
            axes.set_title(f"{scaling}: {count}")
    panels[0, 0].set_yticks(range(len(lines)), [f"{KIND_STYLES[kind].label}, {ROLE_LABELS[role]}" for role, kind in lines])
    panels[0, 0].invert_yaxis()
    for axes in panels[-1]:
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(ScalarMappable(norm, colors), ax=panels, label="share of values, %", shrink=0.9, aspect=40)
    return _with_footer(figure, footer)


def _share_colors(shares: pl.DataFrame) -> tuple[LogNorm, Colormap]:
    values = [v for c in ("saturated", "flushed") for v in shares[c].to_list() if v > 0]
    low = 10.0 ** math.floor(math.log10(min(values, default=1)))
    return LogNorm(low, max(10 * low, 10.0 ** math.ceil(math.log10(max(values, default=100))))), colormaps["cividis_r"]


def _with_footer(figure: Figure, footer: str) -> Figure:
    """Small print below the axes: the model and the text."""
    if footer:
        figure.supxlabel(footer, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def _footer(summary: Mapping[str, Any]) -> str:
    parts = [str(summary["model"])] if summary.get("model") else []
    parts += [f"{summary['tokens']:,} tokens"] if summary.get("tokens") else []
    parts += [f"windows of {summary['window']:,}"] if summary.get("window") else []
    return ", ".join(parts)


def _save(figure: Figure, folder: Path, stem: str) -> Path:
    for suffix, metadata in METADATA.items():
        with replacing(folder / f"{stem}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, dpi=200, metadata=metadata)
    return folder / f"{stem}.png"


def _scalings(rows: pl.DataFrame) -> list[str]:
    return rows["scaling"].unique(maintain_order=True).to_list()


def _constant_bias(scaling: str) -> int | None:
    """-3 for `cscale:-3` and `cscale:-3,formats=fnuz`; None for a scaling that is not constant."""
    found = re.match(r"cscale:(-?\d+)", scaling)
    return int(found[1]) if found else None


def _bias(item: tuple[str, Any]) -> int:
    return int(item[0])


def _check_module(rows: pl.DataFrame, module: str) -> None:
    """ValueError, naming near modules, unless the run has histograms of this module."""
    modules = rows["module"].unique(maintain_order=True).to_list()
    if module not in modules:
        near = difflib.get_close_matches(module, modules, n=4, cutoff=0.4) or modules[:4]
        raise ValueError(f"module {module!r} is not in this run; near names: {', '.join(near) or 'it recorded none'}")
    if rows.filter(pl.col("module") == module)["exponents"].null_count() == len(rows.filter(module=module)):
        raise ValueError(f"module {module!r} has no histograms of exponents in this run: record with every=1 or more")

