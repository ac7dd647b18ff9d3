"""What a model is asked: windows of a text, or multiple-choice questions from a local file.

Perplexity reads a text in windows that do not overlap, without special tokens. `pydoc` is a text that every machine
has: the topics of CPython's own help system, in sorted order. `hf:NAME` is a data set of the hub (hub.py).

A task file holds one question a line, as JSON: {"query": "...", "choices": ["...", "..."], "gold": 0}. A question is
answered by the choice whose text is likeliest after the query, per byte of its text, as the paper's length-normalized
accuracy.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from octoscale.models.hub import PREFIX, read_hub_text

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A multiple-choice question; `gold` is the index of the right choice."""

    query: str
    choices: tuple[str, ...]
    gold: int

    def ids(self, encode: Encode, choice: str) -> tuple[list[int], list[int]]:
        """The query's ids, and those of the query with a choice after it."""
        query = self.query.rstrip()
        return encode(query), encode(f"{query} {choice.strip()}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """Questions, and the tokenizer that turns their texts into ids."""

    questions: Sequence[Question]
    encode: Encode


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
    return _utf8(path)


def _utf8(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def token_windows(text: str, encode: Encode, *, window: int, num_tokens: int | None = None, source: str = "") -> Tensor:
    """The first `num_tokens` tokens of a text (None: all) as int64 [W, window], without an unfilled last window.

    source: where the text is from, for messages.
    ValueError if the text, or num_tokens, is shorter than a window, or a window shorter than 2.
    """
    if window < 2:
        raise ValueError(f"a window needs at least 2 tokens, not {window}")
    if num_tokens is not None and num_tokens < window:
        raise ValueError(f"{num_tokens} tokens do not fill a window of {window}: raise --tokens or lower --window")
    ids = torch.tensor(encode(text)[:num_tokens], dtype=torch.int64)
    if ids.numel() < window:
        what = f"the text {source}" if source else "the text"
        raise ValueError(f"{what} has {ids.numel()} tokens, which do not fill a window of {window}")
    return ids[: ids.numel() // window * window].view(-1, window)


def check_window(window: int, model: Any) -> None:
    """ValueError if a window is longer than what a transformers model was made for."""
    limit = positions_of(model)
    if limit is not None and window > limit:
        raise ValueError(f"a window of {window} tokens is longer than the model's {limit} positions: lower --window")


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
        raise ValueError(f"the text holds token {largest}, and the model has {size}: the tokenizer is another model's")


def embeddings_of(model: Any) -> int:
    """How many tokens a transformers model has an embedding for."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (NotImplementedError, AttributeError):  # no one embedding of tokens: the config says what it says
        return int(model.config.get_text_config().vocab_size)


def check_task(task: Task, model: Any) -> None:
    """ValueError, with the question's number, for one that the model cannot be asked."""
    limit = positions_of(model)
    for number, question in enumerate(task.questions, 1):
        for choice in question.choices:
            query, full = question.ids(task.encode, choice)
            what = f"question {number} with the choice {choice!r:.40}"
            if limit is not None and len(full) > limit:
                raise ValueError(f"{what} has {len(full)} tokens, and the model {limit} positions: leave it out")
            if len(full) < 2 or full == query:
                raise ValueError(f"{what}: the tokenizer has no token for the choice")
            if max(full) >= (size := embeddings_of(model)):
                raise ValueError(
                    f"{what} holds token {max(full)}, and the model has {size}: the tokenizer is another model's"
                )


def read_questions(source: Path | str, limit: int | None = None) -> list[Question]:
    """The first `limit` questions of a task file. FileNotFoundError; ValueError with the number of a broken line."""
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no such task file: {source}")
    lines = _utf8(path).rstrip("\n").split("\n")[:limit]
    questions = [_parse_question(line, f"{source}, line {number}") for number, line in enumerate(lines, 1) if line]
    if not questions:
        raise ValueError(f"{source} holds no question")
    return questions


def _parse_question(line: str, where: str) -> Question:
    form = '{"query": text, "choices": [text, ...], "gold": index}, no text empty'
    try:
        row = json.loads(line)
        query, choices, gold = row["query"], row["choices"], row["gold"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: expected {form}") from error
    texts = [query, *choices] if isinstance(choices, list) and choices else [None]
    if not all(isinstance(text, str) and text.strip() for text in texts) or type(gold) is not int:
        raise ValueError(f"{where}: expected {form}")
    if not 0 <= gold < len(choices):
        raise ValueError(f"{where}: gold {gold} is not one of {len(choices)} choices")
    return Question(query=query, choices=tuple(choices), gold=gold)
