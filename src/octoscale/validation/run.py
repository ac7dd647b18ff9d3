"""A validation from its words to its run folder: load the model, read the text, evaluate each scaling, record all."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octoscale.conversion.convert import plan as plan_conversion
from octoscale.conversion.head import put_head_in_fp8
from octoscale.models import loading
from octoscale.models.loading import LoadedModel
from octoscale.models.questions import Task, check_task, read_questions
from octoscale.models.texts import check_ids, check_window, read_text, token_windows
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.numerics.recipe import Recipe, check_names, parse_scaling
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.lock import exclusive_run
from octoscale.system.whole_file import write_json
from octoscale.validation.bias_range import bias_range
from octoscale.validation.scalings import Progress, validate
from octoscale.validation.settings import Validation


def run_validation(
    plan: Validation, folder: Path, *, overwrite: bool, find_range: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Carry out `plan` and write it to `folder`. All input is checked before the folder is made.

    find_range: add the range of CSCALE biases that pass to the summary.
    Raises ValueError or OSError, naming the remedy, for anything in the plan that cannot be had.
    """
    parts = _prepare(plan)
    header = run_header(parts.loaded.model.device, plan=_plain(plan), note=parts.loaded.note)
    with exclusive_run(folder):
        run = RunFolder.create(folder, header, overwrite=overwrite)
        validate(
            parts.loaded.model,
            parts.scalings,
            windows=parts.windows,
            folder=folder,
            every=plan.every,
            task=parts.task,
            head=_head(plan, parts.windows, header),
            progress=progress,
            by_layer=plan.by_layer,
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


def _prepare(plan: Validation) -> _Parts:
    """Read what the plan names, the cheap things first, and check that the model can take it; nothing is written."""
    stored = loading.is_stored(plan.model)
    if stored and list(plan.scalings) != [STORED]:
        raise ValueError(f"{plan.model} holds FP8 weights with their scales already: leave --scaling out")
    if plan.fp8_head and not stored:
        raise ValueError(f"--fp8-head is for FP8 checkpoints: octoscale quantize {plan.model} OUT first")
    scalings = [text if text == STORED else parse_scaling(text, plan.formats, plan.skip) for text in plan.scalings]
    check_names(scalings)
    text = read_text(plan.text)
    questions = read_questions(plan.task, plan.limit) if plan.task is not None else []
    loaded = loading.load(plan.model, getattr(torch, PRECISIONS[plan.dtype]))
    loading.check_causal(loaded.model, plan.model)
    if plan.fp8_head:
        put_head_in_fp8(loaded.model)
    if loaded.encode is None:
        raise ValueError(f"{loaded.note}; without it, {plan.model} cannot read a text")
    check_window(plan.window, loaded.model)
    for scaling in scalings:
        if isinstance(scaling, Recipe):
            plan_conversion(loaded.model, scaling)
    window, source = plan.window, str(plan.text)
    windows = token_windows(text, loaded.encode, window=window, num_tokens=plan.tokens, source=source)
    check_ids(windows, loaded.model)
    task = Task(questions=questions, encode=loaded.encode) if questions else None
    if task is not None:
        check_task(task, loaded.model)
    return _Parts(loaded=loaded, scalings=scalings, windows=windows, task=task)


def _head(plan: Validation, windows: Tensor, header: Mapping[str, Any]) -> dict[str, Any]:
    """What stands before the results in summary.json."""
    return {
        "model": plan.model,
        "text": plan.text,
        "tokens": windows.numel(),
        "window": plan.window,
        "formats": plan.formats,
        "backend": header["backend"],
        "reason": header["reason"],
    }


def with_own_scaling(values: dict[str, Any]) -> Validation:
    """A validation from its fields; of an FP8 checkpoint, where no scaling is among them, under its own."""
    if not values["scalings"] and loading.is_stored(values["model"]):
        values = values | {"scalings": (STORED,)}
    return Validation(**values)


def check_sweep(model: str) -> None:
    """ValueError for a checkpoint whose scales are chosen already."""
    if loading.is_stored(model):
        raise ValueError(
            f"{model} holds FP8 weights with their scales: there is none to look for; validate measures it"
        )


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


def _plain(plan: Validation) -> dict[str, Any]:
    """The plan as JSON can say it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(plan).items()}
