"""A run's folder, read part by part, and again when it has grown: each part of its records is summed once.

    reader = RunReader.open("runs/mine")
    reader.refresh()                      True if anything is new
    reader.to_json("mine", 1)

What a run is rewritten from (a resumed training drops rows, --overwrite begins anew) is seen by its parts: if one that
was read is gone or other, all are read again.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from octoscale.report.contents import RunContents, possible, read_results
from octoscale.report.diagnosis.finding import Finding
from octoscale.report.diagnosis.rules import examine
from octoscale.report.page.cells import MOST_CELLS
from octoscale.report.page.columns import pack
from octoscale.report.page.findings import found, with_diagnosis
from octoscale.report.page.results import facts, tables, words
from octoscale.report.page.scales import Scales
from octoscale.report.page.series import series
from octoscale.report.page.state import state_of
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import DamagedPartError, list_parts, read_part
from octoscale.runs.scales import SCHEMA
from octoscale.system.errors import UserError
from octoscale.system.inside import only_inside

#: Bytes of the data of a page, all its runs together: with script and style, it is smaller than 3 MB.
MOST_OF_DATA = 2_800_000

#: Bytes of the static figures of a page, all together: those of a run that fit are shown in it.
MOST_OF_FIGURES = 400_000

#: Rows of a run that is diagnosed for its page: a second's work. Of a longer one the page says which command does it.
MOST_DIAGNOSED = 200_000

#: Bytes of a name: a page wraps it, where a picture has no room.
LONGEST_NAME = 100_000

_BATCH = 16_000_000  # bytes of rows in memory at a time
_Stamp = tuple[int, int]


class RunReader:
    """What the page shows of one run, kept up to date."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._run = RunFolder(self.path)
        self._contents: RunContents | None = None
        self._seen: dict[Path, _Stamp] = {}
        self._diagnosis: list[Finding] | None = None
        self._is_new = False
        self._links: list[str] = []
        self._most_cells: int = MOST_CELLS
        self._forget()

    @classmethod
    def open(cls, path: Path | str) -> "RunReader":
        """A reader of an existing run. FileNotFoundError if the folder holds none."""
        return cls(RunFolder.open(path).path)

    def refresh(self) -> bool:
        """Read what is new in the folder; whether anything is, since this was last answered.

        What raises an error between two files is read again, and what was read before it is still news.
        """
        before = self._links
        self._links = [line for _, lines in (self._parts_there(), self._figures_there()) for line in lines]
        if self._read_parts() or self._links != before:
            self._diagnosis, self._is_new = None, True
        stamps = {path: stamp for path in self._small_files() if (stamp := _stamp(path)) is not None}
        if self._contents is None or stamps != self._seen:
            examined = _examined(self._contents)
            self._contents = read_results(self.path)
            self._seen, self._is_new = stamps, True
            if _examined(self._contents) != examined:
                self._diagnosis = None
        is_new, self._is_new = self._is_new, False
        return is_new

    def to_json(self, label: str, num_runs: int) -> dict[str, Any]:
        """All that the page shows of the run. num_runs: that share the page."""
        if self._contents is None:
            self.refresh()
        contents = self._contents
        assert contents is not None
        shown = {
            "label": label,
            "state": self.state(),
            "facts": facts(contents),
            "tables": tables(contents),
            "words": words(contents),
            "damaged": [*contents.damaged, *self._links, *self._damaged.values(), *self._lost_rows()],
            "findings": with_diagnosis(found(self._scales.cells), self._diagnosed()),
            "series": series(contents),
            "figures": list(_pictures(self._figures_there()[0], MOST_OF_FIGURES // num_runs)),
        }
        room = MOST_OF_DATA // num_runs - len(json.dumps(shown))
        return shown | {"scales": self._scales_for(room, MOST_CELLS // num_runs)}

    def _scales_for(self, room: int, most_cells: int) -> dict[str, Any]:
        """The scales in so few cells that they fit into some bytes of JSON, as far as wider bins make them fewer.

        How many that are depends on how well they deflate. What did not fit once is not tried again.
        """
        self._most_cells = min(self._most_cells, most_cells)
        while True:
            narrowed = self._scales.narrowed(self._most_cells)
            shown = narrowed.to_json()
            bins = len(shown["cells"]["bins"])
            if bins <= 1 or len(json.dumps(shown)) <= room:
                return shown
            self._most_cells = narrowed.cells.tensors.height * -(-bins // 2)

    def state(self) -> dict[str, str]:
        """Whether the run goes on, as a name and in words."""
        return state_of(self._run, self._contents)

    @property
    def last_step(self) -> int:
        """The last step that has records; -1 without any."""
        return self._scales.cells.last_step

    def _forget(self) -> None:
        self._scales, self._impossible, self._num_rows = Scales(), 0, 0
        self._most_cells = MOST_CELLS
        self._parts: dict[Path, _Stamp] = {}
        self._damaged: dict[Path, str] = {}

    def _read_parts(self) -> bool:
        """Add the parts that are new; all again if one that was read is gone or other."""
        now = {path: stamp for path in self._parts_there()[0] if (stamp := _stamp(path)) is not None}
        if any(now.get(path) != stamp for path, stamp in self._parts.items()):
            self._forget()
        new = [path for path in now if path not in self._parts]
        try:
            self._add(new)
        except BaseException:
            self._forget()  # else the rows that were added before it would be added again
            raise
        self._parts |= {path: now[path] for path in new}
        return bool(new)

    def _add(self, parts: Sequence[Path]) -> None:
        """Sum the rows of some parts into the cells."""
        for rows in self._batches(parts):
            kept = rows.filter(possible(LONGEST_NAME))
            self._impossible += rows.height - kept.height
            self._num_rows += kept.height
            self._scales.add(kept)

    def _batches(self, parts: Sequence[Path]) -> Iterator[pl.DataFrame]:
        """The rows of some parts, a few together: small ones are summed as fast as large ones."""
        waiting: list[pl.DataFrame] = []
        for path in parts:
            try:
                waiting.append(read_part(path, SCHEMA))
            except DamagedPartError as error:
                self._damaged[path] = str(error)
            if sum(rows.estimated_size() for rows in waiting) > _BATCH:
                yield pl.concat(waiting)
                waiting = []
        if waiting:
            yield pl.concat(waiting)

    def _diagnosed(self) -> list[Finding] | None:
        """What is wrong with the run, as `octoscale diagnose` finds it; None for one that is too long."""
        if self._num_rows > MOST_DIAGNOSED:
            return None
        if self._diagnosis is None:
            with suppress(UserError, FileNotFoundError):  # nothing of it can be read: the page says what is damaged
                self._diagnosis = examine(self.path).findings
        return self._diagnosis or []

    def _lost_rows(self) -> list[str]:
        rows = self._impossible
        return [f"{self._run.scales}: {rows:,} rows hold what no cast can see"] if rows else []

    def _parts_there(self) -> tuple[list[Path], list[str]]:
        return only_inside(list_parts(self._run.scales), self.path)

    def _figures_there(self) -> tuple[list[Path], list[str]]:
        figures = self._run.figures
        return only_inside(sorted(figures.glob("*.svg")) if figures.is_dir() else [], self.path)

    def _small_files(self) -> list[Path]:
        run = self._run
        return [run.header, run.metrics, run.notes, run.summary, run.advice, run.parity, *self._figures_there()[0]]


def _examined(contents: RunContents | None) -> Any:
    """What of a run, beside its scales, the rules of diagnosis judge: of its measurements, those that are unusual."""
    if contents is None:
        return None
    unusual = [row for row in contents.metrics if row.get("skipped") or row.get("loss", 0) is None]
    scales = [row["loss_scale"] for row in contents.metrics if "loss_scale" in row]
    return contents.header, contents.summary, contents.notes, contents.damaged, unusual, scales[-1:]


def _stamp(path: Path) -> _Stamp | None:
    """What changes when a file does; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _pictures(figures: Sequence[Path], most: int) -> Iterator[dict[str, Any]]:
    """The figures of a run, deflated, the small ones first, as many as there is room for."""
    found = []
    for path in figures:
        try:
            if path.is_file() and path.stat().st_size < 100 * most:
                found.append((path.stem, pack(np.frombuffer(path.read_bytes(), dtype=np.uint8), "u8")))
        except OSError:  # noqa: PERF203  it is being drawn anew
            continue
    for name, data in sorted(found, key=lambda each: len(each[1]["data"])):
        most -= len(data["data"])
        if most >= 0:
            yield {"name": name, "type": "image/svg+xml", "data": data}
