"""What a small model is asked: a few tokens, a picture or a sound, always the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Inputs = Callable[[Any], dict[str, Tensor]]

#: Two sequences: as many tokens as Reformer's positions, below every family's window of attention.
BATCH, LENGTH = 2, 16


def token_ids(model: Any, length: int = LENGTH, seed: int = 1) -> Tensor:
    """Random ids [BATCH, length], without those that have a meaning."""
    size = min(256, getattr(model.config.get_text_config(), "vocab_size", 256))
    return torch.randint(8, size, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def text(model: Any) -> dict[str, Tensor]:
    return {"input_ids": token_ids(model)}


def two_texts(model: Any) -> dict[str, Tensor]:
    return {"input_ids": token_ids(model), "decoder_input_ids": token_ids(model, LENGTH // 2, seed=2)}


def global_text(model: Any) -> dict[str, Tensor]:
    """A text whose first token looks at all others, and they at it."""
    ids = token_ids(model)
    return {"input_ids": ids, "global_attention_mask": torch.eye(1, LENGTH, dtype=torch.int64).expand(BATCH, LENGTH)}


def text_after_states(model: Any) -> dict[str, Tensor]:
    """A text for a decoder that also reads what an encoder made."""
    states = torch.randn(BATCH, 8, 64, generator=torch.Generator().manual_seed(3))
    return {"input_ids": token_ids(model), "encoder_hidden_states": states}


def text_after_outputs(model: Any) -> dict[str, Any]:
    """The same, in the words of another."""
    asked = text_after_states(model)
    return {"input_ids": asked["input_ids"], "encoder_outputs": (asked["encoder_hidden_states"],)}


def global_texts(model: Any) -> dict[str, Tensor]:
    return {**global_text(model), **two_texts(model)}


def text_and_entities(model: Any) -> dict[str, Tensor]:
    """A text two of whose spans are things that the model knows by name."""
    entities = torch.tensor([[3, 4]] * BATCH)
    positions = torch.tensor([[[1, 2], [5, 6]]] * BATCH)
    return {"input_ids": token_ids(model), "entity_ids": entities, "entity_position_ids": positions}
