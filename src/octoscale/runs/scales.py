"""What every cast did to its tensor, written down: one row a tensor a step, in parquet parts that survive a crash.

    with octoscale.record(model, "runs/mine", every=100) as recorder:
        ...                                                 # a forward pass of the model is a step

Rows wait in memory and go to disk every few seconds, each time as a new part, renamed into place when it is whole: a
process killed at any moment leaves all its parts readable. An accelerator's tensors are read only then, so that
recording does not make it wait; a CPU's at once, for small tensors kept alive between large ones scatter the heap.
`every` thins out the histograms of exponents, not the rows.
"""

import platform
import sys
import threading
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch

from octoscale.kernels import table
from octoscale.kernels.ops import Quantized
from octoscale.numerics.formats import Role
from octoscale.numerics.granularity import TENSOR
from octoscale.numerics.scaling import MAX_SCALE_BIAS, MIN_SCALE_BIAS
from octoscale.runs.folder import RunFolder
from octoscale.runs.notes import Notes
from octoscale.runs.parts import (
    GRANULARITY,
    RANK,
    DamagedPartError,
    list_parts,
    read_part,
    readable_parts,
    replace_part,
    write_part,
)
from octoscale.system.errors import UserError
from octoscale.system.machine import cpu_name

#: The columns of `scales/*.parquet`. `layer` is null outside a stack of layers. `exponents` is null between the steps
#: that record it; else it counts the values before scaling by float32's exponent field (kernels/base.py). `rank`:
#: which of several processes wrote it; 0 if there was one. `granularity`: over which values a scale reaches. Where
#: there are several scales, `num_scales` of them, `scale_bias` is the lowest, that of the group that holds amax, and
#: `scale_bias_high` the highest; groups of zeros, or with infinity or NaN, are left out of both. `num_scales` and
#: `scale_bias_high` are null where one scale serves the tensor. What backward casts again, for the other direction of
#: a sum, has no row.
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "step": pl.Int64,
    "phase": pl.String,
    "scaling": pl.String,
    "module": pl.String,
    "layer": pl.Int32,
    "kind": pl.String,
    "role": pl.String,
    "format": pl.String,
    "scale_bias": pl.Int32,
    "amax": pl.Float32,
    "numel": pl.Int64,
    "saturated": pl.Int64,
    "flushed": pl.Int64,
    "nonfinite": pl.Int64,
    "exponents": pl.List(pl.UInt32),
    RANK: pl.Int32,
    GRANULARITY: pl.String,
    "scale_bias_high": pl.Int32,
    "num_scales": pl.Int64,
}

_MAX_WAITING_ROWS = 20_000


@dataclass(frozen=True, kw_only=True)
class LayerName:
    """Who a row is about: the module's full name, its index in the stack of layers (or None), its kind."""

    module: str
    layer: int | None
    kind: str


class Recorder:
    """Collects rows and writes them as parquet parts below `folder`/scales.

    `step` counts forward passes of the recorded model from 0; whoever drives a training may set it before each pass.
    `last_step` is that of the last pass. A gradient belongs to the step of its forward; what a reentrant checkpoint
    recomputes, to the last one. Exponents are wanted on each `every`-th step; every=0: never. only_training: casts of
    inference (eval mode, no gradients) are left out. `notes` is for what is no cast. One process records to a folder;
    several recorders and threads of that process may, and the other ranks of a training, each to its own parts; notes
    are the first rank's.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        every: int = 1,
        phase: str = "",
        scaling: str = "",
        flush_seconds: float = 5.0,
        only_training: bool = False,
        rank: int = 0,
    ) -> None:
        if every < 0:
            raise UserError(f"every={every}: histograms are recorded every N steps, N >= 1, or never, 0")
        self.step = self.last_step = 0
        self.only_training = only_training
        self._every, self._phase, self._scaling, self._rank = every, phase, scaling, rank
        self.notes = Notes(RunFolder(folder), phase=phase, scaling=scaling)
        self._scales = RunFolder(folder).scales
        self._scales.mkdir(parents=True, exist_ok=True)
        self._flush_seconds, self._last_flush = flush_seconds, time.monotonic()
        self._rows: list[_Row] = []
        self._latest: list[_Row] = []
        self._lock = threading.RLock()

    def next_step(self) -> None:
        """A forward pass has ended."""
        with self._lock:
            self.last_step = self.step
            self.step += 1

    def wants_exponents(self, step: int) -> bool:
        """Whether the rows of a step get histograms."""
        return self._every > 0 and step % self._every == 0

    def add(self, name: LayerName, role: Role, cast: Quantized, step: int | None = None) -> None:
        """Note one cast, of the current step if none is given. It must have been made with counts."""
        step = self.step if step is None else step
        seen = cast.observed
        if seen is None or seen.saturated is None:
            raise UserError(f"{name.module}: a cast without counts cannot be recorded; quantize with counts=True")
        low, band = (cast.scale_bias, None) if cast.granularity is TENSOR else _band_of(cast)
        numbers = (low, seen.amax, seen.saturated, seen.flushed, seen.nonfinite)
        exponents = seen.exponents if self.wants_exponents(step) else None
        row = _Row(step, name, role, cast.format.name, cast.codes.numel(), numbers, exponents, band)
        if cast.codes.is_cpu:
            row = row.read()
        with self._lock:
            self._rows.append(row)
            if self._latest and self._latest[0].step != step:
                self._latest = []
            self._latest.append(row)
            if len(self._rows) >= _MAX_WAITING_ROWS or time.monotonic() - self._last_flush > self._flush_seconds:
                self.flush()

    def flush(self) -> None:
        """Write the waiting rows as one part. OSError if the disk is full; the rows then stay."""
        with self._lock:
            if self._rows:
                write_part(self._scales, self._table(), self._rank)
                self._rows.clear()
            if self._rank == 0:
                self.notes.flush()
            self._last_flush = time.monotonic()

    def scalars(self) -> dict[str, float]:
        """Of the last step that has rows, for a tracker: by role and kind the mean scale_bias, and the clipped shares.

        Names as `scale_bias/input/ffn_out`; `saturated` and `flushed` in % of the values.
        """
        groups: dict[str, list[_Row]] = {}
        with self._lock:
            latest = [row.read() for row in self._latest]
        for row in latest:
            groups.setdefault(f"{row.role}/{row.name.kind}", []).append(row)
        found: dict[str, float] = {}
        for name, rows in groups.items():
            count = sum(row.numel for row in rows) or 1
            biases, _, *clipped = (sum(numbers) for numbers in zip(*(row.numbers for row in rows), strict=True))
            found[f"scale_bias/{name}"] = biases / len(rows)
            for what, sum_of_rows in zip(("saturated", "flushed"), clipped, strict=False):
                found[f"{what}/{name}"] = 100 * sum_of_rows / count
        return found

    def exponents(self) -> dict[tuple[str, str], list[int]]:
        """Of the last step that has rows: (module, role) -> counts by exponent, summed over micro-batches.

        Empty between the steps that record histograms. The bins are those of kernels/base.py.
        """
        with self._lock:
            latest = [row.read() for row in self._latest if row.exponents is not None]
        found: dict[tuple[str, str], list[int]] = {}
        for row in latest:
            before = found.get((row.name.module, row.role), [0] * len(row.exponents))
            found[row.name.module, row.role] = [a + b for a, b in zip(before, row.exponents, strict=True)]
        return found

    def _table(self) -> pl.DataFrame:
        """The waiting rows in the columns of `SCHEMA`."""
        rows = [row.read() for row in self._rows]
        numbers = zip(*(row.numbers for row in rows), strict=True)
        columns: dict[str, Any] = {
            "step": [row.step for row in rows],
            "module": [row.name.module for row in rows],
            "layer": [row.name.layer for row in rows],
            "kind": [row.name.kind for row in rows],
            "role": [row.role for row in rows],
            "format": [row.format for row in rows],
            "numel": [row.numel for row in rows],
            **dict(zip(_NUMBERS, numbers, strict=True)),
            "exponents": [row.exponents for row in rows],
            GRANULARITY: [TENSOR.name if row.band is None else row.band.granularity for row in rows],
            "scale_bias_high": [None if row.band is None else row.band.high for row in rows],
            "num_scales": [None if row.band is None else row.band.num_scales for row in rows],
        }
        always = {"phase": self._phase, "scaling": self._scaling, RANK: self._rank}
        return pl.DataFrame({key: columns.get(key, [always.get(key)] * len(rows)) for key in SCHEMA}, schema=SCHEMA)


#: The columns that a cast leaves as tensors, in the order of `_Row.numbers`.
_NUMBERS = ("scale_bias", "amax", "saturated", "flushed", "nonfinite")


class _Band(NamedTuple):
    """What a row says of several scales. high: a tensor, or what it holds."""

    granularity: str
    high: Any
    num_scales: int


def _band_of(cast: Quantized) -> tuple[torch.Tensor, _Band]:
    """The lowest scale_bias, and the rest; of the groups that have a scale of their own."""
    assert cast.observed is not None
    assert cast.observed.amaxes is not None
    amaxes, biases = cast.observed.amaxes, cast.scale_bias
    low = high = biases.new_zeros(())
    if biases.numel():
        own = amaxes.isfinite() & (amaxes > 0)
        low = torch.where(own, biases, MAX_SCALE_BIAS + 1).amin()
        high = torch.where(own, biases, MIN_SCALE_BIAS - 1).amax()
        low, high = (torch.where(own.any(), number, 0) for number in (low, high))
    return low, _Band(cast.granularity.name, high, biases.numel())


class _Row(NamedTuple):
    """What waits for the disk; made for each cast of each step, so it is small. numbers: tensors, or what they hold."""

    step: int
    name: LayerName
    role: Role
    format: str
    numel: int
    numbers: tuple[Any, ...]
    exponents: Any
    band: _Band | None

    def read(self) -> "_Row":
        """The row with numbers instead of tensors; an accelerator is waited for."""
        if not isinstance(self.numbers[0], torch.Tensor):
            return self
        exponents = None if self.exponents is None else self.exponents.tolist()
        band = None if self.band is None else self.band._replace(high=self.band.high.item())
        return _Row(*self[:5], tuple([number.item() for number in self.numbers]), exponents, band)


def read_scales(folder: Path | str) -> pl.DataFrame:
    """All rows of a run, in the order in which they were written. FileNotFoundError if it recorded none.

    DamagedPartError, a ValueError, if some of them are lost: `read_readable_scales` has the others.
    """
    rows, damaged = read_readable_scales(folder)
    if damaged:
        raise damaged[0]
    return rows


def read_readable_scales(
    folder: Path | str, *, follow_links: bool = True
) -> tuple[pl.DataFrame, list[DamagedPartError]]:
    """The rows of a run whose parts can be read, and what is wrong with the others. FileNotFoundError without parts.

    follow_links: also those that lead out of the run's folder.
    """
    run = RunFolder(folder)
    tables, damaged = readable_parts(run.scales, SCHEMA, None if follow_links else run.path)
    if not tables and not damaged:
        raise FileNotFoundError(f"{folder} holds no scales: nothing was recorded there")
    return pl.concat([pl.DataFrame(schema=SCHEMA), *tables]), damaged


def drop_scales(folder: Path | str, step: int) -> None:
    """Forget the rows from `step` on: a training goes on from there, and will record them again."""
    keep_scales(folder, pl.col("step") < step)


def keep_scales(folder: Path | str, wanted: pl.Expr) -> None:
    """Forget all rows but the wanted ones. DamagedPartError if some cannot be read."""
    for part in list_parts(RunFolder(folder).scales):
        rows = read_part(part, SCHEMA)
        kept = rows.filter(wanted)
        if kept.is_empty():
            part.unlink()
        elif kept.height < rows.height:
            replace_part(part, kept)


def run_header(device: torch.device, **more: Any) -> dict[str, Any]:
    """What run.json says of every run: command, versions, backend and its reason; then `more`."""
    choice = table.choose(device.type)
    return {
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {name: version(name) for name in ("octoscale", "transformers")}
        | {"torch": str(torch.__version__), "python": platform.python_version()},  # torch's says which build it is
        "backend": choice.name,
        "reason": choice.reason,
        "device": str(device),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "seed": torch.initial_seed(),
        **more,
    }
