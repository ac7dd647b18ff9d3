"""Multiple-choice questions from a local file, of which a task for lm-eval is made (validation/harness.py).

A task file holds one question a line, as JSON: {"query": "...", "choices": ["...", "..."], "gold": 0}.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from octoscale.models.texts import read_utf8
from octoscale.system.errors import UserError

#: What a line holds.
FORM = '{"query": text, "choices": [text, ...], "gold": index}'


@dataclass(frozen=True, kw_only=True)
class Question:
    """A multiple-choice question; `gold` is the index of the right choice."""

    query: str
    choices: tuple[str, ...]
    gold: int


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


def _parse_question(line: str, where: str) -> Question:
    form = f"{FORM}, no text empty"
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
