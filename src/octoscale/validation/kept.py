"""Scores that are kept as soon as they are measured, so that a command which was killed goes on where it was.

    run, cells = begin_or_go_on(folder, header, identity_of(plan, parts, header), overwrite=False, go_on=True)
    kept = KeptScores(parts, run, cells, head=head)
    kept.score("cscale:-1")          from its cell, or measured now, recorded and kept

A score depends on what `identity_of` holds, and on its scaling; its cell is named by that. What a stopped command had
recorded of a scaling whose cell is missing is taken back first, so that each is recorded once.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from octoscale.models.fingerprint import fingerprint
from octoscale.numerics.recipe import Recipe
from octoscale.runs.cells import Cells, check_words
from octoscale.runs.files import MARK, is_leftover
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import keep_scales, read_scales
from octoscale.system.errors import UserError
from octoscale.system.whole_file import write_json
from octoscale.validation.one_scaling import Context, Progress, score_one
from octoscale.validation.run import Parts
from octoscale.validation.scores import Score, bias_of, score_from_json, score_to_json, summarize


class KeptScores:
    """The scores of a run; its summary holds them after each."""

    def __init__(
        self,
        parts: Parts,
        run: RunFolder,
        cells: Cells,
        *,
        head: Mapping[str, Any],
        every: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self._parts, self._run, self._cells, self._head = parts, run, cells, head
        self._every, self._progress = every, progress
        self._scalings = {s.name if isinstance(s, Recipe) else s: s for s in parts.scalings}
        self._scores: dict[str, Score] = {}

    @property
    def scores(self) -> list[Score]:
        """What was asked for until now, constants last and by their bias, whenever each was asked for."""
        return sorted(self._scores.values(), key=_place)

    def __contains__(self, scaling: str) -> bool:
        """Whether a score was asked for."""
        return scaling in self._scores

    def score(self, scaling: str) -> Score:
        """The score of one of the parts' scalings, by its name. Histograms are recorded of amax alone."""
        if scaling not in self._scores:
            content = self._cells.get_or_make(scaling, lambda: score_to_json(self._measure(scaling)))
            self._scores[scaling] = score_from_json(content)
            self.write_summary()
        return self._scores[scaling]

    def write_summary(self, **more: Any) -> None:
        """Write what was asked for until now, and `more`."""
        write_json(self._run.summary, {**self._head, **summarize(self.scores), **more})

    def _measure(self, scaling: str) -> Score:
        context = Context(
            windows=self._parts.windows,
            tasks=self._parts.tasks,
            run=self._run,
            every=self._every if scaling == "amax" else 0,
            progress=self._progress,
        )
        return score_one(self._parts.loaded.model, self._scalings[scaling], context)


def _place(score: Score) -> tuple[bool, int]:
    bias = bias_of(score.scaling)
    return bias is not None, bias or 0


def identity_of(plan: Mapping[str, Any], parts: Parts, header: Mapping[str, Any]) -> dict[str, Any]:
    """What each score depends on but its scaling: the words of `plan`, the weights, the text, and the machine."""
    return {
        **plan,
        "fingerprint": fingerprint(parts.loaded.model),
        "text_crc32": None if parts.windows is None else text_crc32(parts.windows),
        "asked": None if parts.tasks is None else parts.tasks.identity,
        **machine_of(header),
    }


def text_crc32(windows: Tensor) -> str:
    """Which tokens a text is: eight hexadecimal digits."""
    return f"{zlib.crc32(windows.numpy().tobytes()):08x}"


def machine_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the last bits of a result depend on: the versions, and what computes."""
    return {**header["versions"], **{name: header[name] for name in ("cpu", "backend", "reason", "threads", "device")}}


def begin_or_go_on(
    folder: Path, header: Mapping[str, Any], identity: Mapping[str, Any], *, overwrite: bool, go_on: bool
) -> tuple[RunFolder, Cells]:
    """A new run, or with `go_on` the one that a stopped command left there, if any, as far as its cells are.

    FileExistsError as `RunFolder.create`; UserError for a run without cells, or with others (see `Cells`).
    """
    run = RunFolder(folder)
    is_begun = go_on and run.is_begun
    if is_begun and not run.cells.is_dir():
        _check_empty(run)
    if not (is_begun and run.cells.is_dir()):
        run = RunFolder.create(folder, dict(header), overwrite=overwrite or is_begun)
        return run, Cells(run.cells, identity)
    cells = Cells(run.cells, identity)
    _take_back(run, cells)
    write_json(run.header, {**MARK, **header})
    return run, cells


def check_place(folder: Path, words: Mapping[str, Any], *, overwrite: bool, go_on: bool) -> None:
    """Whatever `begin_or_go_on` raises, as far as it can be known before a model is read. words: of the identity."""
    run = RunFolder(folder)
    if not (go_on and run.is_begun):
        run.check_free(overwrite=overwrite)
    elif run.cells.is_dir():
        check_words(run.cells, words)
    else:
        _check_empty(run)


def _check_empty(run: RunFolder) -> None:
    """UserError if a run without cells holds more than its header: what another command wrote is not to be replaced."""
    if any(path.is_file() and path != run.header and not is_leftover(path) for path in run.path.rglob("*")):
        raise UserError(f"{run.path} holds a run without results to go on from: choose another folder, or --overwrite")


def _take_back(run: RunFolder, cells: Cells) -> None:
    """Forget what was recorded of scalings whose score was not kept."""
    recorded = {str(row.get("scaling")) for row in run.read_metrics()}
    if any(run.scales.glob("part-*.parquet")):
        recorded |= set(read_scales(run.path)["scaling"].unique())
    kept = sorted(scaling for scaling in recorded if cells.get(scaling) is not None)
    keep_scales(run.path, pl.col("scaling").is_in(kept))
    for lines in (run.metrics, run.notes):
        run.keep_lines(lines, lambda row: row.get("scaling") in kept)
