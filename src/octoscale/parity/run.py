"""A parity from its words to its run folder: perplexities under each way of summing, real operands, made ones.

    run_parity(Parity(model="smollm2-135m", text="wiki.test.raw"), Path("parity"))

    run.json         as of every run: command, versions, backend and its reason
    summary.json     the perplexities, as of a validation; scales/ and metrics.jsonl with them
    parity.json      what the sums of real and of made operands differ by, written at the end
    cells/           each result as soon as it is known

Report adds its figures, from parity.json alone.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from octoscale.models.quiet import quietly
from octoscale.numerics.formats import PRECISIONS
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.numerics.scaling import Delayed
from octoscale.parity.differences import Differences, compare
from octoscale.parity.lengths import FAMILIES, curves_of
from octoscale.parity.products import Product, backward_products, forward_products
from octoscale.parity.settings import Parity
from octoscale.parity.ways import Way, ways_of
from octoscale.parity.words import Place, answer_of, operands_to_json
from octoscale.runs.cells import Cells
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run
from octoscale.system.whole_file import write_json
from octoscale.validation.kept import KeptScores, begin_or_go_on, check_place, identity_of
from octoscale.validation.one_scaling import Progress
from octoscale.validation.run import Parts, head_of, plain, prepare

#: Settings that say which results there are, and change none of them.
_FREE = ("accumulate", "longest")


@quietly()
def run_parity(
    settings: Parity, folder: Path, *, overwrite: bool = False, go_on: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Compare as `settings` say, and write the run to `folder`. All input is checked before the folder is made.

    go_on: with what a stopped command left there, if anything, or one that is done, to other tensor cores say.
    Raises UserError or OSError, naming the remedy, for anything in the settings that cannot be had; NonFiniteError
    where an operand of a layer is infinite or NaN.
    """
    words = {name: value for name, value in plain(settings).items() if name not in _FREE}
    check_place(folder, words, overwrite=overwrite, go_on=go_on)
    recipe = _recipe_of(settings)
    parts = prepare(settings.validation())
    _check_device(parts)
    header = run_header(parts.loaded.model.device, plan=plain(settings), note=parts.loaded.note)
    with exclusive_run(folder):
        run, cells = begin_or_go_on(folder, header, identity_of(words, parts, header), overwrite=overwrite, go_on=go_on)
        _take_back(run)
        head = head_of(settings.validation(), parts.windows, header)
        kept = KeptScores(parts, run, cells, head=head, progress=progress)
        for scaling in settings.validation().scalings:
            kept.score(scaling)
        kept.write_summary()
        content = head | {name: plain(settings)[name] for name in ("scaling", "dtype", "rows", "gradients", "seed")}
        content |= _found(_Asked(settings=settings, parts=parts, recipe=recipe, cells=cells, progress=progress))
        write_json(run.parity, {**content, "answer": answer_of(content)})
    return run


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the sums of operands are asked of, and where results are kept."""

    settings: Parity
    parts: Parts
    recipe: Recipe
    cells: Cells
    progress: Progress | None

    @property
    def ways(self) -> list[Way]:
        """In which ways they are summed."""
        return ways_of(self.settings.accumulators)

    def tell(self, what: str, done: int, total: int) -> None:
        """Progress."""
        if self.progress is not None:
            self.progress(what, done, total)


def _found(asked: _Asked) -> dict[str, Any]:
    """Of the operands of layers and of made ones, from their cells or now; a cell is named by its ways."""
    names = ", ".join(way.name for way in asked.ways)
    content: dict[str, Any] = asked.cells.get_or_make(f"layers: {names}", lambda: _of_layers(asked))
    lengths = asked.settings.lengths
    curves = [
        asked.cells.get_or_make(f"{family} to {lengths[-1]}: {names}", partial(_of_lengths, family, asked))
        for family in FAMILIES
    ]
    return content | {"lengths": curves}


def _of_layers(asked: _Asked) -> dict[str, Any]:
    settings, model, windows = asked.settings, asked.parts.loaded.model, asked.parts.windows
    assert windows is not None
    found: dict[Place, dict[str, Differences]] = {}
    dtype, total = getattr(torch, PRECISIONS[settings.dtype]), len(windows) + settings.gradients

    def take(product: Product) -> None:
        known = found.setdefault(Place(product.layer, product.result), {})
        for name, differences in compare(product, asked.ways, dtype).items():
            known.setdefault(name, Differences()).add(differences)

    def tell(done: int) -> None:
        asked.tell("layers", done, total)

    forward_products(model, asked.recipe, windows, take, rows=settings.rows, on_window=tell)
    if settings.gradients:
        backward_products(model, asked.recipe, windows[0], take, rows=settings.rows)
        tell(total)
    return operands_to_json(found)


def _of_lengths(family: str, asked: _Asked) -> dict[str, Any]:
    settings = asked.settings

    def tell(done: int) -> None:
        asked.tell(family, done, len(settings.lengths))

    format = asked.recipe.input.format
    return curves_of(family, asked.ways, format, settings.lengths, seed=settings.seed, on_length=tell)


def _recipe_of(settings: Parity) -> Recipe:
    """The recipe with float32's sums; each other one is that of a way. Nothing is loaded."""
    recipe = parse_scaling(settings.scaling, settings.formats, settings.skip)
    assert isinstance(recipe, Recipe)
    if isinstance(recipe.input.rule, Delayed):
        raise UserError(f"scaling {settings.scaling} depends on the steps before: parity takes amax and cscale")
    return recipe


def _check_device(parts: Parts) -> None:
    device = parts.loaded.model.device
    if device.type != "cpu":
        raise UserError(f"the sums of a tensor core are imitated on a CPU, and the model is on {device}")


def _take_back(run: RunFolder) -> None:
    """Delete what an earlier end found, and what shows it: the folder holds that of its run.json, or none."""
    for path in (run.parity, run.report, *run.figures.rglob("parity*")):
        path.unlink(missing_ok=True)
