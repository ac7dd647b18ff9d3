"""Which tasks are asked, of which kind, and where their data are.

Classes, as sst2, mnli and qqp, are what a model is fine-tuned for. All other tasks are lm-eval's, and ask the model as
it is. The data of classes are the hub's, or files in the folder `include`:

    sst2-train.tsv     to fine-tune on       (or .jsonl; a header; columns: label, and one or two of text)
    sst2.tsv           to be asked           (the same)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octoscale.models.labels import HUB_TASKS, read_labeled
from octoscale.paper.numbers import TRAINING_EXAMPLES
from octoscale.paper.settings import ENDINGS, TRAINED, Reproduction, has_classes
from octoscale.system.errors import UserError
from octoscale.validation.tasks import expand

#: How files end that lm-eval's tasks read.
_OF_HARNESS = (".yaml", ".jsonl")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task by its name. shots: examples in its prompts, None for its own number; of lm-eval's alone."""

    name: str
    has_classes: bool
    shots: int | None = None


def tasks_of(target: str, settings: Reproduction) -> list[Task]:
    """The tasks of a table or figure: those that were named and that it can ask, or the paper's own."""
    group = "paper-llama" if target == "table4" else "paper-gpt"
    named = settings.task_names or [group]
    tasks = [
        Task(name=name, has_classes=has_classes(name, settings.include), shots=shots)
        for name, shots in expand(named).items()
    ]
    if target == "table4":
        return [task for task in tasks if not task.has_classes]
    return [task for task in tasks if task.has_classes or target not in TRAINED]


def training_data(name: str, include: Path | None) -> str:
    """What to fine-tune on for classes: the file in `include`, or the hub's name."""
    path = _file(f"{name}-train", include, ENDINGS)
    return name if path is None else str(path)


def training_size(name: str, include: Path | None) -> int:
    """How many examples there are to fine-tune on."""
    source = training_data(name, include)
    return TRAINING_EXAMPLES[name] if source in TRAINING_EXAMPLES else len(read_labeled(source).labels)


def data_file(task: Task, include: Path | None) -> Path | None:
    """The file in `include` that a task reads to be asked; None if it is the hub's."""
    return _file(task.name, include, ENDINGS if task.has_classes else _OF_HARNESS)


def check_data(task: Task, include: Path | None, *, to_train: bool) -> None:
    """UserError, with the file to put where, for data that cannot be had. to_train: those to fine-tune on, too."""
    if not task.has_classes:
        from octoscale.validation.harness import load_harness

        load_harness([task.name], include=include, limit=1)
        return
    path, classes = data_file(task, include), None
    if to_train:
        classes = _labels(training_data(task.name, include), f"{task.name}-train.tsv", None, validation=False)
    _labels(task.name if path is None else str(path), f"{task.name}.tsv", classes, validation=True)


def _labels(source: str, file: str, classes: tuple[str, ...] | None, *, validation: bool) -> tuple[str, ...]:
    """The classes of some labeled texts, which have no others than `classes`. UserError as `check_data`."""
    try:
        return read_labeled(source, classes=classes, validation=validation).classes
    except UserError as error:
        if source not in HUB_TASKS:
            raise
        raise UserError(
            f"{error}; without the hub, put the texts into a folder as {file} (a header; columns: label, and one or "
            "two of text), and name it with --include"
        ) from error


def _file(stem: str, include: Path | None, endings: Sequence[str]) -> Path | None:
    files = [] if include is None else [include / f"{stem}{ending}" for ending in endings]
    return next((path for path in files if path.is_file()), None)
