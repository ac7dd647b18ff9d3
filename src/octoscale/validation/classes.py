"""A task for classifiers: to which class does each text belong? The paper's MNLI, QQP and SST-2.

    task = read_classes("sst2", loaded, include="data")          data/sst2.tsv or .jsonl, else the hub's validation part
    (score,) = task.ask(loaded.model)

The classes are those of the classifier's config, as its training wrote them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.layers.state import NonFiniteError
from octoscale.models.classifier_ids import choose_filling, fill_up, make_reader
from octoscale.models.labels import HUB_TASKS, LabeledTexts, read_labeled
from octoscale.models.loading import LoadedModel
from octoscale.models.texts import check_ids, positions_of
from octoscale.system.errors import UserError
from octoscale.validation.tasks import OnBatch, TaskScore, crc32_of

#: How the files of labeled texts end.
ENDINGS = (".tsv", ".jsonl")

#: Tokens after which a text is cut off, for models whose positions have no end.
LONGEST = 4096


@dataclass(frozen=True, kw_only=True)
class ClassTasks:
    """Labeled texts by the task's name, each with what makes a batch of a classifier's input of some of them."""

    texts: dict[str, LabeledTexts]
    batch_of: Callable[[LabeledTexts, slice], dict[str, Tensor]]
    batch_size: int

    @property
    def size(self) -> int:
        """How many texts they are in all."""
        return sum(len(texts.labels) for texts in self.texts.values())

    @property
    def num_items(self) -> int:
        """The same."""
        return self.size

    @property
    def identity(self) -> dict[str, Any]:
        """The tasks, each with a checksum of its texts and classes."""
        whole = {name: [texts.parts, texts.labels, texts.classes] for name, texts in self.texts.items()}
        return {"batch_size": self.batch_size} | {name: f"{crc32_of(rows):08x}" for name, rows in whole.items()}

    @torch.no_grad()
    def ask(self, model: nn.Module, on_batch: OnBatch | None = None) -> Iterator[TaskScore]:
        """Of each task the share of texts whose largest logit is their class's.

        NonFiniteError, with the item, where no logit is the largest.
        """
        done = 0
        for name, texts in self.texts.items():
            predictions: list[int] = []
            for start in range(0, len(texts.labels), self.batch_size):
                batch = self.batch_of(texts, slice(start, start + self.batch_size))
                batch = {key: value.to(next(model.parameters()).device) for key, value in batch.items()}
                logits = model(**batch).logits
                if not bool(logits.amax(-1).isfinite().all()):
                    first = start + int((~logits.amax(-1).isfinite()).nonzero()[0])
                    raise NonFiniteError(f"{name}, item {first}: its logits hold infinity or NaN")
                predictions += logits.argmax(-1).tolist()
                done += len(logits)
                if on_batch is not None:
                    on_batch(done)
            yield _score(name, texts, predictions)


def read_classes(
    names: Sequence[str], loaded: LoadedModel, *, include: Path | None, limit: int | None, batch_size: int
) -> ClassTasks:
    """The tasks as this classifier can be asked: a file by its name, or one of the folder `include`, or of the hub.

    UserError where the labels are no classes of the classifier, with both; for data that cannot be had, with the file
    to put where.
    """
    classes = tuple(str(name) for _, name in sorted(loaded.model.config.id2label.items()))
    texts = {Path(name).stem: _texts(name, classes, include, limit) for name in names}
    read, filling = make_reader(loaded, positions_of(loaded.model) or LONGEST), choose_filling(loaded)

    def batch_of(texts: LabeledTexts, part: slice) -> dict[str, Tensor]:
        rows = [read(parts) for parts in texts.parts[part]]
        for row in rows:
            if not row["input_ids"].numel():  # an empty text
                row |= {key: torch.full((1,), filling.pad if key == "input_ids" else 0) for key in row}
            check_ids(row["input_ids"], loaded.model)
        examples = [{**row, "labels": torch.tensor(n)} for row, n in zip(rows, texts.labels[part], strict=True)]
        batch = fill_up(examples, filling.pad, type_pad=filling.type_pad, side=filling.side)
        del batch["labels"]
        return batch

    return ClassTasks(texts=texts, batch_of=batch_of, batch_size=batch_size)


def is_classifier(model: nn.Module) -> bool:
    """Whether a transformers model says to which class a text belongs."""
    return is_classifier_class(type(model))


def is_classifier_class(cls: type[Any]) -> bool:
    """Whether a class of transformers says to which class a text belongs."""
    return cls.__name__.endswith("ForSequenceClassification")


def _texts(name: str, classes: tuple[str, ...], include: Path | None, limit: int | None) -> LabeledTexts:
    files = [Path(name)] if name.endswith(ENDINGS) else [include / f"{name}{end}" for end in ENDINGS if include]
    path = next((path for path in files if path.is_file()), None)
    if path is not None:
        return read_labeled(str(path), limit=limit, classes=classes)
    if name.endswith(ENDINGS):
        raise FileNotFoundError(f"no such task file: {name}")
    if name not in HUB_TASKS:
        raise UserError(
            f"unknown task {name!r} for a classifier: name one of {', '.join(HUB_TASKS)}, or --include a folder with "
            f"{name}.tsv (a header; columns: label, and one or two of text)"
        )
    try:
        return read_labeled(name, limit=limit, classes=classes, validation=True)
    except UserError as error:
        raise UserError(
            f"{error}; without the hub, put the texts into a folder as {name}.tsv (a header; columns: label, and one "
            "or two of text), and name it with --include"
        ) from error


def _score(name: str, texts: LabeledTexts, predictions: Sequence[int]) -> TaskScore:
    right = [float(found == label) for found, label in zip(predictions, texts.labels, strict=True)]
    items = tuple(
        {"item": number, "gold": label, "prediction": found, "acc": value}
        for number, (label, found, value) in enumerate(zip(texts.labels, predictions, right, strict=True))
    )
    accuracy = sum(right) / len(right)
    return TaskScore(task=name, metric="acc", metrics={"acc": accuracy}, values=tuple(right), items=items)
