"""Go on with a training that was stopped, or killed, at any moment.

A run is as far as its newest checkpoint. What it recorded after that is taken back, so that the steps which are done
again are recorded once; the same machine, threads and seed give the same bits as a run that was never stopped.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octoscale.checkpoints.folder import read_object
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import drop_scales
from octoscale.system.checksums import check_checksums
from octoscale.system.errors import UserError
from octoscale.system.ranks import rank
from octoscale.training.settings import Training
from octoscale.training.trainer import FP8_STATE, MESH, SECONDS, checkpoint_step, fp8_state_of, newest_checkpoint

#: What may differ from the run that is resumed: how long it goes on, and what is written about it.
FREE_FIELDS = ("steps", "save_every", "report_to", "histograms_of", "parallel")


def settings_to_json(settings: Training) -> dict[str, Any]:
    """Settings as run.json holds it."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=str))
    return content


def check_same_settings(run: RunFolder, settings: Training) -> None:
    """ValueError, naming the field, if the run has other settings, or no training."""
    header = run.read_json(run.header)
    if not isinstance(header.get("plan"), dict) or "learning_rate" not in header["plan"]:
        raise UserError(f"{run.path} is no training that octoscale train began: it cannot be resumed")
    for name, value in settings_to_json(settings).items():
        before = header["plan"].get(name, getattr(Training, name, None))  # a run of an older version lacks newer fields
        if name not in FREE_FIELDS and value != before:
            raise UserError(f"{run.path} was trained with {name} {before}, not {value}: resume it with the same")


def is_finished(run: RunFolder, settings: Training) -> bool:
    """Whether the run has its summary, after at least the steps of the settings."""
    steps = run.read_json(run.summary).get("steps") if run.summary.exists() else 0
    if type(steps) is not int:
        raise UserError(f"{run.summary} is damaged: steps is {steps!r}; delete it to go on from the last checkpoint")
    return steps >= settings.steps


def take_back(run: RunFolder) -> Path | None:
    """Undo what was recorded after the newest checkpoint, and return that; None, and nothing done, without one.

    ValueError, and nothing done, if it is damaged.
    """
    for left in run.checkpoints.glob(".checkpoint-*.tmp"):  # of a process that was killed while it wrote
        shutil.rmtree(left)
    checkpoint = newest_checkpoint(run.checkpoints)
    if checkpoint is not None:
        check_checksums(checkpoint)
        step = checkpoint_step(checkpoint)
        run.keep_lines(run.metrics, lambda row: _is_before(row, step))
        run.keep_lines(run.notes, lambda note: _is_of_before(note, step))
        drop_scales(run.path, step)
    return checkpoint


def _is_before(row: dict[str, Any], step: int) -> bool:
    """Whether a measurement comes before a checkpoint: no total of a training, no validation at its end."""
    done = row.get("step", 0)
    if type(done) is not int:  # damaged
        return False
    is_of_an_end = "train_runtime" in row or ("eval_loss" in row and done > 0)
    return done <= step and not is_of_an_end


def _is_of_before(note: dict[str, Any], step: int) -> bool:
    """Whether a note is of a step before a checkpoint, or of none. Notes count steps from 0, measurements from 1."""
    noted = note.get("step", -1)
    return type(noted) is int and noted < step


def read_seconds(checkpoint: Path) -> float:
    """The seconds that the training took until a checkpoint; 0 for one of an older version."""
    path = checkpoint / SECONDS
    return float(read_object(path)["seconds"]) if path.exists() else 0.0


def read_state(checkpoint: Path, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The FP8 state in a checkpoint, this rank's own if a mesh of these sizes wrote it. ValueError if it holds none."""
    mesh = checkpoint / MESH
    is_own = bool(sizes) and mesh.is_file() and read_object(mesh) == sizes
    path = checkpoint / (fp8_state_of(rank()) if is_own else FP8_STATE)
    if not path.exists():
        raise UserError(f"{checkpoint} holds no {FP8_STATE}: octoscale train did not write it")
    return read_object(path)
