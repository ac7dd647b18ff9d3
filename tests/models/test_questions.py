"""Multiple-choice questions. Oracle: the file's own rows."""

import json

import pytest

from octoscale.models.questions import Question, read_questions


def write_lines(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_questions_are_read_up_to_the_limit(tmp_path):
    row = {"query": "Q", "choices": ["a", "b"], "gold": 1, "more": 0}
    path = write_lines(tmp_path / "task.jsonl", row, row, row)
    assert read_questions(path, limit=2) == [Question(query="Q", choices=("a", "b"), gold=1)] * 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("not json", "line 2: expected"),
        ({"query": "Q", "gold": 0}, "line 2: expected"),
        ({"query": "Q", "choices": ["a"], "gold": 1}, "line 2: gold 1 is not one of 1"),
        ({"query": "Q", "choices": "abc", "gold": 1}, "line 2: expected"),
        ({"query": "Q", "choices": ["a", "b"], "gold": "1"}, "line 2: expected"),
        ({"query": "Q", "choices": ["a", " "], "gold": 1}, "line 2: expected"),
        ({"query": "", "choices": ["a", "b"], "gold": 1}, "line 2: expected"),
    ],
)
def test_a_broken_line_is_named(tmp_path, row, message):
    good = {"query": "Q", "choices": ["a", "b"], "gold": 1}
    with pytest.raises(ValueError, match=message):
        read_questions(write_lines(tmp_path / "task.jsonl", good, row))


def test_an_empty_or_missing_task_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no question"):
        read_questions(write_lines(tmp_path / "empty.jsonl"))
    with pytest.raises(FileNotFoundError, match="no such task file"):
        read_questions(tmp_path / "nowhere.jsonl")


def test_a_task_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_bytes(b'{"query": "\xff"}')
    with pytest.raises(ValueError, match=rf"^{path} is not UTF-8 text: .* at byte 11"):
        read_questions(path)
