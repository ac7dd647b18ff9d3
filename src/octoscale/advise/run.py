"""An advice from its words to its run folder: load the model, read the texts, advise, write.

    run_advise(Advice(model="smollm2-135m", text="pydoc"), Path("advice"))

    run.json        as of every run: command, versions, backend and its reason
    cells/          what each pass of a text found, as soon as it is known
    recipe.toml     the advised recipe, which convert, validate, quantize and train take
    advice.json     all that was found

The advice is written at the end, the recipe first: a run that is stopped has none, and goes on from its cells to the
same one. Report adds advice.md and a figure, from advice.json alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octoscale.advise.findings import Findings, Progress, advise
from octoscale.advise.settings import Advice
from octoscale.advise.words import answer_of, to_json
from octoscale.conversion.convert import preview
from octoscale.models import loading
from octoscale.models.fingerprint import fingerprint
from octoscale.models.loading import LoadedModel
from octoscale.models.quiet import quietly
from octoscale.models.texts import check_ids, check_window, read_text, token_windows
from octoscale.numerics.formats import PRECISIONS
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.numerics.recipe_file import write_recipe
from octoscale.numerics.scaling import Delayed
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run
from octoscale.system.whole_file import write_json
from octoscale.validation.kept import begin_or_go_on, check_place, machine_of, text_crc32

#: Settings that say what is asked of the passes, and change none of them.
_FREE = ("bound", "keep_at_most")


@quietly()
def run_advise(
    settings: Advice, folder: Path, *, overwrite: bool = False, go_on: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Advise as `settings` say, and write the run to `folder`. All input is checked before the folder is made.

    go_on: with what a stopped command left there, if anything, or one that is done, under another bound say. The advice
    then is that of a command that was never stopped.
    Raises UserError or OSError, naming the remedy, for anything in the settings that cannot be had; FloatingPointError
    for a model whose own losses are not finite.
    """
    words = {name: value for name, value in _plain(settings).items() if name not in _FREE}
    check_place(folder, words, overwrite=overwrite, go_on=go_on)
    parts = _prepare(settings)
    header = run_header(parts.loaded.model.device, plan=_plain(settings), note=parts.loaded.note)
    with exclusive_run(folder):
        identity = _identity_of(words, parts, header)
        run, cells = begin_or_go_on(folder, header, identity, overwrite=overwrite, go_on=go_on)
        _take_back(run)
        findings = advise(
            parts.loaded.model,
            parts.recipe,
            search=parts.search,
            verify=parts.verify,
            limit=settings.limit,
            at_most=settings.keep_at_most,
            keep=cells.get_or_make,
            progress=progress,
        )
        head = _plain(settings) | {
            "recipe": parts.recipe.name,
            "backend": header["backend"],
            "reason": header["reason"],
        }
        content = head | to_json(findings, settings.limit, parts.recipe.name)
        _write_recipe(run.recipe, parts.recipe, findings, settings)
        write_json(run.advice, content)
    return run


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The model, the recipe to advise on, and the windows of both texts."""

    loaded: LoadedModel
    recipe: Recipe
    search: Tensor
    verify: Tensor


def _identity_of(words: Mapping[str, Any], parts: _Parts, header: Mapping[str, Any]) -> dict[str, Any]:
    """What each pass depends on but the choice of layers: the words, the weights, the texts, and the machine."""
    return {
        **words,
        "fingerprint": fingerprint(parts.loaded.model),
        "text_crc32": text_crc32(parts.search),
        "verify_crc32": text_crc32(parts.verify),
        **machine_of(header),
    }


def _take_back(run: RunFolder) -> None:
    """Delete the advice of an earlier end, and all that shows it: the folder holds that of its run.json, or none."""
    for path in (run.advice, run.recipe, run.page, run.report, *run.figures.rglob("advice.*")):
        path.unlink(missing_ok=True)


def _prepare(settings: Advice) -> _Parts:
    """Read what the settings name, the cheap things first, and check that the model can take it; nothing is written."""
    recipe = parse_scaling(settings.scaling, settings.formats, settings.skip)
    assert isinstance(recipe, Recipe)
    if isinstance(recipe.input.rule, Delayed):
        raise UserError(f"scaling {settings.scaling} depends on the steps before: advise takes amax and cscale")
    texts = [read_text(text) for text in (settings.text, settings.verify_text) if text is not None]
    if loading.is_stored(settings.model):
        raise UserError(f"{settings.model} holds FP8 weights already: advise on the checkpoint that it was made from")
    _check_model(settings, recipe)
    loaded = loading.load(settings.model, getattr(torch, PRECISIONS[settings.dtype]))
    if loaded.encode is None:
        raise UserError(f"{loaded.note}; without it, {settings.model} cannot read a text")
    search, verify = _windows(settings, texts, loaded)
    for windows in (search, verify):
        check_ids(windows, loaded.model)
    return _Parts(loaded=loaded, recipe=recipe, search=search, verify=verify)


def _check_model(settings: Advice, recipe: Recipe) -> None:
    """What can be seen without weights."""
    skeleton = loading.skeleton(settings.model)
    loading.check_causal(skeleton, settings.model)
    check_window(settings.window, skeleton)
    preview(skeleton, recipe)


def _windows(settings: Advice, texts: Sequence[str], loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    """The windows that are searched with, and those that verify. UserError unless there are two of each."""
    assert loaded.encode is not None
    if settings.verify_text is not None:
        names = (settings.text, settings.verify_text)
        search, verify = (
            token_windows(text, loaded.encode, window=settings.window, num_tokens=settings.tokens, source=name)
            for text, name in zip(texts, names, strict=True)
        )
    else:
        window, both, source = settings.window, 2 * settings.tokens, settings.text
        windows = token_windows(texts[0], loaded.encode, window=window, num_tokens=both, source=source)
        search, verify = windows.tensor_split(2)
    for windows, name in ((search, settings.text), (verify, settings.verify_text or settings.text)):
        if len(windows) < 2:
            raise UserError(
                f"the text {name} is too short: an interval needs two windows of {settings.window} tokens for the "
                "search, and two that verify; lower --window, or name another text"
            )
    return search, verify


def _write_recipe(path: Path, recipe: Recipe, findings: Findings, settings: Advice) -> None:
    """The advised recipe, with the reasons beside it."""
    kept = findings.kept or ()
    costs = {estimate.module: estimate.cost for estimate in findings.estimates}
    notes = {module: f"estimated to cost {costs[module]:.2g} nats a token" for module in kept}
    answer = answer_of(findings, settings.limit, recipe.name)
    heading = [f"Written by octoscale advise for {settings.model}.", *answer]
    write_recipe(path, replace(recipe, skip=(*recipe.skip, *kept)), heading=heading, notes=notes)


def _plain(settings: Advice) -> dict[str, Any]:
    """The settings as JSON can say it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
