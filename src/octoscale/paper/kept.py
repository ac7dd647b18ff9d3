"""Where measurements are made, whatever they are for: each cell once, in a folder that keeps them.

    cells = KeptCells(folder / "cells", high="bf16")
    cells.result(cell)                    from its file, or measured now, and kept

    cells/identity.json                   the machine and the versions, which all results depend on
    cells/ask-...-1f2e3d4c/               a run folder, as octoscale validate, or train, writes it
    cells/ask-...-1f2e3d4c-<hash>.json    its result, written when it is there (runs/cells.py)

A cell without its result is made again; a training goes on from its last checkpoint. What does not end with a finite
number is a result too, in words; not so in high precision, where it is the model that is at fault.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from octoscale.paper.cell import Cell
from octoscale.runs.cells import IDENTITY, Cells
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.training.run import run_training
from octoscale.training.settings import Training
from octoscale.validation.kept import machine_of
from octoscale.validation.run import check_finite, run_validation
from octoscale.validation.settings import Validation

#: Shows a cell's progress: for what is measured, a context whose value is called as run_validation, or run_training do.
Bars = Callable[[Cell], AbstractContextManager[Any]]


def no_bars(_: Cell) -> AbstractContextManager[None]:
    """Shows nothing."""
    return nullcontext()


class KeptCells:
    """The cells of a folder, and making those that are not there.

    high: the scaling that stands for high precision. check: called once, before the first that is made. Nothing is
    written before.
    """

    def __init__(
        self, folder: Path, high: str, *, check: Callable[[], None] = lambda: None, bars: Bars = no_bars
    ) -> None:
        self.folder, self.high = folder, high
        self._check, self._bars = check, bars
        self._is_checked = False
        self._cells: Cells | None = self._open() if (self.folder / IDENTITY).exists() else None
        self.used: dict[str, Cell] = {}
        self.command = shlex.join(["octoscale", *sys.argv[1:]])

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

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The machine and the versions, which all results depend on."""
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        return machine_of(run_header(device))

    def said(self, run: RunFolder, words: Validation) -> dict[str, Any]:
        """What is kept of a validation, beside its seconds and its date."""
        raise NotImplementedError

    def _make(self, cell: Cell) -> dict[str, Any]:
        with self._bars(cell) as progress:
            if isinstance(cell.words, Training):
                return {"cell": cell.label, **self._train(cell, cell.words, progress)}
            run = run_validation(cell.words, self.folder / cell.name, overwrite=True, progress=progress)
        (scaling,) = cell.words.scalings
        if scaling == self.high:
            check_finite(run)
        seconds = sum(_flat(run.read_json(run.summary)["seconds"]))
        return {"cell": cell.label, **self.said(run, cell.words), "seconds": seconds, "date": _date(run)}

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


def _date(run: RunFolder) -> str:
    """The day on which a run began."""
    return str(run.read_json(run.header)["started"])[:10]


def _flat(seconds: dict[str, Any]) -> list[float]:
    """The seconds of each scaling."""
    return [x for value in seconds.values() for x in (value.values() if isinstance(value, dict) else [value])]
