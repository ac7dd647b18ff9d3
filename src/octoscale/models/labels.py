"""Texts with a label, to fine-tune a classifier on: a GLUE task of the hub, or a file.

    sst2, mnli, qqp      from the hub: nyu-mll/glue
    FILE.tsv             a header; columns: `label`, and one or two of text
    FILE.jsonl           the same as objects, one a line

Two texts (premise and hypothesis, two questions) stay two, for the tokenizer to set apart. Classes are the labels
that the training examples have, in sorted order; another label in the examples for validation is an error.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from octoscale.models.hub import load_hub_data
from octoscale.system.errors import UserError

#: Labeled texts of the hub: task -> text columns, and the split for validation.
HUB_TASKS = {
    "sst2": (("sentence",), "validation"),
    "mnli": (("premise", "hypothesis"), "validation_matched"),
    "qqp": (("question1", "question2"), "validation"),
}

#: The repository on the hub that holds HUB_TASKS.
HUB_REPOSITORY = "nyu-mll/glue"


@dataclass(frozen=True, kw_only=True)
class LabeledTexts:
    """Examples: of each its text, or two texts, and the index of its class."""

    parts: Sequence[tuple[str, ...]]
    labels: Sequence[int]
    classes: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """Each example as one text, with a line break between two."""
        return ["\n".join(parts) for parts in self.parts]

    def split(self, share: float) -> "tuple[LabeledTexts, LabeledTexts]":
        """All but the last part, and the last part. ValueError if one of them would be empty."""
        size = max(1, round(len(self.parts) * share))
        if len(self.parts) <= size:
            raise UserError(f"{len(self.parts)} labeled example: training needs one and validation another")
        return self._part(slice(None, -size)), self._part(slice(-size, None))

    def _part(self, part: slice) -> "LabeledTexts":
        return LabeledTexts(parts=self.parts[part], labels=self.labels[part], classes=self.classes)


def read_labeled(
    task: str, *, limit: int | None = None, classes: tuple[str, ...] | None = None, validation: bool = False
) -> LabeledTexts:
    """The examples of a task of the hub or of a file; the first `limit` (None: all).

    classes: what a label may be; by default whatever occurs. validation: the hub's split for that. FileNotFoundError
    or ValueError, naming the line, for what cannot be read.
    """
    if limit is not None and limit < 1:
        raise UserError(f"examples={limit}: must be at least 1")
    rows = list(islice(_from_hub(task, validation) if task in HUB_TASKS else _from_file(Path(task)), limit))
    if not rows:
        raise UserError(f"{task} holds no labeled example")
    known = classes or tuple(sorted({label for _, _, label in rows}, key=_order))
    if len(known) < 2:
        raise UserError(f"all examples of {task} have the label {known[0]}: a classifier needs two classes")
    for where, _, label in rows:
        if label not in known:
            raise UserError(f"{where}: the label {label!r} is none of the classes {', '.join(known)}")
    indices = {label: index for index, label in enumerate(known)}
    return LabeledTexts(
        parts=[parts for _, parts, _ in rows], labels=[indices[label] for _, _, label in rows], classes=known
    )


_Row = tuple[str, tuple[str, ...], str]  # where it stands, its text or two, label


def _from_hub(task: str, validation: bool) -> Iterator[_Row]:
    columns, split = HUB_TASKS[task]
    split = split if validation else "train"
    data = load_hub_data(HUB_REPOSITORY, task, split)
    for number, row in enumerate(data):
        yield f"{HUB_REPOSITORY} {task} {split}, row {number}", tuple(row[c] for c in columns), str(row["label"])


def _from_file(path: Path) -> Iterator[_Row]:
    if path.suffix not in (".tsv", ".jsonl"):
        raise UserError(f"unknown task {str(path)!r}: name one of {', '.join(HUB_TASKS)}, or a file .tsv or .jsonl")
    if not path.is_file():
        raise FileNotFoundError(f"no such task file: {path}")
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    for number, row in _tsv(path, lines) if path.suffix == ".tsv" else _json_lines(path, lines):
        where = f"{path} line {number}"
        columns = [key for key in row if key != "label"]
        if "label" not in row or len(columns) not in (1, 2):
            raise UserError(f"{where}: needs a column label and one or two of text, not {', '.join(row) or 'none'}")
        if not all(isinstance(row[column], str) for column in columns):
            raise UserError(f"{where}: {' and '.join(columns)} must be text")
        if not isinstance(row["label"], str | int) or str(row["label"]) == "":
            raise UserError(f"{where}: the label {row['label']!r} is neither text nor a whole number")
        yield where, tuple(row[column] for column in columns), str(row["label"])


def _tsv(path: Path, lines: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Tab-separated values; a quotation mark is a character like any other, as in GLUE's files."""
    header = lines[0].split("\t") if lines else []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != len(header):
            raise UserError(f"{path} line {number}: {len(fields)} fields, and the header names {len(header)}")
        yield number, dict(zip(header, fields, strict=True))


def _json_lines(path: Path, lines: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number is too long"
                raise UserError(f"{path} line {number} is not JSON: {reason}") from error
            if not isinstance(row, dict):
                raise UserError(f'{path} line {number}: needs an object like {{"text": "...", "label": 0}}')
            yield number, row


def _order(label: str) -> tuple[bool, int, str]:
    """Numbers in their order, before words."""
    number = int(label) if re.fullmatch(r"-?\d{1,99}", label) else None
    return (number is None, number or 0, label)
