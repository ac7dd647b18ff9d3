"""Texts, and what a model can take of them: windows as long as its positions reach, ids that it has embeddings for.

Perplexity reads a text in windows that do not overlap, without special tokens. `pydoc` is a text that every machine
has: the topics of CPython's own help system, in sorted order. `hf:NAME` is a data set of the hub (hub.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octoscale.models.hub import PREFIX, read_hub_text
from octoscale.system.errors import UserError

Encode = Callable[[str], list[int]]


def read_text(source: str) -> str:
    """The text of a file, of `pydoc`, or of a data set hf:NAME. FileNotFoundError or ValueError, naming the source."""
    if source == "pydoc":
        from pydoc_data.topics import topics

        return "\n\n".join(topics[key] for key in sorted(topics))
    if source.startswith(PREFIX):
        return read_hub_text(source)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no such text file: {source} (or write pydoc for Python's own help texts)")
    return read_utf8(path)


def read_utf8(path: Path) -> str:
    """The text of a file; ValueError, naming the byte, if it is another encoding's."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def token_windows(text: str, encode: Encode, *, window: int, num_tokens: int | None = None, source: str = "") -> Tensor:
    """The first `num_tokens` tokens of a text (None: all) as int64 [W, window], without an unfilled last window.

    source: where the text is from, for messages.
    ValueError if the text, or num_tokens, is shorter than a window, or a window shorter than 2.
    """
    if window < 2:
        raise UserError(f"a window needs at least 2 tokens, not {window}")
    if num_tokens is not None and num_tokens < window:
        raise UserError(f"{num_tokens} tokens do not fill a window of {window}: raise --tokens or lower --window")
    ids = torch.tensor(encode(text)[:num_tokens], dtype=torch.int64)
    if ids.numel() < window:
        what = f"the text {source}" if source else "the text"
        raise UserError(f"{what} has {ids.numel()} tokens, which do not fill a window of {window}")
    return ids[: ids.numel() // window * window].view(-1, window)


def check_window(window: int, model: Any) -> None:
    """ValueError if a window is longer than what a transformers model was made for."""
    limit = positions_of(model)
    if limit is not None and window > limit:
        raise UserError(f"a window of {window} tokens is longer than the model's {limit} positions: lower --window")


def positions_of(model: Any) -> int | None:
    """How many tokens a transformers model was made for; None if it does not say, or has no limit."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    for name, module in model.named_modules():  # RoBERTa counts from the position behind its pad's
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return min(limit, int(module.weight.shape[0]) - int(module.padding_idx) - 1)
    return limit


def check_ids(windows: Tensor, model: Any) -> None:
    """ValueError if a text holds a token for which the model has no embedding."""
    largest, size = int(windows.max()), embeddings_of(model)
    if largest >= size:
        raise UserError(f"the text holds token {largest}, and the model has {size}: the tokenizer is another model's")


def embeddings_of(model: Any) -> int:
    """How many tokens a transformers model has an embedding for."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (NotImplementedError, AttributeError):  # no one embedding of tokens: the config says what it says
        return int(model.config.get_text_config().vocab_size)
