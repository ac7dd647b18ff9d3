"""A validation from its words to its run folder: load the model, read the text, evaluate each scaling, keep the record.

`Validation` is what the commands validate, sweep and demo differ in; its field defaults are their defaults.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from octoscale import models, tasks
from octoscale.convert import plan as plan_conversion
from octoscale.evaluate import Progress, validate
from octoscale.recipe import PRECISIONS, Recipe, parse_scaling
from octoscale.runfolder import RunFolder, write_json
from octoscale.sweep import bias_range
from octoscale.telemetry import run_header


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to validate. Texts as on the command line; see `octoscale validate --help`."""

    model: str
    scalings: Sequence[str] = ("bf16", "amax")
    text: str = "pydoc"
    window: int = 512
    tokens: int | None = None
    formats: str = "ocp"
    skip: Sequence[str] = ()
    dtype: str = "bf16"
    every: int = 16
    task: Path | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise ValueError(f"unknown dtype {self.dtype!r}: one of {', '.join(PRECISIONS)}")
        if len(set(self.scalings)) != len(self.scalings):
            raise ValueError(f"a scaling is named twice: {', '.join(self.scalings)}")
        if self.every < 0:
            raise ValueError(f"every={self.every}: histograms are recorded every N windows, N >= 1, or never, 0")


def run_validation(plan: Validation, folder: Path, *, overwrite: bool, progress: Progress | None = None) -> RunFolder:
    """Carry out `plan` and write it to `folder`. All input is checked before the folder is made.

    Raises ValueError or OSError, naming the remedy, for anything in the plan that cannot be had.
    """
    scalings = [parse_scaling(text, plan.formats, plan.skip) for text in plan.scalings]
    text = tasks.read_text(plan.text)
    questions = tasks.read_questions(plan.task, plan.limit) if plan.task is not None else []
    loaded = models.load(plan.model, getattr(torch, PRECISIONS[plan.dtype]))
    if loaded.encode is None:
        raise ValueError(f"{loaded.note}: {plan.model} cannot read a text")
    _check_window(loaded.model, plan.window)
    for scaling in scalings:
        if isinstance(scaling, Recipe):
            plan_conversion(loaded.model, scaling)
    windows = tasks.token_windows(text, loaded.encode, window=plan.window, num_tokens=plan.tokens)
    header = run_header(loaded.model.device, plan=_plain(plan), note=loaded.note)
    run = RunFolder.create(folder, header, overwrite=overwrite)
    head = {
        "model": plan.model,
        "text": plan.text,
        "tokens": windows.numel(),
        "window": plan.window,
        "formats": plan.formats,
        "backend": header["backend"],
        "reason": header["reason"],
    }
    task = tasks.Task(questions=questions, encode=loaded.encode) if questions else None
    validate(
        loaded.model,
        scalings,
        windows=windows,
        folder=folder,
        every=plan.every,
        task=task,
        head=head,
        progress=progress,
    )
    return run


def note_range(run: RunFolder) -> None:
    """Add the range of CSCALE biases that pass to the run's summary."""
    summary = run.read_json(run.summary)
    found = bias_range(summary)
    write_json(run.summary, {**summary, "cscale_range": {**asdict(found), "text": str(found)}})


def _check_window(model: Any, window: int) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and window > limit:
        raise ValueError(f"a window of {window} tokens is longer than the model's {limit} positions: lower --window")


def _plain(plan: Validation) -> dict[str, Any]:
    """The plan as JSON can say it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(plan).items()}
