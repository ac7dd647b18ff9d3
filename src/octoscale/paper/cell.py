"""A cell is one measurement: a model that is trained, or asked a task, or reads a text, under one scaling.

    trained = training(settings, "gpt-10m", task, "bf16", seed=0)
    asked = asking(settings, "gpt-10m", task, "amax", of=trained)

Its words are those of the command that would do the same, `octoscale train` or `octoscale validate`. Its name ends with
a hash of them, of the files that it reads, and of the cell whose model it asks: with any other word, or another byte in
a file, it is another cell. Where the files lie is no part of that.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from octoscale.models.package_index import ALIASES
from octoscale.models.sizes import SIZES
from octoscale.paper.numbers import EPOCHS
from octoscale.paper.settings import QUICK, Reproduction
from octoscale.paper.tasks import Task, data_file, training_data, training_size
from octoscale.system.checksums import crc_of
from octoscale.training.resume import FREE_FIELDS
from octoscale.training.settings import PAPER_BATCH, Training, paper_preset
from octoscale.validation.settings import Validation

#: Steps between the checkpoints from which a training goes on that was killed.
SAVE_EVERY = 100

#: What says where files lie, and nothing of what is measured.
_PLACES = ("include", "task")

#: Words that older cells do not have: where one says no, the cell is the same.
_LATER = ("autocast",)
#: What the scalings of a validation say already.
_SAID = ("accumulate",)

#: How files of a checkpoint end that change what a model says: its weights and config, its tokenizer.
_OF_A_MODEL = (".json", ".safetensors", ".model", ".txt")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is measured. label: for a reader. beside: what it depends on beside its words."""

    words: Validation | Training
    label: str
    beside: Mapping[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """All that its result depends on, but for the machine and the versions."""
        of_command = FREE_FIELDS[1:] if isinstance(self.words, Training) else _SAID
        words: dict[str, Any] = json.loads(json.dumps(asdict(self.words), default=str))
        later = [name for name in _LATER if words.get(name) is False]
        free = {*_PLACES, *of_command, *later}
        return {name: value for name, value in words.items() if name not in free} | dict(self.beside)

    @property
    def name(self) -> str:
        """The name of its folder."""
        readable = re.sub(r"[^a-z0-9.=+-]+", "-", self.label.lower().replace(":", "=")).strip("-.")[:60]
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        return f"{readable}-{digest}"


def asking(
    settings: Reproduction,
    model: str,
    task: Task,
    scaling: str,
    *,
    of: Cell | None = None,
    place: Path | None = None,
    as_trained: bool = False,
) -> Cell:
    """A task, asked of a model, or of the classifier that a cell trained, which lies at `place`.

    as_trained: with the float32 parameters of the training, and its autocast; else rounded to high precision before.
    """
    words = Validation(
        model=model if place is None else str(place),
        scalings=(settings.summed(scaling),),
        tasks=task.name,
        include=settings.include,
        limit=settings.limit,
        num_fewshot=task.shots if not task.has_classes else None,
        batch_size=settings.batch_size,
        dtype=settings.high,
        formats=settings.codes,
        every=0,
        autocast=as_trained and settings.high != "fp32",
    )
    file = data_file(task, settings.include)
    beside = {"task": task.name, "data": "of the hub" if file is None else f"{crc_of(file):08x}"}
    if not task.has_classes:
        beside["lm_eval"] = version("lm_eval")
    source = weights_of(model) if of is None else {"model": of.name}
    who = f"{last_part(model)} {task.name}" if of is None else of.label.removeprefix("train ")
    label = f"ask {who} {'as trained ' if as_trained else ''}{settings.summed(scaling)}"
    return Cell(words=words, label=label, beside=beside | source)


def reading(settings: Reproduction, model: str) -> Cell:
    """A text, read by a model under FP8-AMAX."""
    words = Validation(
        model=model,
        scalings=(settings.summed("amax"),),
        text=settings.text,
        tokens=settings.tokens,
        window=settings.window or Validation.window,
        dtype=settings.high,
        formats=settings.codes,
        every=0,
    )
    path = Path(settings.text)
    beside = {"text": f"{crc_of(path):08x}" if path.is_file() else settings.text}
    return Cell(words=words, label=f"read {last_part(model)} {words.scalings[0]}", beside=beside | weights_of(model))


def training(settings: Reproduction, model: str, task: Task, scaling: str, seed: int) -> Cell:
    """A fine-tuning for classes. scaling: `settings.high`, amax, or a constant."""
    source = training_data(task.name, settings.include)
    chosen: dict[str, Any] = {"batch": settings.batch, **QUICK, "dtype": settings.high, "formats": settings.codes}
    if settings.preset is not None:
        size = min(training_size(task.name, settings.include), settings.examples or math.inf)
        steps = EPOCHS * math.ceil(size / PAPER_BATCH)
        chosen |= {"steps": steps, **paper_preset(model, settings.batch)}
    given = {name: getattr(settings, name) for name in QUICK if getattr(settings, name) is not None}
    scaling_or_preset = chosen["scaling"] if scaling == "amax" and "scaling" in chosen else scaling
    chosen |= {**given, "scaling": settings.summed(scaling_or_preset)}
    words = Training(
        model=model, task=source, examples=settings.examples, seed=seed, every=0, save_every=SAVE_EVERY, **chosen
    )
    data = {"task": task.name, "data": "of the hub" if source == task.name else f"{crc_of(Path(source)):08x}"}
    return Cell(
        words=words,
        label=f"train {last_part(model)} {task.name} {settings.summed(scaling)} seed{seed}",
        beside=data | weights_of(model),
    )


@lru_cache
def weights_of(model: str) -> dict[str, str]:
    """The checksum of a local checkpoint's files; a name, of a size or of the hub, stands for itself."""
    path = Path(model)
    if model in SIZES or model in ALIASES or not path.exists():
        return {}
    if path.is_file():
        return {"model": path.name, "weights": f"{crc_of(path):08x}"}
    files = sorted(file for file in path.iterdir() if file.suffix in _OF_A_MODEL)
    crcs = "".join(f"{file.name} {crc_of(file):08x} " for file in files)
    return {"model": path.name, "weights": hashlib.sha256(crcs.encode()).hexdigest()[:16]}


def last_part(model: str) -> str:
    """The last part of a place or of a hub's id."""
    return model.rstrip("/").rpartition("/")[2]
