"""Where measurements are made: each cell once. A command that was killed goes on, and ends with the same tables.

    lab = Lab(settings, folder)
    lab.ask("smollm2-135m", task, "amax", seed=None)            -> Answers
    lab.ask_trained("gpt-10m", task, "cscale:-1", seed=0)       -> Answers of what was trained under that scaling

    cells/identity.json                   the machine and the versions, which all results depend on
    cells/ask-...-1f2e3d4c/               a run folder, as octoscale validate, or train, writes it
    cells/ask-...-1f2e3d4c-<hash>.json    its result, written when it is there (runs/cells.py)

A cell without its result is made again; a training goes on from its last checkpoint. What does not end with a finite
number is a result too, in words; not so in high precision, where it is the model that is at fault.
"""

import json
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from octoscale.models.architectures import class_of
from octoscale.models.loading import config_of, skeleton
from octoscale.models.sizes import SIZES
from octoscale.paper.answers import Answers, answers_of, from_cell
from octoscale.paper.cell import Cell, asking, reading, training
from octoscale.paper.settings import Reproduction
from octoscale.paper.tasks import Task
from octoscale.runs.cells import IDENTITY, Cells
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.training.run import run_training
from octoscale.training.settings import Training
from octoscale.validation.classes import is_classifier_class
from octoscale.validation.kept import machine_of
from octoscale.validation.run import check_finite, run_validation

#: Shows a cell's progress: for what is measured, a context whose value is called as run_validation, or run_training do.
Bars = Callable[[Cell], AbstractContextManager[Any]]


def no_bars(_: Cell) -> AbstractContextManager[None]:
    """Shows nothing."""
    return nullcontext()


class Lab:
    """The cells of a folder, and making those that are not there.

    check: called once, before the first that is made. Nothing is written before.
    """

    def __init__(
        self, settings: Reproduction, folder: Path, *, check: Callable[[], None] = lambda: None, bars: Bars = no_bars
    ) -> None:
        self.settings = settings
        self.folder = folder / "cells"
        self._check, self._bars = check, bars
        self._is_checked = False
        self._cells: Cells | None = self._open() if (self.folder / IDENTITY).exists() else None
        self.used: dict[str, Cell] = {}
        self.command = shlex.join(["octoscale", *sys.argv[1:]])

    @property
    def high(self) -> str:
        """The scaling that stands for high precision."""
        return self.settings.high

    def seeds_of(self, model: str, task: Task) -> list[int | None]:
        """The seeds with which a model is fine-tuned before it is asked; None for one that is asked as it is."""
        return [*self.settings.seed_list] if task.has_classes and not is_classifier(model) else [None]

    def ask(self, model: str, task: Task, scaling: str, seed: int | None) -> Answers:
        """What a model says under a scaling; it was fine-tuned in high precision before, if there is a seed."""
        if seed is None:
            return from_cell(self.result(asking(self.settings, model, task, scaling)))
        return self._ask(training(self.settings, model, task, self.high, seed), model, task, scaling)

    def ask_trained(self, model: str, task: Task, scaling: str, seed: int) -> Answers:
        """What a model says that was fine-tuned under a scaling, under the same: its float32 parameters are cast.

        Rounded to bfloat16 before, they lose the updates that decide to which side an FP8 value is rounded (LOG.md).
        """
        trained = training(self.settings, model, task, scaling, seed)
        return self._ask(trained, model, task, scaling, as_trained=True)

    def loss(self, model: str, task: Task, scaling: str, seed: int) -> float:
        """The loss of the examples for validation after a fine-tuning; infinity where it is not finite."""
        losses = self.result(training(self.settings, model, task, scaling, seed)).get("validation_loss", {})
        return math.inf if losses.get("after") is None else float(losses["after"])

    def trained(self, model: str, task: Task, scaling: str, seed: int) -> RunFolder:
        """The run of a fine-tuning."""
        return self.run_of(training(self.settings, model, task, scaling, seed))

    def read(self, model: str) -> RunFolder:
        """The run in which a model read the text under FP8-AMAX."""
        return self.run_of(reading(self.settings, model))

    def by_size(self, target: str) -> list[str]:
        """The models of a table or figure, the smallest first."""
        return sorted(self.settings.models_of(target), key=num_parameters)

    def results(self) -> list[dict[str, Any]]:
        """All results that the folder keeps."""
        files = sorted(path for path in self.folder.glob("*.json") if path.name != IDENTITY)
        return [json.loads(path.read_text(encoding="utf-8"))["value"] for path in files]

    def run_of(self, cell: Cell) -> RunFolder:
        """A cell's run, made if it is not there. UserError if its result is there, and the run was deleted."""
        self.result(cell)
        return RunFolder.open(self.folder / cell.name)

    def result(self, cell: Cell) -> dict[str, Any]:
        """A cell's result, made if it is not there."""
        self.used[cell.name] = cell
        kept = None if self._cells is None else self._cells.get(cell.name)
        if kept is None:
            if not self._is_checked:
                self._check()
                self._is_checked = True
            value = self._make(cell)
            self._cells = self._cells or self._open()
            self._cells.put(cell.name, value)
            kept = self._cells.get(cell.name)
        result: dict[str, Any] = kept
        return result

    def _ask(self, trained: Cell, model: str, task: Task, scaling: str, *, as_trained: bool = False) -> Answers:
        failure = self.result(trained).get("failure")
        if failure is not None:
            return Answers(scaling=scaling, failure=str(failure))
        place = self.folder / trained.name / "model"
        asked = asking(self.settings, model, task, scaling, of=trained, place=place, as_trained=as_trained)
        return from_cell(self.result(asked))

    def _make(self, cell: Cell) -> dict[str, Any]:
        with self._bars(cell) as progress:
            if isinstance(cell.words, Training):
                return {"cell": cell.label, **self._train(cell, cell.words, progress)}
            run = run_validation(cell.words, self.folder / cell.name, overwrite=True, progress=progress)
        (scaling,) = cell.words.scalings
        if scaling == self.high:
            check_finite(run)
        summary = run.read_json(run.summary)
        found = answers_of(run, cell.words.task_names[0], scaling) if cell.words.asks else summary["perplexity"]
        return {"cell": cell.label, **found, "seconds": sum(_flat(summary["seconds"])), "date": _date(run)}

    def _train(self, cell: Cell, words: Training, progress: Any) -> dict[str, Any]:
        folder = self.folder / cell.name
        try:
            run = run_training(words, folder, go_on=True, progress=progress)
        except FloatingPointError as error:
            if words.scaling == self.high:
                raise
            return {"failure": str(error), "date": _date(RunFolder.open(folder))}
        summary = run.read_json(run.summary)
        if run.checkpoints.is_dir():
            shutil.rmtree(run.checkpoints)  # nothing goes on from them
        names = ("validation_loss", "validation_accuracy", "failure", "seconds")
        return {name: summary[name] for name in names if name in summary} | {"date": _date(run)}

    def _open(self) -> Cells:
        return Cells(self.folder, self.identity)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The machine and the versions, which all results depend on."""
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        return machine_of(run_header(device))


@lru_cache
def is_classifier(model: str) -> bool:
    """Whether a model is a classifier already."""
    return model not in SIZES and is_classifier_class(class_of(config_of(model)))


@lru_cache
def num_parameters(model: str) -> int:
    """How many a model has."""
    return sum(parameter.numel() for parameter in skeleton(model).parameters())


def _date(run: RunFolder) -> str:
    """The day on which a run began."""
    return str(run.read_json(run.header)["started"])[:10]


def _flat(seconds: dict[str, Any]) -> list[float]:
    """The seconds of each scaling."""
    return [x for value in seconds.values() for x in (value.values() if isinstance(value, dict) else [value])]
