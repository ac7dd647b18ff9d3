"""What a training reads, as Trainer takes it: windows of a text, or texts with a label.

Windows are all as long as the settings say, without special tokens. Labeled texts have those that the tokenizer gives
them (models/classifier_ids.py); they are cut off at a window, and filled up to the longest of their batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octoscale.models.classifier_ids import choose_filling, fill_up, make_reader
from octoscale.models.labels import HUB_TASKS, LabeledTexts, read_labeled
from octoscale.models.loading import LoadedModel
from octoscale.models.texts import Encode, check_ids, token_windows
from octoscale.system.errors import UserError
from octoscale.training.settings import Training

Example = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Examples to train on and to validate with; how to make a batch of some; what else than the loss to measure."""

    train: "Examples"
    validation: "Examples"
    collate: Callable[[list[Example]], dict[str, Tensor]]
    metrics: Callable[[Any], dict[str, float]] | None = None


class Examples(torch.utils.data.Dataset[Example]):
    """Examples by index."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


def read_labeled_texts(settings: Training) -> tuple[LabeledTexts, LabeledTexts]:
    """The examples of `task` for training and for validation: the file `eval_task`, the hub's split, or a part."""
    assert settings.task is not None
    texts = read_labeled(settings.task, limit=settings.examples)
    if settings.eval_task is not None:
        return texts, read_labeled(str(settings.eval_task), classes=texts.classes)
    if settings.task in HUB_TASKS:
        return texts, read_labeled(settings.task, classes=texts.classes, validation=True)
    return texts.split(settings.validation)


def text_data(settings: Training, text: str, loaded: LoadedModel) -> Data:
    """Windows of a text, the last part for validation; the labels are the tokens, which the model shifts."""
    encode, source = _encoder(loaded), str(settings.text)
    windows = token_windows(text, encode, window=settings.window, num_tokens=settings.tokens, source=source)
    check_ids(windows, loaded.model)
    size = max(1, round(len(windows) * settings.validation))
    if len(windows) <= size:
        raise UserError(
            f"the text {settings.text} fills {len(windows)} window of {settings.window} tokens; training needs one and "
            "validation another: give a longer text or a smaller --window"
        )
    examples = [{"input_ids": ids, "labels": ids} for ids in windows]
    return Data(train=Examples(examples[:-size]), validation=Examples(examples[-size:]), collate=_stack)


def labeled_data(settings: Training, train: LabeledTexts, validation: LabeledTexts, loaded: LoadedModel) -> Data:
    """Texts as ids and classes; the model's config is told what the classes are called, and which id fills up."""
    read, filling = make_reader(loaded, settings.window), choose_filling(loaded)
    config = loaded.model.config
    config.problem_type = "single_label_classification"
    config.id2label = dict(enumerate(train.classes))
    config.label2id = {name: number for number, name in enumerate(train.classes)}

    def examples(texts: LabeledTexts) -> Examples:
        rows = [read(parts) for parts in texts.parts]
        for row in rows:
            if not row["input_ids"].numel():  # an empty text
                row |= {key: torch.full((1,), filling.pad if key == "input_ids" else 0) for key in row}
            check_ids(row["input_ids"], loaded.model)
        return Examples([{**row, "labels": torch.tensor(n)} for row, n in zip(rows, texts.labels, strict=True)])

    def collate(batch: list[Example]) -> dict[str, Tensor]:
        return fill_up(batch, filling.pad, type_pad=filling.type_pad, side=filling.side)

    return Data(train=examples(train), validation=examples(validation), collate=collate, metrics=_accuracy)


def only_logits(outputs: Any, _: Tensor) -> Tensor:
    """The logits among what a model gives; an encoder-decoder gives its encoder's states too."""
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits


def _stack(batch: list[Example]) -> dict[str, Tensor]:
    return {key: torch.stack([example[key] for example in batch]) for key in batch[0]}


def _accuracy(predictions: Any) -> dict[str, float]:
    """The share of examples whose largest logit is that of their class; NaN if an example has no largest one."""
    logits = torch.as_tensor(predictions.predictions)
    if not bool(logits.amax(-1).isfinite().all()):
        return {"accuracy": math.nan}
    return {"accuracy": float((logits.argmax(-1) == torch.as_tensor(predictions.label_ids)).double().mean())}


def _encoder(loaded: LoadedModel) -> Encode:
    if loaded.encode is None:
        raise UserError(f"{loaded.note}; without it, {loaded.name} cannot read a text")
    return loaded.encode
