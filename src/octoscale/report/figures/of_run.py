"""Which figures a run has: drawn from the files that it wrote and from nothing else.

    draw("runs/mine")        ->  runs/mine/figures/*.png and *.svg

    perplexity               which constant scales survive: a plateau, and a cliff on either side   (the paper's Fig. 5)
    bias_map                 which pairs of constants survive, one for weights and one for inputs
    scale_bias               which scale each layer wants, by depth and kind                        (its Fig. 6)
    exponents-<scaling>      the values of one module against what the format holds at its scale
    clipping                 where values saturate or are flushed: layers by kinds
    scale_bias_steps         how the scales of a training move                                      (its Figs. 7, 8, 9)
    loss                     the losses of a training                                               (its Fig. 10)
    advice                   what FP8 costs each layer
    parity                   how far a tensor core's sums lie from exact ones, by kind of layer
    parity_layers            the same by depth, beside the error of the casts
    parity_lengths           the error of a sum by its length

A file of each figure's name draws it, from numbers that data/ computes. What the files do not allow is left out, and
said: an interrupted run has few scalings, a plain validation has no sweep. The same run draws the same bytes.
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

from octoscale.report.contents import RunContents, read_run
from octoscale.report.data.histograms import abridged, with_histograms
from octoscale.report.data.training import has_losses, loss_curves, scale_bias_of_training
from octoscale.report.data.validation import (
    clipped_shares,
    default_module,
    exponent_scalings,
    main_scaling,
    scalings_of,
    split_scores,
)
from octoscale.report.figures.advice import FIELDS as OF_ADVICE
from octoscale.report.figures.advice import advice_figure
from octoscale.report.figures.bias_map import bias_map_figure
from octoscale.report.figures.clipping import clipping_figure
from octoscale.report.figures.exponents import exponents_figure
from octoscale.report.figures.loss import loss_figure
from octoscale.report.figures.parity import FIELDS as OF_PARITY
from octoscale.report.figures.parity import parity_figure
from octoscale.report.figures.parity_layers import FIELDS as OF_LAYERS
from octoscale.report.figures.parity_layers import drawn_layers, parity_layers_figure
from octoscale.report.figures.parity_lengths import FIELDS as OF_LENGTHS
from octoscale.report.figures.parity_lengths import parity_lengths_figure
from octoscale.report.figures.parts import join
from octoscale.report.figures.perplexity import perplexity_figure
from octoscale.report.figures.scale_bias import scale_bias_figure
from octoscale.report.figures.scale_bias_steps import scale_bias_steps_figure
from octoscale.report.figures.style import REPORT, Make, save
from octoscale.runs.scale_bias import scale_bias_by_layer
from octoscale.system.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The files of each figure that was drawn, its caption, and by name what became of each other one."""

    files: dict[str, list[Path]]
    captions: dict[str, str]
    failures: dict[str, Exception]

    @property
    def paths(self) -> list[Path]:
        """The first file of each figure: the PNG, in a report."""
        return [paths[0] for paths in self.files.values()]


@dataclass(frozen=True, kw_only=True)
class RunFigure:
    """A figure that a run may have: what it shows, what has to be recorded for it, and how it is made.

    make: of a run and a module that is asked for, the file's stem and what makes the figure; nothing if the run does
    not allow it, several for one figure a scaling.
    """

    shows: str
    needs: str
    make: Callable[[RunContents, str | None], Iterator[tuple[str, Make]]]


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
    return draw_figures(makers(contents, module), contents.figures, shows=SHOWS)


def draw_figures(
    made: Mapping[str, Mapping[str, Make]],
    folder: Path,
    *,
    shows: Mapping[str, str],
    style: str = REPORT,
    formats: Sequence[str] = (),
) -> Drawing:
    """Draw some figures, as `makers` gives those of a run, into a folder.

    shows: of each, how its caption begins. formats: of the style, if none are named.
    """
    drawing = Drawing(files={}, captions={}, failures={})
    for name, stems in made.items():
        for stem, make in stems.items():
            try:
                figure = make(style=style)
                drawing.files[stem] = save(figure, folder, stem, formats)
                drawing.captions[stem] = join(shows[name], figure.note)
            except Exception as error:  # noqa: BLE001, PERF203  whoever draws says what failed, after what was measured
                drawing.failures[stem] = error
    return drawing


def draw_losses(runs: Sequence[RunContents]) -> Path:
    """Draw the losses of several trainings over each other, into the first one's figures; returns the PNG's path.

    Raises ValueError for a run that is no training.
    """
    return save(loss_figure(loss_curves(runs)), runs[0].figures, "losses")[0]


def makers(contents: RunContents, module: str | None = None) -> dict[str, dict[str, Make]]:
    """Figure -> file's stem -> what makes it, of each that there are data for. ValueError as `draw`."""
    if module is not None:
        check_module(contents.scales, module)
    found = {name: dict(figure.make(contents, module)) for name, figure in FIGURES.items()}
    return {name: stems for name, stems in found.items() if stems}


def check_module(rows: pl.DataFrame, module: str) -> None:
    """ValueError, naming near modules, unless the run has histograms of this module."""
    modules = rows["module"].unique(maintain_order=True).to_list()
    if module not in modules:
        near = difflib.get_close_matches(module, modules, n=4, cutoff=0.4) or modules[:4]
        hint = f"near names: {', '.join(near)}" if near else "it recorded none"
        raise UserError(f"module {module!r} is not in this run; {hint}")
    if with_histograms(abridged(rows.filter(module=module))).is_empty():
        raise UserError(f"module {module!r} has no histograms in this run: record with every=1, or any other than 0")


_Made = Iterator[tuple[str, Make]]


def _perplexity(contents: RunContents, _: str | None) -> _Made:
    perplexity = contents.summary.get("perplexity", {})
    lines, points = split_scores(perplexity)
    if points and any(value is not None for value in (*lines.values(), *points.values())):
        yield "perplexity", partial(perplexity_figure, perplexity, note=_measured(contents))


def _bias_map(contents: RunContents, _: str | None) -> _Made:
    if contents.summary.get("bias_map", {}).get("cells"):
        yield "bias_map", partial(bias_map_figure, contents.summary["bias_map"], note=_measured(contents))


def _scale_bias(contents: RunContents, _: str | None) -> _Made:
    rows = contents.scales
    main = main_scaling(scalings_of(rows))
    if not scale_bias_by_layer(rows, main or "").is_empty():
        yield "scale_bias", partial(scale_bias_figure, rows, scaling=main, note=_measured(contents))


def _exponents(contents: RunContents, module: str | None) -> _Made:
    module = module or default_module(contents.scales)
    if module is None:
        return
    of_module = with_histograms(contents.of_module(module))
    for scaling in exponent_scalings(of_module, contents.summary.get("perplexity", {})):
        words = {"module": module, "scaling": scaling, "note": _measured(contents)}
        yield _stem(scaling), partial(exponents_figure, of_module, **words)


def _clipping(contents: RunContents, _: str | None) -> _Made:
    if not clipped_shares(contents.scales).is_empty():
        yield "clipping", partial(clipping_figure, contents.scales, note=_measured(contents))


def _scale_bias_steps(contents: RunContents, _: str | None) -> _Made:
    if not scale_bias_of_training(contents.scales).is_empty():
        yield "scale_bias_steps", partial(scale_bias_steps_figure, contents.scales, note=_trained(contents))


def _loss(contents: RunContents, _: str | None) -> _Made:
    if has_losses(contents):
        yield "loss", partial(loss_figure, loss_curves([contents]), note=_trained(contents))


def _advice(contents: RunContents, _: str | None) -> _Made:
    if contents.advice.keys() >= OF_ADVICE:
        yield "advice", partial(advice_figure, contents.advice)


def _parity(contents: RunContents, _: str | None) -> _Made:
    if contents.parity.keys() >= OF_PARITY and contents.parity["kinds"]:
        yield "parity", partial(parity_figure, contents.parity, note=_compared(contents))


def _parity_layers(contents: RunContents, _: str | None) -> _Made:
    if contents.parity.keys() >= OF_LAYERS and drawn_layers(contents.parity):
        yield "parity_layers", partial(parity_layers_figure, contents.parity, note=_compared(contents))


def _parity_lengths(contents: RunContents, _: str | None) -> _Made:
    if contents.parity.keys() >= OF_LENGTHS and contents.parity["lengths"]:
        yield "parity_lengths", partial(parity_lengths_figure, contents.parity)


#: The figures of a run by name, in the order in which they are drawn.
FIGURES: dict[str, RunFigure] = {
    "perplexity": RunFigure(
        shows="Perplexity against a constant scale_bias: which ones the model survives",
        needs="no perplexity of a constant scaling: octoscale sweep, or validate with --scaling cscale:-1",
        make=_perplexity,
    ),
    "bias_map": RunFigure(
        shows="What a constant scale_bias for the weights and one for the activations cost together",
        needs="no pairs of constants: octoscale sweep with --roles weight,input",
        make=_bias_map,
    ),
    "scale_bias": RunFigure(
        shows="The scale_bias that each decoder layer gets, by depth, kind and role",
        needs="no scales of decoder layers under a scaling that adapts, such as amax",
        make=_scale_bias,
    ),
    "exponents": RunFigure(
        shows="The exponents of one module's values against what the format holds at its scale_bias",
        needs="no histograms of exponents: record with --every 1, or any other than 0",
        make=_exponents,
    ),
    "clipping": RunFigure(
        shows="The shares of values that saturate or are flushed, by decoder layer, kind and role",
        needs="no casts of decoder layers",
        make=_clipping,
    ),
    "scale_bias_steps": RunFigure(
        shows="The scale_bias of the first, middle and last decoder layers over the steps of training",
        needs="no scales of a training that move: octoscale train, with a scaling that adapts",
        make=_scale_bias_steps,
    ),
    "loss": RunFigure(
        shows="The loss over the steps of training",
        needs="no losses of a training: octoscale train",
        make=_loss,
    ),
    "advice": RunFigure(
        shows="What FP8 costs each decoder layer, by depth and kind, and which layers are kept in high precision",
        needs="no advice: octoscale advise",
        make=_advice,
    ),
    "parity": RunFigure(
        shows="How far outputs lie from exact sums, by kind of layer and by whose sums they are",
        needs="no sums of tensor cores: octoscale parity",
        make=_parity,
    ),
    "parity_layers": RunFigure(
        shows="The error of sums beside that of the casts to FP8, by decoder layer and kind",
        needs="no sums of tensor cores in decoder layers: octoscale parity",
        make=_parity_layers,
    ),
    "parity_lengths": RunFigure(
        shows="The error of a sum by its length, on made operands, with and without promotion",
        needs="no sums of tensor cores: octoscale parity",
        make=_parity_lengths,
    ),
}

#: What each of them shows.
SHOWS = {name: figure.shows for name, figure in FIGURES.items()}


def _stem(scaling: str) -> str:
    """A file's name for a scaling's exponents, no longer than file systems take."""
    return f"exponents-{re.sub(r'[^A-Za-z0-9.=-]+', '_', scaling)}"[:200]


def _measured(contents: RunContents) -> str:
    """The model and the text, as far as the summary names them."""
    summary: Mapping[str, Any] = contents.summary
    tokens = f"{summary['tokens']:,} tokens" if "tokens" in summary else ""
    window = f"windows of {summary['window']:,}" if "window" in summary else ""
    formats = f"{summary['formats']} formats" if "formats" in summary else ""
    return ", ".join(part for part in (summary.get("model"), tokens, window, formats) if part)


def _compared(contents: RunContents) -> str:
    """The model, the text, and whose products were compared."""
    parity = contents.parity
    rows = f"{parity['rows']:,} rows of each product" if "rows" in parity else ""
    return ", ".join(part for part in (_measured(contents), parity.get("scaling"), rows) if part)


def _trained(contents: RunContents) -> str:
    """The model and how it was trained, as far as the header names them."""
    plan = contents.header.get("plan", {})
    return ", ".join(str(plan[key]) for key in ("model", "scaling", "formats", "dtype") if key in plan)
