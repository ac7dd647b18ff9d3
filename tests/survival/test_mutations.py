"""Thousands of damaged inputs: each command ends with what it could read, or with one line that names the file.

Oracle: the process itself. It ends in time, with 0 or 2, without a traceback and without an escape sequence.
Each input is made from its number alone; a failure prints the number, and `Case` of it repeats it.
"""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from checkpoints import save_tiny_llama
from forked import Command, faults, small_figures  # noqa: F401
from mutations import damage

pytestmark = [pytest.mark.slow, pytest.mark.forks, pytest.mark.filterwarnings("ignore")]

#: What a command is given: the damaged copy and a source of chance make its arguments.
Arguments = Callable[[Path, random.Random], list[str]]

CALIBRATE = ["--tokens", "64", "--window", "32", "--calibrate"]

#: Of each kind of input.
NUMBER = int(os.environ.get("OCTOSCALE_MUTATIONS", "550"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Whole inputs, one of each kind."""
    folder = tmp_path_factory.mktemp("inputs")
    model = save_tiny_llama(folder / "llama")
    text = folder / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20)
    of_text = ["--text", str(text), "--window", "32"]
    for arguments in (
        ["sweep", str(model), "--bias", "-1:1", "--tokens", "64", *of_text, "--out", "validation"],
        ["advise", str(model), "--keep-at-most", "2", "--tokens", "64", *of_text, "--out", "advice"],
        ["train", str(model), "--steps", "3", "--batch", "2", "--save-every", "2", *of_text, "--out", "training"],
    ):
        end = Command(partial(list, arguments), folder).end()
        assert end is not None
        assert end.code == 0, end.err
    shutil.rmtree(folder / "training" / "model")
    for layout in ("compressed-tensors", "vllm-fp8", "hf-fp8"):
        call = ["quantize", str(model), str(folder / layout), "--layout", layout, "--activations", "static", *CALIBRATE]
        end = Command(partial(list, [*call, str(text)]), folder).end()
        assert end is not None
        assert end.code == 0, end.err
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "text.txt").write_text(text.read_text() + "é")
    (tasks / "task.jsonl").write_text('{"query": "Q", "choices": ["a", "bb"], "gold": 0}\n' * 3)
    (tasks / "labels.tsv").write_text("text\tlabel\n" + "a fox\tyes\na dog\tno\n" * 8)
    (tasks / "labels.jsonl").write_text('{"text": "a fox", "label": "yes"}\n{"text": "a dog", "label": "no"}\n' * 8)
    return folder


class Case:
    """A copy of `source` that is damaged, and the command that is given it."""

    def __init__(self, source: Path, number: int, arguments: Arguments) -> None:
        self._number, self._place = number, tempfile.TemporaryDirectory()
        self._copy = Path(self._place.name) / source.name
        shutil.copytree(source, self._copy)
        self._damaged = Path(self._place.name) / "damaged"
        self._command = Command(partial(self._make, arguments), Path(self._place.name))

    def _make(self, arguments: Arguments) -> list[str]:
        rng = random.Random(self._number)
        self._damaged.write_text(damage(self._copy, rng).name)
        return arguments(self._copy, rng)

    def wrong(self) -> str | None:
        """What is wrong with how it ended, or an empty text; None if it goes on."""
        end = self._command.end(wait=False)
        if end is None:
            return None
        damaged = self._damaged.read_text()
        found = faults(end, [damaged, str(self._copy)])
        self._place.cleanup()
        return f"{self._number}: {end.arguments}: {damaged}: {', '.join(found)}\n{end.err[-1500:]}" if found else ""


def check_all(source: Path, numbers: Sequence[int], arguments: Arguments) -> None:
    """All these inputs, two at a time; AssertionError that lists the wrong ones."""
    left, running, wrong = list(numbers), [], []
    while left or running:
        while left and len(running) < 2:
            running.append(Case(source, left.pop(0), arguments))
        for case in list(running):
            shown = case.wrong()
            if shown is not None:
                running.remove(case)
                wrong += [shown] if shown else []
        time.sleep(0.002)
    assert not wrong, f"{len(wrong)} of {len(numbers)} are wrong:\n" + "\n".join(wrong[:12])


def report(copy: Path, rng: random.Random) -> list[str]:
    figures = ["figures", str(copy), "--style", "slides", "--format", "svg"]
    return rng.choice([["report", str(copy)], ["report", str(copy), "--json"], figures])


@pytest.mark.parametrize("kind", ["validation", "advice", "training"])
def test_report_of_a_damaged_run(kind, inputs):
    check_all(inputs / kind, range(NUMBER), report)


def with_model(copy: Path, rng: random.Random) -> list[str]:
    """A command that reads the damaged checkpoint."""
    text = ["--text", str(copy.parent / "text"), "--window", "32", "--tokens", "64"]
    (copy.parent / "text").write_text("The quick brown fox jumps over the lazy dog. " * 5)
    return rng.choice(
        [
            ["inspect", str(copy)],
            ["inspect", str(copy), "--run"],
            ["validate", str(copy), *text, "--out", "run"],
            ["generate", str(copy), "--prompt", "fox", "--max-new-tokens", "2", *rng.choice([[], ["--json"]])],
            ["quantize", str(copy), "out"],
            ["train", str(copy), *text[:4], "--steps", "1", "--batch", "1", "--out", "run"],
        ]
    )


@pytest.mark.parametrize("kind", ["llama", "compressed-tensors", "vllm-fp8", "hf-fp8"])
def test_a_damaged_checkpoint(kind, inputs):
    check_all(inputs / kind, range(NUMBER), with_model)


@pytest.mark.parametrize("kind", ["tasks"])
def test_damaged_texts_and_tasks(kind, inputs):
    model = str(inputs / "llama")

    def read(copy: Path, rng: random.Random) -> list[str]:
        validate = ["validate", model, "--scaling", "bf16", "--window", "32", "--out", "run"]
        train = ["train", model, "--window", "32", "--steps", "1", "--batch", "1", "--out", "run"]
        text, task = str(copy / "text.txt"), str(copy / "task.jsonl")
        return rng.choice(
            [
                [*validate, "--text", text],
                [*validate, "--text", text, "--task", task],
                [*train, "--text", text],
                [*train, "--task", str(copy / "labels.tsv")],
                [*train, "--task", str(copy / "labels.jsonl")],
            ]
        )

    check_all(inputs / kind, range(NUMBER), read)


def test_a_damaged_checkpoint_of_a_training_is_not_gone_on_with(inputs):
    text = str(inputs / "text.txt")
    plan = ["--steps", "4", "--batch", "2", "--save-every", "2", "--text", text, "--window", "32"]
    check_all(
        inputs / "training",
        range(NUMBER // 2),
        lambda copy, rng: ["train", str(inputs / "llama"), *plan, "--out", str(copy), "--resume"],
    )


@pytest.mark.parametrize("kind", ["validation", "advice"])
def test_damaged_results_are_not_gone_on_with(kind, inputs):
    text = ["--tokens", "64", "--text", str(inputs / "text.txt"), "--window", "32"]
    command = {"validation": ["sweep", "--bias", "-1:1"], "advice": ["advise", "--keep-at-most", "2"]}[kind]

    def go_on(copy, rng):
        return [command[0], str(inputs / "llama"), *command[1:], *text, "--out", str(copy), "--resume"]

    check_all(inputs / kind, range(NUMBER // 5), go_on)
