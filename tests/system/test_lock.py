"""One writer to a folder. Oracle: the system's locks, in processes of their own."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest
import torch
from checkpoints import save_tiny_llama
from models import tiny_llama, tokens

import octoscale
from octoscale import Recipe, convert, record
from octoscale.system.lock import LOCK, exclusive, exclusive_run, is_held

HOLDER = """
import sys
from pathlib import Path
from octoscale.system import lock
with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""
LOCKS = {"exclusive": exclusive, "exclusive_run": exclusive_run}


def holder(folder, name="exclusive"):
    """Another process that holds the folder until a line comes."""
    command = [sys.executable, "-c", HOLDER, name, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def finish(process):
    process.communicate("\n", timeout=30)


@pytest.mark.parametrize("name", LOCKS)
def test_the_second_is_refused_and_the_first_goes_on(name, tmp_path):
    first = holder(tmp_path / "out", name)
    with pytest.raises(FileExistsError, match=r"another octoscale command .*out"), LOCKS[name](tmp_path / "out"):
        pass
    with LOCKS[name](tmp_path / "other"):
        pass
    finish(first)
    assert first.returncode == 0
    with LOCKS[name](tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_killed_process_holds_nothing(name, tmp_path):
    first = holder(tmp_path / "out", name)
    first.kill()
    first.communicate()
    with LOCKS[name](tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", LOCKS)
def test_a_link_and_what_it_points_to_are_one_folder(name, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first = holder(tmp_path / "real", name)
    with pytest.raises(FileExistsError, match="another octoscale command"), LOCKS[name](tmp_path / "link"):
        pass
    finish(first)


@pytest.mark.parametrize("name", LOCKS)
def test_an_error_inside_gives_the_folder_free(name, tmp_path):
    with pytest.raises(ZeroDivisionError), LOCKS[name](tmp_path / "new" / "out"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    with LOCKS[name](tmp_path / "new" / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_process_does_not_hold_a_folder_twice(name, tmp_path):
    with (
        LOCKS[name](tmp_path / "out"),
        pytest.raises(FileExistsError, match="another octoscale command"),
        LOCKS[name](tmp_path / "out"),
    ):
        pass


def test_what_was_written_stays(tmp_path):
    with exclusive_run(tmp_path / "run"):
        (tmp_path / "run" / "run.json").write_text("{}")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_whoever_joins_holds_until_the_last_lets_go(tmp_path):
    first, second = (exclusive_run(tmp_path / "run", join=True) for _ in range(2))
    with first:
        second.__enter__()
    assert (tmp_path / "run" / LOCK).exists()
    with pytest.raises(FileExistsError, match="another octoscale command"), exclusive_run(tmp_path / "run"):
        pass
    second.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_deleted_is_no_lock(tmp_path):
    """The one before us deletes its file when it lets go: whoever had opened it takes the next one."""
    real, deleted = fcntl.flock, []

    def flock(descriptor, operation):
        real(descriptor, operation)
        if not deleted:
            deleted.append((tmp_path / f".out{LOCK}").unlink())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        with exclusive(tmp_path / "out"):
            second = pytest.raises(FileExistsError, match="another octoscale command")
            with second, exclusive(tmp_path / "out"):
                pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_said(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks: let no other command write there"), exclusive(tmp_path / "out"):
        pass


# Whoever writes


@pytest.fixture
def inputs(tmp_path):
    save_tiny_llama(tmp_path / "llama")
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return tmp_path


def test_a_lock_that_may_only_be_read_is_asked(tmp_path, monkeypatch):
    """As another user's, who opens no file of ours for writing."""
    real = os.open

    def open_(path, flags, *more):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "another user's")
        return real(path, flags, *more)

    first = holder(tmp_path / "run", "exclusive_run")
    monkeypatch.setattr(os, "open", open_)
    assert is_held(tmp_path / "run") is True
    first.kill()
    first.communicate()
    assert is_held(tmp_path / "run") is False


def test_two_who_ask_at_once_take_each_other_for_no_holder(tmp_path):
    (tmp_path / LOCK).touch()
    with (tmp_path / LOCK).open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # what is_held does for a moment
        assert is_held(tmp_path) is False


def test_a_lock_that_cannot_be_asked_is_neither_held_nor_free(tmp_path, monkeypatch):
    (tmp_path / LOCK).touch()

    def fails(number):
        def fail(*_):
            raise OSError(number, "not now")

        return fail

    for where, name, number in ((os, "open", errno.EACCES), (fcntl, "flock", errno.ENOLCK)):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fails(number))
            assert is_held(tmp_path) is None
    assert is_held(tmp_path) is False
    assert is_held(tmp_path / "nowhere") is False
    (tmp_path / LOCK).unlink()
    os.mkfifo(tmp_path / LOCK)
    assert is_held(tmp_path) is False  # and nobody waits for a writer


def test_every_writer_of_a_run_is_refused(inputs, run):
    """validate, sweep, train, and train --resume of a run that another process goes on with."""
    text = ("--text", str(inputs / "text.txt"), "--window", "32", "--out", str(inputs / "run"))
    train = ("train", str(inputs / "llama"), *text, "--steps", "1", "--batch", "1", "--save-every", "0")
    commands = {
        "validate": ("validate", str(inputs / "llama"), *text),
        "sweep": ("sweep", str(inputs / "llama"), "--bias", "0:0", *text),
        "train": train,
    }
    first = holder(inputs / "run", "exclusive_run")
    for command in commands.values():
        for more in ([], ["--overwrite"]):
            code, _, err = run(*command, *more)
            assert (code, "another octoscale command is writing" in err) == (2, True), err
    finish(first)
    assert not (inputs / "run").exists()
    assert run(*train)[0] == 0
    (inputs / "run" / "summary.json").unlink()
    first = holder(inputs / "run", "exclusive_run")
    before = (inputs / "run" / "metrics.jsonl").read_bytes()
    code, _, err = run(*train, "--resume")
    assert (code, "another octoscale command is writing" in err) == (2, True)
    finish(first)
    assert (inputs / "run" / "metrics.jsonl").read_bytes() == before


def test_every_recorder_is_refused(tmp_path):
    model = tiny_llama()
    windows = tokens(2, 8)
    convert(model, Recipe.amax())
    first = holder(tmp_path / "run", "exclusive_run")
    with pytest.raises(FileExistsError, match="another octoscale command"), record(model, tmp_path / "run"):
        pass
    with pytest.raises(FileExistsError, match="another octoscale command"):
        octoscale.validate(tiny_llama(), ["amax"], windows=windows, folder=tmp_path / "run")
    finish(first)
    with record(model, tmp_path / "run"), torch.no_grad():
        model(windows)
