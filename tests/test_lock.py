"""One writer to a folder. Oracle: the system's locks, in processes of their own."""

import subprocess
import sys

import pytest

from octoscale.lock import exclusive

HOLDER = """
import sys
from pathlib import Path
from octoscale.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(folder):
    """Another process that holds the folder until a line comes."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def finish(process):
    process.communicate("\n", timeout=30)


def test_the_second_is_refused_and_the_first_goes_on(tmp_path):
    first = holder(tmp_path / "out")
    with (
        pytest.raises(FileExistsError, match=r"another octoscale command .*out"),
        exclusive(tmp_path / "out"),
    ):
        pass
    with exclusive(tmp_path / "other"):
        pass
    finish(first)
    assert first.returncode == 0
    with exclusive(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    first = holder(tmp_path / "out")
    first.kill()
    first.communicate()
    with exclusive(tmp_path / "out"):
        pass


def test_a_link_and_what_it_points_to_are_one_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first = holder(tmp_path / "real")
    with pytest.raises(FileExistsError, match="another octoscale command"), exclusive(tmp_path / "link"):
        pass
    finish(first)


def test_an_error_inside_gives_the_folder_free(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "out"):
        _ = 1 / 0
    with exclusive(tmp_path / "out"):
        pass
