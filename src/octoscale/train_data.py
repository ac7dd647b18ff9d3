"""What a training reads, as Trainer takes it: windows of a text, or texts with a label.

Windows are all as long as the plan says. Labeled texts are cut off there, and filled up to the longest of their batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octoscale import tasks
from octoscale.labeled import LabeledTexts, read_labeled
from octoscale.models import LoadedModel
from octoscale.training import HUB_TASKS, Training

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


def read_labeled_texts(plan: Training) -> tuple[LabeledTexts, LabeledTexts]:
    """The examples of plan.task for training and for validation: the file `eval_task`, the hub's split, or a part."""
    assert plan.task is not None
    texts = read_labeled(plan.task, limit=plan.examples)
    if plan.eval_task is not None:
        return texts, read_labeled(str(plan.eval_task), classes=texts.classes)
    if plan.task in HUB_TASKS:
        return texts, read_labeled(plan.task, classes=texts.classes, validation=True)
    return texts.split(plan.validation)


def text_data(plan: Training, text: str, loaded: LoadedModel) -> Data:
    """Windows of a text, the last part for validation; the labels are the tokens, which the model shifts."""
    windows = tasks.token_windows(text, _encoder(loaded), window=plan.window, num_tokens=plan.tokens)
    size = max(1, round(len(windows) * plan.validation))
    if len(windows) <= size:
        raise ValueError(
            f"the text fills {len(windows)} window of {plan.window} tokens; training needs one and validation another: "
            "give a longer text or a smaller --window"
        )
    examples = [{"input_ids": ids, "labels": ids} for ids in windows]
    return Data(train=Examples(examples[:-size]), validation=Examples(examples[-size:]), collate=_stack)


def labeled_data(plan: Training, train: LabeledTexts, validation: LabeledTexts, loaded: LoadedModel) -> Data:
    """Texts as ids and classes; the model's config is told which token fills up, for its head looks for the last."""
    encode, config = _encoder(loaded), loaded.model.config
    if config.pad_token_id is None:
        config.pad_token_id = 0 if config.eos_token_id is None else config.eos_token_id
    pad = int(config.pad_token_id)

    def examples(texts: LabeledTexts) -> Examples:
        ids = [(encode(text) or [pad])[: plan.window] for text in texts.texts]
        pairs = zip(ids, texts.labels, strict=True)
        return Examples([{"input_ids": torch.tensor(row), "labels": torch.tensor(label)} for row, label in pairs])

    def fill(batch: list[Example]) -> dict[str, Tensor]:
        return fill_up(batch, pad)

    return Data(train=examples(train), validation=examples(validation), collate=fill, metrics=_accuracy)


def fill_up(batch: list[Example], pad: int) -> dict[str, Tensor]:
    """A batch of ids [B, longest], filled up on the right, with their mask and labels [B]."""
    ids = [example["input_ids"] for example in batch]
    ones = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(ones, batch_first=True),
        "labels": torch.stack([example["labels"] for example in batch]),
    }


def _stack(batch: list[Example]) -> dict[str, Tensor]:
    return {key: torch.stack([example[key] for example in batch]) for key in batch[0]}


def _accuracy(predictions: Any) -> dict[str, float]:
    """The share of examples whose largest logit is that of their class; NaN if an example has no largest one."""
    logits = torch.as_tensor(predictions.predictions)
    if not bool(logits.amax(-1).isfinite().all()):
        return {"accuracy": math.nan}
    return {"accuracy": float((logits.argmax(-1) == torch.as_tensor(predictions.label_ids)).double().mean())}


def _encoder(loaded: LoadedModel) -> tasks.Encode:
    if loaded.encode is None:
        raise ValueError(f"{loaded.note}; without it, {loaded.name} cannot read a text")
    return loaded.encode
