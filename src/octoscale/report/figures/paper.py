"""The figures of the paper, drawn from the numbers that `octoscale reproduce` wrote: FOLDER/fig5.json and its like.

    draw_paper("runs/reproduce")  ->  runs/reproduce/fig5.png, fig5.svg, ...

Figure 6 has a picture a model: fig6.png, fig6-2.png. The same numbers draw the same bytes. publish.py draws them in
other styles and formats.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.axes import Axes

from octoscale.report.data.training import mean_width, running_mean
from octoscale.report.figures.parts import add_legend, integers, with_note
from octoscale.report.figures.scale_bias import draw_scale_bias
from octoscale.report.figures.scale_bias_steps import draw_scale_bias_steps
from octoscale.report.figures.style import (
    CURVE,
    LINE_STYLES,
    LOOKS,
    REPORT,
    SHADE,
    Make,
    StyledFigure,
    get_style,
    save,
    styled,
)
from octoscale.report.figures.words import POINTS, shown
from octoscale.report.paper_contents import FIGURES

#: Panels in a row.
_COLUMNS = 3


def draw_paper(folder: Path | str) -> list[Path]:
    """Draw each figure whose numbers the folder holds, as PNG and SVG beside them; returns the PNG paths."""
    folder = Path(folder)
    paths = []
    for name in FIGURES:
        numbers = folder / f"{name}.json"
        for stem, make in makers(name, json.loads(numbers.read_text("utf-8"))) if numbers.exists() else ():
            paths.append(save(make(), folder, stem)[0])
    return paths


def pictures_of(name: str, content: Mapping[str, Any]) -> list[str]:
    """The file stems of a figure's pictures."""
    return [stem for stem, _ in makers(name, content)]


def makers(name: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Make]]:
    """File stem of each picture, and what makes it. content: of the figure's file."""
    panels = content["panels"]
    if name in ("fig5", "fig10"):
        yield name, partial(_accuracy_figure if name == "fig5" else _losses_figure, panels)
        return
    for number, panel in enumerate(panels, start=1):
        stem = name if number == 1 else f"{name}-{number}"
        of = ", ".join(str(panel[key]) for key in ("model", "task", "text") if key in panel)
        if name == "fig6":
            yield stem, partial(draw_scale_bias, _rows(panel["series"]), note=f"{of}, {panel['tokens']:,} tokens")
        else:
            yield stem, partial(draw_scale_bias_steps, _rows(panel["series"]), note=f"{of}, seed {panel['seed']}")


def _rows(series: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """A row a point of the series, whose lists are as long as each other."""
    return pl.concat([pl.DataFrame({**one}) for one in series])


def _panels(number: int, height: float, style: str) -> tuple[StyledFigure, list[Axes]]:
    """A grid of panels, those that are not needed left out."""
    columns = min(number, _COLUMNS)
    rows = -(-number // columns)
    figure = get_style(style).figure(0.7 + height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for left in axes[number:]:
        left.remove()
    return figure, axes[:number]


@styled
def _accuracy_figure(panels: Sequence[Mapping[str, Any]], *, style: str = REPORT) -> StyledFigure:
    figure, all_axes = _panels(len(panels), 2.3, style)
    for axes, panel in zip(all_axes, panels, strict=True):
        _draw_accuracy(axes, panel, figure)
    handles, labels = all_axes[0].get_legend_handles_labels()
    add_legend(figure, handles, labels, len(labels))
    return with_note(figure, "bars: 95 % interval of the difference to high precision; shaded: 99.5 % of it and more")


def _draw_accuracy(axes: Axes, panel: Mapping[str, Any], figure: StyledFigure) -> None:
    """Horizontal lines without a constant, the curve with bars; crosses at the lower edge where there is no score."""
    high = panel["lines"][0]["score"]
    for line, (color, dashes) in zip(panel["lines"], LINE_STYLES, strict=False):
        if line["score"] is not None:
            width = 0.9 * figure.style.stroke
            axes.axhline(line["score"], color=color, linestyle=dashes, linewidth=width, label=line["scaling"])
    found = [point for point in panel["points"] if point["score"] is not None]
    x, y = [point["bias"] for point in found], [point["score"] for point in found]
    axes.vlines(
        x, [p.get("low", p["score"]) for p in found], [p.get("high", p["score"]) for p in found], color=CURVE, alpha=0.5
    )
    axes.plot(x, y, color=CURVE, marker="o", label="cscale")
    lost = [point["bias"] for point in panel["points"] if point["score"] is None]
    if lost:
        axes.plot(lost, [0] * len(lost), "x", color=CURVE, transform=axes.get_xaxis_transform(), clip_on=False)
    low, top = axes.get_ylim()
    axes.axhspan(0.995 * high, max(top, high), color=SHADE, linewidth=0, zorder=0)
    axes.set_ylim(low, max(top, high))
    axes.xaxis.set_major_locator(integers())
    seed = "" if panel["seed"] is None else f", seed {panel['seed']}"
    title = _title(figure, f"{_last(panel)}, {panel['task']}{seed}")
    axes.set(xlabel="constant scale_bias", ylabel="accuracy, %", title=title)


@styled
def _losses_figure(panels: Sequence[Mapping[str, Any]], *, style: str = REPORT) -> StyledFigure:
    figure, all_axes = _panels(len(panels), 2.3, style)
    for axes, panel in zip(all_axes, panels, strict=True):
        for look, series in zip(LOOKS, panel["series"], strict=False):
            losses = [float("nan") if loss is None else loss for loss in series["loss"]]
            mean = running_mean(losses, mean_width(len(losses)))
            axes.plot(series["step"], losses, color=look.color, linewidth=0.5 * figure.style.stroke, alpha=0.3)
            axes.plot(series["step"], mean, color=look.color, linestyle=look.line, label=series["scaling"])
        axes.xaxis.set_major_locator(integers(5))
        axes.set(xlabel="step", ylabel="loss, nats", title=_title(figure, f"{_last(panel)}, {panel['task']}"))
        axes.grid(axis="y")
    handles, labels = all_axes[0].get_legend_handles_labels()
    add_legend(figure, handles, labels, len(labels))
    return with_note(figure, "pale: each step; strong: running mean")


def _title(figure: StyledFigure, text: str) -> str:
    """A title no wider than its panel."""
    size = figure.style.text
    return shown(text, figure.get_figwidth() / min(_COLUMNS, len(figure.axes)) - 6.5 * size / POINTS, size)


def _last(panel: Mapping[str, Any]) -> str:
    return str(panel["model"]).rstrip("/").rpartition("/")[2]
