"""A validation from its words to its run folder: load the model, read the text, evaluate each scaling, record all."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from octoscale.conversion.convert import preview
from octoscale.conversion.head import put_head_in_fp8
from octoscale.conversion.settings import Conversion
from octoscale.distributed.mesh import agree, by_first, explained, together, wait_for_all
from octoscale.distributed.run_folder import held_by_first
from octoscale.kernels.ops import check_imitation
from octoscale.models import loading
from octoscale.models.loading import LoadedModel
from octoscale.models.meeting import meet
from octoscale.models.quiet import quietly
from octoscale.models.texts import check_ids, check_window, read_text, token_windows
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.numerics.recipe import Recipe, check_names, parse_scaling
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks, rank
from octoscale.system.whole_file import write_json
from octoscale.validation.bias_range import range_of
from octoscale.validation.choice import find_tasks
from octoscale.validation.classes import is_classifier
from octoscale.validation.one_scaling import Progress
from octoscale.validation.scalings import validate
from octoscale.validation.scores import Score, flatten
from octoscale.validation.settings import Measurement, Validation
from octoscale.validation.tasks import Tasks


@quietly()
def run_validation(
    settings: Validation, folder: Path, *, overwrite: bool, find_range: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Validate as `settings` say, and write the run to `folder`. All input is checked before the folder is made.

    find_range: add the range of CSCALE biases that pass to the summary.
    Raises ValueError or OSError, naming the remedy, for anything in the settings that cannot be had.
    """
    _check_ranks(settings)
    with explained():
        ranks = meet(settings.model, parallel=settings.parallel, words=plain(settings))
        parts = together(lambda: prepare(settings, ranks))
        if ranks is not None:
            agree({"text (a digest of its tokens)": _digest(parts.windows)})
        return _run_validation(settings, parts, folder, overwrite, find_range, progress)


def _run_validation(
    settings: Validation, parts: "Parts", folder: Path, overwrite: bool, find_range: bool, progress: Progress | None
) -> RunFolder:
    header = run_header(parts.loaded.model.device, plan=plain(settings), note=parts.loaded.note)
    run = RunFolder(folder)
    with held_by_first(folder):
        by_first(lambda: RunFolder.create(folder, header, overwrite=overwrite))
        scores = validate(
            parts.loaded.model,
            parts.scalings,
            windows=parts.windows,
            folder=folder,
            every=settings.every,
            tasks=parts.tasks,
            head=head_of(settings, parts.windows, header),
            progress=progress,
            by_layer=settings.by_layer,
            rank=rank(),
            autocast=_dtype(settings) if settings.autocast else None,
        )
        if find_range:
            _note_range(run, scores)
        wait_for_all()
    return run


def _check_ranks(settings: Validation) -> None:
    """UserError for what many ranks cannot do together."""
    if num_ranks() == 1:
        return
    if settings.asks:
        raise UserError("tasks are asked in one process: leave them out under torchrun, or torchrun")
    if settings.by_layer:
        raise UserError("--batch reads a model layer by layer in one process: leave it out under torchrun, or torchrun")


def _digest(windows: Tensor | None) -> str:
    """What tells these tokens from others."""
    assert windows is not None
    return hashlib.blake2b(windows.numpy().tobytes(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The model, and what it will be asked under which scalings."""

    loaded: LoadedModel
    scalings: Sequence[Recipe | str]
    windows: Tensor | None
    tasks: Tasks | None


def prepare(settings: Validation, ranks: ProcessGroup | None = None) -> Parts:
    """Read what the settings name, the cheap things first, and check that the model can take it; nothing is written.

    ranks: those of which each is to have a part of the model.
    """
    stored = loading.is_stored(settings.model)
    if stored and list(settings.scalings) != [STORED]:
        option = "--recipe" if settings.recipe else "--scaling"
        raise UserError(f"{settings.model} holds FP8 weights with their scales already: leave {option} out")
    if settings.autocast and stored:
        raise UserError(f"{settings.model} holds FP8 weights, and --autocast is for float32 ones: leave it out")
    if settings.fp8_head and not stored:
        raise UserError(f"--fp8-head is for FP8 checkpoints: octoscale quantize {settings.model} OUT first")
    scalings = [
        text if text == STORED else parse_scaling(text, settings.formats, settings.skip) for text in settings.scalings
    ]
    check_names(scalings)
    for accumulate in {recipe.accumulate for recipe in scalings if isinstance(recipe, Recipe)} - {""}:
        check_imitation(accumulate)
    text = None if settings.text is None else read_text(settings.text)
    asked = find_tasks(settings) if settings.asks else None
    loading.check_tokenizer(settings.model)
    loaded = loading.load(settings.model, torch.float32 if settings.autocast else _dtype(settings), ranks=ranks)
    if text is not None or not is_classifier(loaded.model):
        loading.check_causal(loaded.model, settings.model)
    if settings.fp8_head:
        put_head_in_fp8(loaded.model)
    if loaded.encode is None:
        raise UserError(f"{loaded.note}; without it, {settings.model} cannot read a text")
    notes = (loaded.note, "" if stored else _rounded_before(settings, scalings))
    loaded = replace(loaded, note="; ".join(filter(None, notes)))
    for scaling in scalings:
        if isinstance(scaling, Recipe):
            preview(loaded.model, scaling)
    windows = None if text is None else _windows(settings, text, loaded)
    tasks = None if asked is None else asked(loaded)
    return Parts(loaded=loaded, scalings=scalings, windows=windows, tasks=tasks)


def _rounded_before(settings: Validation, scalings: Sequence[Recipe | str]) -> str:
    """What to say where weights lose bits before FP8 casts them: a training in FP8 casts float32 ones."""
    of_file = str(getattr(loading.config_of(settings.model), "dtype", None)).removeprefix("torch.")
    is_cast = any(isinstance(scaling, Recipe) for scaling in scalings)
    if of_file != PRECISIONS["fp32"] or settings.dtype == "fp32" or settings.autocast or not is_cast:
        return ""
    return (
        f"float32 weights are rounded to {PRECISIONS[settings.dtype]} before FP8 casts them; a model that was trained "
        "in FP8 loses by that: octoscale validate --autocast casts them as they are"
    )


def _dtype(settings: Validation) -> torch.dtype:
    """The model's own precision."""
    dtype: torch.dtype = getattr(torch, PRECISIONS[settings.dtype])
    return dtype


def _windows(settings: Validation, text: str, loaded: LoadedModel) -> Tensor:
    """The text as this model reads it."""
    assert loaded.encode is not None
    check_window(settings.window, loaded.model)
    window, source = settings.window, str(settings.text)
    windows = token_windows(text, loaded.encode, window=window, num_tokens=settings.tokens, source=source)
    check_ids(windows, loaded.model)
    return windows


def head_of(settings: Measurement, windows: Tensor | None, header: Mapping[str, Any]) -> dict[str, Any]:
    """What stands before the results in summary.json."""
    of_text: dict[str, Any] = {}
    if windows is not None:
        of_text = {"text": settings.text, "tokens": windows.numel(), "window": settings.window}
    return {
        "model": settings.model,
        **of_text,
        "formats": settings.formats,
        "backend": header["backend"],
        "reason": header["reason"],
    }


def scalings_for(model: str, scalings: Sequence[str], **_: Any) -> Sequence[str]:
    """The scalings to validate: those that are wanted; else a checkpoint's own, or none for the defaults."""
    return scalings or ((STORED,) if loading.is_stored(model) else ())


def check_sweep(model: str) -> None:
    """ValueError for a checkpoint whose scales are chosen already."""
    if loading.is_stored(model):
        raise UserError(f"{model} holds FP8 weights with their scales: there is none to look for; validate measures it")


def _note_range(run: RunFolder, scores: Sequence[Score]) -> None:
    write_json(run.summary, {**run.read_json(run.summary), "cscale_range": range_of(scores).to_json()})


def check_finite(run: RunFolder) -> None:
    """FloatingPointError if the high precision of a run, or every scaling, has a result that is not finite.

    Under one scaling of several that is a result, a cliff; here the model itself is at fault, or nothing was measured.
    """
    summary = run.read_json(run.summary)
    failures, asked = summary.get("failures", {}), set(flatten(summary["seconds"]))
    wrong = [name for name in PRECISIONS if name in failures]
    if wrong:
        raise FloatingPointError(f"{summary['model']} is at fault, not FP8: in {wrong[0]}, {failures[wrong[0]]}")
    if asked <= failures.keys():
        raise FloatingPointError(f"no scaling of {summary['model']} has a finite result: see the failures above")


def plain(settings: Conversion) -> dict[str, Any]:
    """The settings as JSON can say it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
