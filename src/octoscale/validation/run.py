"""A validation from its words to its run folder: load the model, read the text, evaluate each scaling, record all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octoscale.conversion.convert import preview
from octoscale.conversion.head import put_head_in_fp8
from octoscale.models import loading
from octoscale.models.loading import LoadedModel
from octoscale.models.questions import Task, check_task, read_questions
from octoscale.models.quiet import quietly
from octoscale.models.texts import check_ids, check_window, read_text, token_windows
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.numerics.recipe import Recipe, check_names, parse_scaling
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run
from octoscale.system.whole_file import write_json
from octoscale.validation.bias_range import bias_range
from octoscale.validation.scalings import Progress, validate
from octoscale.validation.settings import Validation


@quietly()
def run_validation(
    settings: Validation, folder: Path, *, overwrite: bool, find_range: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Validate as `settings` say, and write the run to `folder`. All input is checked before the folder is made.

    find_range: add the range of CSCALE biases that pass to the summary.
    Raises ValueError or OSError, naming the remedy, for anything in the settings that cannot be had.
    """
    parts = _prepare(settings)
    header = run_header(parts.loaded.model.device, plan=_plain(settings), note=parts.loaded.note)
    with exclusive_run(folder):
        run = RunFolder.create(folder, header, overwrite=overwrite)
        validate(
            parts.loaded.model,
            parts.scalings,
            windows=parts.windows,
            folder=folder,
            every=settings.every,
            task=parts.task,
            head=_head(settings, parts.windows, header),
            progress=progress,
            by_layer=settings.by_layer,
        )
        if find_range:
            _note_range(run)
    return run


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The model, and what it will be asked under which scalings."""

    loaded: LoadedModel
    scalings: Sequence[Recipe | str]
    windows: Tensor
    task: Task | None


def _prepare(settings: Validation) -> _Parts:
    """Read what the settings name, the cheap things first, and check that the model can take it; nothing is written."""
    stored = loading.is_stored(settings.model)
    if stored and list(settings.scalings) != [STORED]:
        option = "--recipe" if settings.recipe else "--scaling"
        raise UserError(f"{settings.model} holds FP8 weights with their scales already: leave {option} out")
    if settings.fp8_head and not stored:
        raise UserError(f"--fp8-head is for FP8 checkpoints: octoscale quantize {settings.model} OUT first")
    scalings = [
        text if text == STORED else parse_scaling(text, settings.formats, settings.skip) for text in settings.scalings
    ]
    check_names(scalings)
    text = read_text(settings.text)
    questions = read_questions(settings.task, settings.limit) if settings.task is not None else []
    loaded = loading.load(settings.model, getattr(torch, PRECISIONS[settings.dtype]))
    loading.check_causal(loaded.model, settings.model)
    if settings.fp8_head:
        put_head_in_fp8(loaded.model)
    if loaded.encode is None:
        raise UserError(f"{loaded.note}; without it, {settings.model} cannot read a text")
    check_window(settings.window, loaded.model)
    for scaling in scalings:
        if isinstance(scaling, Recipe):
            preview(loaded.model, scaling)
    window, source = settings.window, str(settings.text)
    windows = token_windows(text, loaded.encode, window=window, num_tokens=settings.tokens, source=source)
    check_ids(windows, loaded.model)
    task = Task(questions=questions, encode=loaded.encode) if questions else None
    if task is not None:
        check_task(task, loaded.model)
    return _Parts(loaded=loaded, scalings=scalings, windows=windows, task=task)


def _head(settings: Validation, windows: Tensor, header: Mapping[str, Any]) -> dict[str, Any]:
    """What stands before the results in summary.json."""
    return {
        "model": settings.model,
        "text": settings.text,
        "tokens": windows.numel(),
        "window": settings.window,
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


def _note_range(run: RunFolder) -> None:
    summary = run.read_json(run.summary)
    found = bias_range(summary)
    write_json(run.summary, {**summary, "cscale_range": {**asdict(found), "text": str(found)}})


def check_finite(run: RunFolder) -> None:
    """FloatingPointError if the high precision of a run, or every scaling, has a perplexity that is not finite.

    Under one scaling of several that is a result, a cliff; here the model itself is at fault, or nothing was measured.
    """
    summary = run.read_json(run.summary)
    scores = summary["perplexity"]
    values = [*(scores.get("cscale", {}).values()), *(scores[name] for name in scores if name != "cscale")]
    wrong = [name for name in PRECISIONS if name in scores and scores[name] is None]
    if wrong:
        reason = summary["failures"][wrong[0]]
        raise FloatingPointError(f"{summary['model']} is at fault, not FP8: in {wrong[0]}, {reason}")
    if all(value is None for value in values):
        raise FloatingPointError(f"no scaling of {summary['model']} has a finite perplexity: see the failures above")


def _plain(settings: Validation) -> dict[str, Any]:
    """The settings as JSON can say it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
