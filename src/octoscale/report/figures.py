"""Which figures a run has: drawn from the files that it wrote and from nothing else.

    draw("runs/mine")        ->  runs/mine/figures/*.png and *.svg

    perplexity               which constant scales survive: a plateau, and a cliff on either side   (the paper's Fig. 5)
    bias_map                 which pairs of constants survive, one for weights and one for inputs
    scale_bias               which scale each layer wants, by depth and kind                        (its Fig. 6)
    exponents-<scaling>      the values of one module against what the format holds at its scale
    clipping                 where values saturate or are flushed: layers by kinds
    advice                   what FP8 costs each layer, of an advice
    scale_bias_steps, loss   of a training: see training_figures.py

data.py computes the numbers that are shown; a file of each figure's name draws it, and computes nothing. What the files
do not allow is left out: an interrupted run has few scalings, a plain validation has no sweep. The same run draws the
same bytes.
"""

import difflib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib import style
from matplotlib.figure import Figure

from octoscale.report.advice_figure import FIELDS, advice_figure
from octoscale.report.bias_map import bias_map_figure
from octoscale.report.clipping import clipping_figure
from octoscale.report.contents import RunContents, read_run
from octoscale.report.data import (
    basin,
    clipped_shares,
    clipping_scalings,
    default_module,
    exponent_scalings,
    main_scaling,
    scalings_of,
    split_scores,
    with_histograms,
)
from octoscale.report.exponents import exponents_figure
from octoscale.report.perplexity import perplexity_figure
from octoscale.report.scale_bias import scale_bias_figure
from octoscale.report.style import STYLE, join, save
from octoscale.report.training_data import has_losses, loss_curves, scale_bias_of_training
from octoscale.report.training_figures import loss_figure, scale_bias_steps_figure
from octoscale.runs.scale_bias import scale_bias_by_layer
from octoscale.system.errors import UserError

#: Makes a figure when it is called.
Make = Callable[[], Figure]


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
        for stem, make in (*_figures(contents, module), *_training_figures(contents), *_advice_figure(contents)):
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


def check_module(rows: pl.DataFrame, module: str) -> None:
    """ValueError, naming near modules, unless the run has histograms of this module."""
    modules = rows["module"].unique(maintain_order=True).to_list()
    if module not in modules:
        near = difflib.get_close_matches(module, modules, n=4, cutoff=0.4) or modules[:4]
        hint = f"near names: {', '.join(near)}" if near else "it recorded none"
        raise UserError(f"module {module!r} is not in this run; {hint}")
    if with_histograms(rows.filter(module=module)).is_empty():
        raise UserError(f"module {module!r} has no histograms in this run: record with every=1, or any other than 0")


def _figures(contents: RunContents, module: str | None) -> Iterator[tuple[str, Make]]:
    """File stem and figure to be made, for each figure that there are data for."""
    rows, perplexity, footer = contents.scales, contents.summary.get("perplexity", {}), _footer(contents.summary)
    lines, points = split_scores(perplexity)
    if points and any(value is not None for value in (*lines.values(), *points.values())):
        yield "perplexity", partial(perplexity_figure, lines, points, basin(perplexity), footer)
    if contents.summary.get("bias_map", {}).get("cells"):
        yield "bias_map", partial(bias_map_figure, contents.summary["bias_map"], footer)
    main = main_scaling(scalings_of(rows))
    biases = scale_bias_by_layer(rows.filter(scaling=main or ""))
    if not biases.is_empty():
        of = join(f"mode over steps and modules, scaling {main}", footer)
        yield "scale_bias", partial(scale_bias_figure, biases, of)
    module = module or default_module(rows) or ""
    of_module = with_histograms(rows.filter(module=module))
    for scaling in exponent_scalings(of_module, perplexity):
        of = join(f"{module}, scaling {scaling}", footer)
        yield _stem(scaling), partial(exponents_figure, of_module.filter(scaling=scaling), of)
    shares = clipped_shares(rows)
    if not shares.is_empty():
        yield "clipping", partial(clipping_figure, shares, clipping_scalings(scalings_of(rows)), footer)


def _training_figures(contents: RunContents) -> Iterator[tuple[str, Make]]:
    """The figures of one training, as far as there are data for them."""
    plan = contents.header.get("plan", {})
    footer = ", ".join(str(plan[key]) for key in ("model", "scaling", "formats", "dtype") if key in plan)
    biases = scale_bias_of_training(contents.scales)
    if not biases.is_empty():
        moves = join("mode over modules and micro-batches", footer)
        yield "scale_bias_steps", partial(scale_bias_steps_figure, biases, moves)
    if has_losses(contents):
        yield "loss", partial(loss_figure, loss_curves([contents]), footer)


def _advice_figure(contents: RunContents) -> Iterator[tuple[str, Make]]:
    if contents.advice.keys() >= FIELDS:
        yield "advice", partial(advice_figure, contents.advice)


def _stem(scaling: str) -> str:
    """A file's name for a scaling's exponents, no longer than file systems take."""
    return f"exponents-{re.sub(r'[^A-Za-z0-9.=-]+', '_', scaling)}"[:200]


def _footer(summary: Mapping[str, Any]) -> str:
    """The model and the text, as far as the summary names them."""
    tokens = f"{summary['tokens']:,} tokens" if "tokens" in summary else ""
    window = f"windows of {summary['window']:,}" if "window" in summary else ""
    formats = f"{summary['formats']} formats" if "formats" in summary else ""
    return ", ".join(part for part in (summary.get("model"), tokens, window, formats) if part)
