"""Thousands of damaged inputs: each command ends with what it could read, or with one line that names the file.

Oracle: the process itself. It ends in time, with 0 or 2, without a traceback and without an escape sequence.
Each input is made from its number alone; a failure prints the number, and `Case` of it repeats it.
"""

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny_llama
from mutations import damage

from octoscale.cli import main as cli
from octoscale.report import figures, style

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: What a command is given: the damaged copy and a source of chance make its arguments.
Arguments = Callable[[Path, random.Random], list[str]]

CALIBRATE = ["--tokens", "64", "--window", "32", "--calibrate"]

#: Of each kind of input.
NUMBER = int(os.environ.get("OCTOSCALE_MUTATIONS", "550"))

SECONDS = 120  # a command that takes longer hangs
MEMORY = 12 << 30  # bytes; a command that asks for more reads what it should not


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int
    arguments: str
    out: str
    err: str


class Command:
    """`octoscale ARGUMENTS` in a process of its own, forked from this one; it makes its arguments itself.

    Nothing of polars runs before the fork: its threads would not be there after it.
    """

    def __init__(self, make: Callable[[], Sequence[str]], folder: Path) -> None:
        self._files = [folder / name for name in ("arguments", "stdout", "stderr")]
        self._deadline = time.monotonic() + SECONDS
        self._child = os.fork()
        if self._child == 0:
            try:
                _run(make, self._files)
            finally:
                os._exit(99)

    def end(self, *, wait: bool = True) -> End | None:
        """How it ended, with code -9 if it had to be killed; None if it goes on."""
        while True:
            late = time.monotonic() > self._deadline
            if late:
                os.kill(self._child, signal.SIGKILL)
            done, status = os.waitpid(self._child, 0 if late else os.WNOHANG)
            if done:
                texts = (file.read_text(errors="replace") if file.exists() else "" for file in self._files)
                return End(os.waitstatus_to_exitcode(status), *texts)
            if not wait:
                return None
            time.sleep(0.005)


def _run(make: Callable[[], Sequence[str]], files: Sequence[Path]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)  # after a fork, torch makes its pool anew at the first use, and two threads at once fail
    arguments = make()
    files[0].write_text(" ".join(arguments))
    for number, file in enumerate(files[1:], 1):
        os.dup2(os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    sys.argv = ["octoscale", *arguments]
    os.chdir(files[0].parent)
    code = _exit_code()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code() -> int:
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def faults(end: End, named: Sequence[str]) -> list[str]:
    """What is wrong with how a command ended; nothing, if all is right."""
    found = []
    if end.code not in (0, 2):
        found.append(f"exit code {end.code}")
    if "Traceback" in end.err:
        found.append("a traceback")
    if "\x1b" in end.out + end.err:
        found.append("an escape sequence")
    errors = [line for line in end.err.splitlines() if line.startswith("octoscale: error: ")]
    if end.code == 2 and len(errors) != 1:
        found.append(f"{len(errors)} lines of errors")
    elif end.code == 2 and not any(name in errors[0] for name in named):
        found.append("the error names no file")
    return found


@pytest.fixture(scope="module", autouse=True)
def small_figures():
    """Figures are drawn to be drawn, not to be looked at; one thread, as a fork must not lose others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    save = figures.save

    def small(figure, folder, stem):
        figure.set_dpi(20)
        return save(figure, folder, stem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", small)
        patch.setattr(style, "METADATA", {"svg": style.METADATA["svg"]})
        yield
    torch.set_num_threads(threads)


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
    return ["report", str(copy), *rng.choice([[], ["--json"]])]


@pytest.mark.parametrize("kind", ["validation", "training"])
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
