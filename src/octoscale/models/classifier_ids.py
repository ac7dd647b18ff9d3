"""What a classifier reads: the ids that its tokenizer gives for a text, or for two, with the special tokens among them.

A window cuts texts off, and never a special token: BERT's [CLS] and [SEP], T5's </s>. Two texts go to the tokenizer as
two, if it sets them apart; where it would only join them, and for models that read bytes, a line break stands between.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octoscale.models.loading import LoadedModel
from octoscale.models.texts import embeddings_of
from octoscale.system.errors import UserError

#: Ids of one example: `input_ids`, and `token_type_ids` where tokenizer and model both know them.
Ids = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Filling:
    """How shorter examples of a batch are filled up: with which ids, on which side."""

    pad: int
    type_pad: int = 0
    side: str = "right"


def choose_filling(loaded: LoadedModel) -> Filling:
    """The filling that a classifier's config or tokenizer names; the config is told, as its head looks for the last id.

    Where neither names one that the model has: the first end of text, else 0.
    """
    config, tokenizer, size = loaded.model.config, loaded.tokenizer, embeddings_of(loaded.model)
    text_config = config.get_text_config()
    candidates = _flat(
        getattr(config, "pad_token_id", None),
        getattr(text_config, "pad_token_id", None),
        getattr(tokenizer, "pad_token_id", None),
        getattr(config, "eos_token_id", None),
        getattr(text_config, "eos_token_id", None),
    )
    pad = next((number for number in candidates if 0 <= number < size), 0)
    config.pad_token_id = text_config.pad_token_id = pad
    side = "left" if getattr(config, "summary_type", None) == "last" else "right"  # XLNet's head takes the last place
    return Filling(pad=pad, type_pad=getattr(tokenizer, "pad_token_type_id", 0) or 0, side=side)


def make_reader(loaded: LoadedModel, window: int) -> Callable[[Sequence[str]], Ids]:
    """What turns one or two texts into ids, at most `window` of them. ValueError if special tokens alone fill that."""
    if loaded.encode is None:
        raise UserError(f"{loaded.note}; without it, {loaded.name} cannot read a text")
    if loaded.tokenizer is None:
        encode = loaded.encode
        return lambda texts: {"input_ids": torch.tensor(encode("\n".join(texts))[:window], dtype=torch.int64)}
    tokenizer = copy.deepcopy(loaded.tokenizer)  # a fast one remembers that it is to cut off, and would be saved so
    of_one, of_two = (tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    if window <= of_two:
        raise UserError(f"a window of {window} tokens has no room beside {of_two} special tokens: raise --window")
    keys = {"input_ids", "token_type_ids"} & {"input_ids", *inspect.signature(loaded.model.forward).parameters}

    def read(texts: Sequence[str]) -> Ids:
        apart = texts if of_two > of_one else ["\n".join(texts)]
        found = tokenizer(*apart, truncation=True, max_length=window, verbose=False)
        return {key: torch.tensor(found[key], dtype=torch.int64) for key in found.keys() & keys}

    return read


def fill_up(
    batch: Sequence[Mapping[str, Tensor]], pad: int, *, type_pad: int = 0, side: str = "right"
) -> dict[str, Tensor]:
    """A batch of ids [B, longest], filled up on a side, with their mask and labels [B]."""

    def stacked(rows: list[Tensor], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)

    ids = [example["input_ids"] for example in batch]
    filled = {
        "input_ids": stacked(ids, pad),
        "attention_mask": stacked([torch.ones_like(row) for row in ids], 0),
        "labels": torch.stack([example["labels"] for example in batch]),
    }
    if "token_type_ids" in batch[0]:
        filled["token_type_ids"] = stacked([example["token_type_ids"] for example in batch], type_pad)
    return filled


def _flat(*values: Any) -> Iterator[int]:
    """Ids, of which a config may name one, several or none."""
    for value in values:
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int):
                yield number
