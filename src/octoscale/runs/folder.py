"""A run is a folder. This file knows its layout and how to write to it so that nothing is ever half there.

    run.json        what was run: command, recipe, versions, backend and its reason, seed
    metrics.jsonl   one line a measurement, appended
    notes.jsonl     what else was noticed, one line each, appended (notes.py)
    summary.json    the results so far, rewritten whole
    advice.json     what advise found; recipe.toml: the advised recipe; advice.md: the advice as a page
    parity.json     what parity found
    cells/          one result each, of a command that goes on after a kill (cells.py)
    scales/         part-000000.parquet, ...: one row a tensor a step (scales.py)
    items/          piqa.amax.jsonl, ...: what a task's items were answered under a scaling, one a line
    figures/        PNG and SVG
    report.html     the page that report writes
    checkpoints/    of a training: the newest state to go on from (training/trainer.py)
    model/          of a training that ended: the model, as transformers saves it

A file is whole or not there (system/whole_file.py). Only the two .jsonl files are appended to; a line cut short by a
crash is left out when it is read.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from octoscale.runs.files import HEADER, MARK, check_own, empty, is_leftover
from octoscale.system.errors import UserError
from octoscale.system.whole_file import replacing, write_json


class RunFolder:
    """The files of one run below `path`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.header = self.path / HEADER
        self.metrics = self.path / "metrics.jsonl"
        self.notes = self.path / "notes.jsonl"
        self.summary = self.path / "summary.json"
        self.advice = self.path / "advice.json"
        self.parity = self.path / "parity.json"
        self.recipe = self.path / "recipe.toml"
        self.page = self.path / "advice.md"
        self.report = self.path / "report.html"
        self.scales = self.path / "scales"
        self.items = self.path / "items"
        self.cells = self.path / "cells"
        self.figures = self.path / "figures"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"

    @classmethod
    def create(cls, path: Path | str, header: dict[str, Any], *, overwrite: bool = False) -> "RunFolder":
        """Make a new run. FileExistsError if the folder holds something, unless `overwrite` and all is of a run."""
        run = cls(path)
        run.check_free(overwrite=overwrite)
        if run._holds_something:
            empty(run.path)
        write_json(run.header, MARK | header)
        run.scales.mkdir(exist_ok=True)
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """An existing run. FileNotFoundError if the folder holds none."""
        run = cls(path)
        if not run.header.exists():
            raise FileNotFoundError(f"{run.path} is not a run: it holds no run.json")
        return run

    def check_free(self, *, overwrite: bool = False) -> None:
        """FileExistsError if the folder holds something, unless `overwrite` and all is of a run."""
        if not self._holds_something:
            return
        if not self.header.exists():
            raise FileExistsError(f"{self.path} holds files that are not a run: choose another folder")
        if not (overwrite or self.is_emptied):
            raise FileExistsError(f"{self.path} already holds a run: choose another folder, or --overwrite")
        check_own(self.path)

    @property
    def _holds_something(self) -> bool:
        return self.path.is_dir() and not all(is_leftover(file) for file in self.path.iterdir())

    @property
    def is_begun(self) -> bool:
        """Whether there is a run, be it one that was stopped."""
        return self.header.exists() and not self.is_emptied

    @property
    def is_emptied(self) -> bool:
        """Whether a process that was to replace the run ended when the old one was gone, and the new one not begun."""
        try:
            return self.read_json(self.header) == MARK
        except (FileNotFoundError, ValueError):
            return False

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one measurement to metrics.jsonl. ValueError for NaN and infinity: write None."""
        _append(self.metrics, row)

    def append_note(self, row: dict[str, Any]) -> None:
        """Append a line to notes.jsonl. ValueError for NaN and infinity."""
        _append(self.notes, row)

    def write_items(self, task: str, scaling: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Keep the answers to a task's items under a scaling. ValueError for NaN and infinity: write None."""
        self.items.mkdir(exist_ok=True)
        path = self.items / f"{_in_file_names(task)}.{_in_file_names(scaling)}.jsonl"
        head = {"task": task, "scaling": scaling}
        with replacing(path) as temporary:
            lines = [json.dumps(head | dict(row), allow_nan=False) + "\n" for row in rows]
            temporary.write_text("".join(lines), encoding="utf-8")
        return path

    def read_metrics(self) -> list[dict[str, Any]]:
        """The measurements in their order; a line that a crash cut short is left out. ValueError if it is no file."""
        return _read_lines(self.metrics)

    def keep_lines(self, path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite metrics.jsonl or notes.jsonl with only the wanted lines; nothing is done where it is not there."""
        if not path.exists():
            return
        with replacing(path) as temporary:
            lines = [json.dumps(row, allow_nan=False) + "\n" for row in _read_lines(path) if wanted(row)]
            temporary.write_text("".join(lines), encoding="utf-8")

    def read_json(self, path: Path) -> dict[str, Any]:
        """One of the run's JSON files. FileNotFoundError if the run has none, ValueError if it is damaged."""
        if not path.exists():
            raise FileNotFoundError(f"{self.path} has no {path.name}: the run ended before it was written")
        try:
            content = json.loads(_bytes_of(path))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} is damaged: it holds no object")
        return content


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one a line; none if there is no file."""
    rows = []
    for line in _bytes_of(path).split(b"\n") if path.exists() else ():
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line; a line before it that a crash cut short is ended."""
    line = json.dumps(row, allow_nan=False)
    with path.open("a+b") as file:
        file.seek(max(0, file.tell() - 1))
        cut_short = file.read() not in (b"", b"\n")
        file.write((("\n" if cut_short else "") + line + "\n").encode())


def _in_file_names(name: str) -> str:
    """A name as part of a file's, no longer than file systems take; letters that they refuse become _."""
    return re.sub(r"[^A-Za-z0-9,=+-]+", "_", name)[:100]


def _bytes_of(path: Path) -> bytes:
    """What a file holds. ValueError for a pipe or a device, which might never end."""
    if not path.is_file():
        raise UserError(f"{path} is no file")
    return path.read_bytes()
