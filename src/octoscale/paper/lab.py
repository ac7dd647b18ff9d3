"""Whom the paper's tables ask: models as they are, or as they were fine-tuned; each answer is measured once (kept.py).

    lab = Lab(settings, folder)
    lab.ask("smollm2-135m", task, "amax", seed=None)            -> Answers
    lab.ask_trained("gpt-10m", task, "cscale:-1", seed=0)       -> Answers of what was trained under that scaling

A command that was killed goes on, and ends with the same tables.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from octoscale.models.architectures import class_of
from octoscale.models.loading import config_of, skeleton
from octoscale.models.sizes import SIZES
from octoscale.paper.answers import Answers, answers_of, from_cell
from octoscale.paper.cell import Cell, asking, reading, training
from octoscale.paper.kept import Bars, KeptCells, no_bars
from octoscale.paper.settings import Reproduction
from octoscale.paper.tasks import Task
from octoscale.runs.folder import RunFolder
from octoscale.validation.classes import is_classifier_class
from octoscale.validation.settings import Validation


class Lab(KeptCells):
    """The cells of a reproduction's folder, by what the tables ask. check: as in `KeptCells`."""

    def __init__(
        self, settings: Reproduction, folder: Path, *, check: Callable[[], None] = lambda: None, bars: Bars = no_bars
    ) -> None:
        super().__init__(folder / "cells", settings.high, check=check, bars=bars)
        self.settings = settings

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

    def said(self, run: RunFolder, words: Validation) -> dict[str, Any]:
        """The answers to the one task, or the perplexity of the text."""
        (scaling,) = words.scalings
        if words.asks:
            return answers_of(run, words.task_names[0], scaling)
        found: dict[str, Any] = run.read_json(run.summary)["perplexity"]
        return found

    def _ask(self, trained: Cell, model: str, task: Task, scaling: str, *, as_trained: bool = False) -> Answers:
        failure = self.result(trained).get("failure")
        if failure is not None:
            return Answers(scaling=scaling, failure=str(failure))
        place = self.folder / trained.name / "model"
        asked = asking(self.settings, model, task, scaling, of=trained, place=place, as_trained=as_trained)
        return from_cell(self.result(asked))


@lru_cache
def is_classifier(model: str) -> bool:
    """Whether a model is a classifier already."""
    return model not in SIZES and is_classifier_class(class_of(config_of(model)))


@lru_cache
def num_parameters(model: str) -> int:
    """How many a model has."""
    return sum(parameter.numel() for parameter in skeleton(model).parameters())
