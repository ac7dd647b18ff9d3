"""The figure of one module's exponents: its values against what the format holds at its scale.

    exponents_figure(octoscale.load_run("runs/mine").scales, module="model.layers.11.mlp.down_proj")

A panel a role: a histogram of log2|x| before scaling, and behind it the regions of the format, each with its name and
the share of the values that is lost there.
"""

import math
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from octoscale.numerics.formats import ROLES, get_format
from octoscale.report.data.bands import scales_in_words
from octoscale.report.data.histograms import with_histograms
from octoscale.report.data.validation import (
    Reach,
    default_module,
    histogram,
    main_scaling,
    mode_of,
    reach,
    scalings_of,
    shares_by_exponent,
)
from octoscale.report.figures.parts import decimal, join, label_rows, with_note
from octoscale.report.figures.style import CURVE, REPORT, ROLE_LABELS, SHADE, Style, StyledFigure, get_style, styled
from octoscale.system.errors import UserError

#: A region between flushed and safe that is narrower than this part of its panel has no room for its name.
_NAMED = 0.045


@styled
def exponents_figure(
    scales: pl.DataFrame,
    *,
    module: str | None = None,
    scaling: str | None = None,
    style: str = REPORT,
    note: str = "",
) -> StyledFigure:
    """The histograms of one module, summed over steps, from the rows of a run: one panel a role.

    module: by default the one of kind ffn_out that flushes most under the main scaling. scaling: by default amax, or
    the first of the module's. An exponent is as wide in every panel. UserError if these rows hold no histogram of it.
    """
    module = (default_module(scales) or "") if module is None else module
    rows = with_histograms(scales.filter(module=module))
    scalings = scalings_of(rows)
    scaling = (main_scaling(scalings) or next(iter(scalings), "")) if scaling is None else scaling
    rows = rows.filter(scaling=scaling)
    if rows.is_empty():
        of = f"of module {module!r} under {scaling!r}" if module else "of any module"
        raise UserError(f"no histogram {of} in these rows: record with every=1, or any other than 0")
    roles = [role for role in ROLES if not rows.filter(role=role).is_empty()]
    figure = get_style(style).figure(0.9 + 1.7 * len(roles))
    panels = figure.subplots(len(roles), 1, squeeze=False)[:, 0]
    ranges = [draw_exponents(axes, rows.filter(role=role)) for axes, role in zip(panels, roles, strict=True)]
    span = max(right - left for left, right in ranges)
    for axes, role, (left, right) in zip(panels, roles, ranges, strict=True):
        middle = (left + right) / 2
        draw_reach(axes, rows.filter(role=role), middle - span / 2, middle + span / 2, figure.style)
    label_rows(figure, [*panels], "share of non-zero\nvalues, %", [1.0] * len(panels))
    panels[-1].set_xlabel("exponent of the value, log2|x|")
    several = _has_several(rows)
    what = "window of the lowest to the highest scale; grey: flushed by the lowest, not by others; " if several else ""
    return with_note(figure, join(f"{what}{module}, scaling {scaling}", note))


def draw_exponents(axes: Axes, rows: pl.DataFrame) -> tuple[float, float]:
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
    axes.set(yscale="log", ylim=(10.0**floor, 10.0**top))
    axes.yaxis.set_major_locator(FixedLocator([10.0**k for k in range(2, floor - 1, -2)]))
    axes.yaxis.set_major_formatter(decimal)
    axes.yaxis.set_minor_locator(NullLocator())
    held = _reach(rows)
    return min(edges[0], held.flushed - 5), max(edges[-1], held.saturated + 5)


def draw_reach(axes: Axes, rows: pl.DataFrame, left: float, right: float, style: Style) -> None:
    """The regions of the format, each with its name, and with the share of the values that are lost there."""
    held = _reach(rows)
    lost: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.5", "linewidth": 0, "zorder": 3}
    axes.axvspan(left, held.flushed, hatch="////", **lost)
    between, middle = _between(rows)
    axes.axvspan(held.flushed, middle, color=SHADE, linewidth=0, zorder=0)
    axes.axvspan(held.saturated, right, hatch="xxxx", **lost)
    axes.set_xlim(left, right)
    edges: dict[str, Any] = {"color": "0.3", "linewidth": 0.8 * style.stroke}
    axes.vlines([held.flushed, held.saturated], 0, 1, transform=axes.get_xaxis_transform(), **edges)
    regions = {
        f"flushed\n{_lost_share(rows, 'flushed')}": (left, held.flushed),
        between: (held.flushed, middle),
        "held" if _has_several(rows) else "normal": (middle, held.saturated),
        f"saturated\n{_lost_share(rows, 'saturated')}": (held.saturated, right),
    }
    for text, (low, high) in regions.items():
        if text == between and high - low < _NAMED * (right - left):
            continue
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if "%" in text else None
        look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": style.small, "bbox": box, "zorder": 4}
        axes.text((low + high) / 2, 0.95, text, transform=axes.get_xaxis_transform(), **look)
    axes.set_title(f"{ROLE_LABELS[rows['role'][0]]}: {rows['format'][0]}, {_scales(rows)}")


def _scales(rows: pl.DataFrame) -> str:
    """The scale_bias in words, or how far several of them reach."""
    biases = rows["scale_bias"].to_list()
    if _has_several(rows):
        highest: Any = rows["scale_bias_high"].max()
        most: Any = rows["num_scales"].max()
        return scales_in_words(min(biases), highest, most, rows["granularity"][0])
    return f"scale_bias {mode_of(rows['scale_bias'])}" + (" (mode)" if len(set(biases)) > 1 else "")


def _has_several(rows: pl.DataFrame) -> bool:
    """Whether the tensor has several scales."""
    return rows["scale_bias_high"].null_count() < rows.height


def _between(rows: pl.DataFrame) -> tuple[str, float]:
    """The name and the upper end of what lies between flushed and safe: subnormal values.

    Of several scales, which values are subnormal is not known: those that the lowest scale flushes, and others hold.
    """
    if not _has_several(rows):
        return "sub-\nnormal", _reach(rows).normal
    low: Any = rows["scale_bias"].min()
    return "by\nscale", reach(get_format(rows["format"][0]), low).flushed


def _reach(rows: pl.DataFrame) -> Reach:
    """What the format holds; of several scales, what it holds under any: the highest one decides about small values."""
    fmt = get_format(rows["format"][0])
    high: Any = rows["scale_bias_high"].max()
    if high is None:
        return reach(fmt, mode_of(rows["scale_bias"]))
    low: Any = rows["scale_bias"].min()
    small, large = reach(fmt, high), reach(fmt, low)
    return Reach(flushed=small.flushed, normal=small.normal, saturated=large.saturated)


def _lost_share(rows: pl.DataFrame, count: str) -> str:
    """The share of the non-zero values that is saturated, or flushed, in words."""
    share = 100 * rows[count].sum() / sum(histogram(rows).values())
    return f"{share:.2g} %" if share < 10 else f"{share:.0f} %"
