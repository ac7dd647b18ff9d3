"""Closed standard streams. Oracle: real processes and pipes."""

import os
import subprocess
import sys

import pytest
from checkpoints import save_tiny_llama

COMMAND = [sys.executable, "-c", "from octoscale.cli.main import main; main()"]


@pytest.fixture
def folder(tmp_path):
    return save_tiny_llama(tmp_path / "m")


def test_a_reader_that_goes_ends_the_command_quietly(folder):
    read, write = os.pipe()
    os.close(read)
    words = ["generate", str(folder), "--prompt", "x", "--max-new-tokens", "40"]
    done = subprocess.run([*COMMAND, *words], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")
GENERATE = "generate {} --prompt x --max-new-tokens 2"


@pytest.mark.parametrize(
    ("command", "closed"),
    [
        *(("formats", closed) for closed in CLOSED),
        *(pytest.param(GENERATE, closed, marks=pytest.mark.slow) for closed in CLOSED[:-1]),
        (GENERATE, CLOSED[-1]),
    ],
)
def test_streams_that_were_closed_before(command, closed, folder):
    words = command.format(folder)
    line = f"'{sys.executable}' -c 'from octoscale.cli.main import main; main()' {words} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_chat_without_a_keyboard_ends(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    line = f"'{sys.executable}' -c 'from octoscale.cli.main import main; main()' chat {folder} <&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
