"""Which files of a run's folder octoscale wrote, so that --overwrite deletes no other.

The header, run.json, says that a run is ours; all else that we put there is known by its name, and the folders that
transformers writes as a whole list their files (system/manifest.py). A run with a stranger in it is never emptied: the
refusal names the file.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from octoscale.runs.cells import NAMES
from octoscale.system.lock import LOCK
from octoscale.system.manifest import first_stranger, kind_of
from octoscale.system.whole_file import write_json

HEADER = "run.json"

#: The key, and its value, by which a header of ours is known.
MARK: dict[str, Any] = {"octoscale_run": 1}

#: The kind of the manifests in folders that a training writes.
TRAINED = "training"

#: What every header of an older version holds, which had no mark.
_OLD_FIELDS = {"command", "started", "versions", "backend", "reason", "device", "threads", "seed"}

#: Folder of a run -> what our files there are called. `scales` are those of scales.py, `cells` those of cells.py,
#: `figures` those of report/, `tensorboard` is what Trainer's callback writes.
_FILES = {
    "": r"run\.json|metrics\.jsonl|notes\.jsonl|summary\.json|report\.html|advice\.(json|md)|recipe\.toml|"
    r"parity\.json",
    "scales": r"part-\d+\.parquet",
    "items": r"[A-Za-z0-9,=+_-]+\.[A-Za-z0-9,=+_-]+\.jsonl",
    "cells": NAMES,
    **dict.fromkeys(
        ("figures", "figures/paper", "figures/slides"),
        r"(perplexity|advice|parity(_layers|_lengths)?|scale_bias(_steps)?|bias_map|clipping|loss(es)?|exponents-[A-Za-z0-9.=_-]+)"
        r"\.(png|svg|pdf)",
    ),
    "tensorboard": r"events\.out\.tfevents\..+",
    "checkpoints": r"(?!)",
}

#: Folder of a run -> what the folders there are called that transformers writes as a whole.
_WHOLE = {"": r"model", "checkpoints": r"checkpoint-\d+"}

#: What an older version's training saved, without a list.
_OLD_TRAINED = (
    r"(adapter_)?model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|(adapter_|generation_)?config\.json|"
    r"training_args\.bin|(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth|trainer_state\.json|fp8\.json|README\.md"
)


def is_leftover(path: Path) -> bool:
    """Whether this is a lock, or a killed process left it behind while it wrote something else."""
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def check_own(run: Path) -> None:
    """FileExistsError unless octoscale wrote all that the folder of a run holds."""
    if not _is_own_header(run / HEADER):
        raise FileExistsError(f"{run / HEADER} was not written by octoscale: choose another folder")
    stranger = _stranger(run, "")
    if stranger is not None:
        raise FileExistsError(f"{run} holds {stranger}, which octoscale did not write: move it, or choose another")


def empty(run: Path) -> None:
    """Delete all of a run that has passed `check_own`, but its lock, and a header that says that it is ours.

    Should this be cut short, the folder is no mixture of two runs, and can be emptied again.
    """
    write_json(run / HEADER, MARK)
    for path in run.iterdir():
        if path.name in (HEADER, LOCK):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_own_header(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(content, dict):
        return False
    versions = content.get("versions")
    is_old = content.keys() >= _OLD_FIELDS and isinstance(versions, dict) and "octoscale" in versions
    return is_old or content.items() >= MARK.items()


def _stranger(run: Path, folder: str) -> str | None:
    """The first file, below a folder of the run, that is not ours: a link is never."""
    files, whole = _FILES[folder], _WHOLE.get(folder, r"(?!)")
    for path in sorted((run / folder).iterdir()):
        name = path.relative_to(run).as_posix()
        if path.is_symlink():
            return name
        if not path.is_dir():
            if re.fullmatch(rf"{files}|\.({files})\.\d+\.tmp|{re.escape(LOCK)}", path.name) is None:
                return name
        elif re.fullmatch(whole, path.name):
            if (inner := _stranger_in_trained(path)) is not None:
                return f"{name}/{inner}"
        elif name in _FILES:
            if (found := _stranger(run, name)) is not None:
                return found
        elif re.fullmatch(rf"\.({whole})(\.old)?\.tmp", path.name) is None:
            return name
    return None


def _stranger_in_trained(folder: Path) -> str | None:
    if kind_of(folder) == TRAINED:
        return first_stranger(folder)
    names = sorted(path.name for path in folder.iterdir())
    return next((name for name in names if re.fullmatch(_OLD_TRAINED, name) is None), None)
