"""Multiple-choice questions from a local file: the task of which an accuracy is measured.

A task file holds one question a line, as JSON: {"query": "...", "choices": ["...", "..."], "gold": 0}. A question is
answered by the choice whose text is likeliest after the query, per byte of its text, as the paper's length-normalized
accuracy.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octoscale.models.texts import Encode, embeddings_of, positions_of, read_utf8
from octoscale.system.errors import UserError


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


def read_questions(source: Path | str, limit: int | None = None) -> list[Question]:
    """The first `limit` questions of a task file. FileNotFoundError; ValueError with the number of a broken line."""
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no such task file: {source}")
    lines = read_utf8(path).rstrip("\n").split("\n")[:limit]
    questions = [_parse_question(line, f"{source}, line {number}") for number, line in enumerate(lines, 1) if line]
    if not questions:
        raise UserError(f"{source} holds no question")
    return questions


def check_task(task: Task, model: Any) -> None:
    """ValueError, with the question's number, for one that the model cannot be asked."""
    limit = positions_of(model)
    for number, question in enumerate(task.questions, 1):
        for choice in question.choices:
            query, full = question.ids(task.encode, choice)
            what = f"question {number} with the choice {choice!r:.40}"
            if limit is not None and len(full) > limit:
                raise UserError(f"{what} has {len(full)} tokens, and the model {limit} positions: leave it out")
            if len(full) < 2 or full == query:
                raise UserError(f"{what}: the tokenizer has no token for the choice")
            if max(full) >= (size := embeddings_of(model)):
                raise UserError(
                    f"{what} holds token {max(full)}, and the model has {size}: the tokenizer is another model's"
                )


def _parse_question(line: str, where: str) -> Question:
    form = '{"query": text, "choices": [text, ...], "gold": index}, no text empty'
    try:
        row = json.loads(line)
        query, choices, gold = row["query"], row["choices"], row["gold"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: expected {form}") from error
    texts = [query, *choices] if isinstance(choices, list) and choices else [None]
    if not all(isinstance(text, str) and text.strip() for text in texts) or type(gold) is not int:
        raise UserError(f"{where}: expected {form}")
    if not 0 <= gold < len(choices):
        raise UserError(f"{where}: gold {gold} is not one of {len(choices)} choices")
    return Question(query=query, choices=tuple(choices), gold=gold)
