"""Folders of checkpoints that replace only what octoscale wrote. Oracle: the files that stand there afterwards."""

import ctypes
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from checkpoints import contents, note, quantize, save_tiny_llama

from octoscale.checkpoints.settings import Quantization
from octoscale.models.export import run_quantization
from octoscale.system.manifest import MANIFEST
from octoscale.system.whole_folder import BEGUN

WRITERS = {
    "quantize": lambda folder: ("quantize", str(folder / "model"), str(folder / "out")),
    "materialize": lambda folder: ("models", "--materialize", "gpt-10m", "--layers", "1", str(folder / "out")),
}


def derive(out):
    """What transformers makes of one of our folders: it carries unknown keys of config.json along."""
    config = json.loads((out / "config.json").read_text())
    for path in out.iterdir():
        path.unlink()
    save_tiny_llama(out)
    note(out, "config.json", json.dumps(config))


def point_elsewhere(out):
    (out.parent / "data").mkdir()
    note(out.parent, "data/thesis.txt", "years of work")
    (out / "data").symlink_to(out.parent / "data")


#: What stands at OUT, alone or in a folder that octoscale wrote.
THEIRS = {
    "a folder": ("", lambda out: note(out, "thesis.txt")),
    "a folder with a run.json": ("", lambda out: note(out, "run.json", "{}")),
    "a folder with an empty folder": ("", lambda out: (out / "empty").mkdir(parents=True)),
    "their checkpoint": ("", save_tiny_llama),
    "a file": ("", lambda out: out.write_text("mine")),
    "a list of nothing": ("", lambda out: (note(out, MANIFEST, '{"files": {}}'), note(out, "thesis.txt"))),
    "a list that is none": ("", lambda out: (note(out, MANIFEST, "[]"), note(out, "thesis.txt"))),
    "a note": ("ours and", lambda out: note(out, "note.txt")),
    "a hidden note": ("ours and", lambda out: note(out, ".note")),
    "a deeper note": ("ours and", lambda out: note(out, "deeper/note.txt")),
    "an empty folder": ("ours and", lambda out: (out / "empty").mkdir()),
    "a config of their own": ("ours and", lambda out: note(out, "config.json")),
    "their weights by our names": ("ours and", derive),
    "a link to a folder": ("ours and", point_elsewhere),
    "a link that leads nowhere": ("ours and", lambda out: (out / "link").symlink_to("nowhere")),
}


@pytest.fixture
def source(tmp_path):
    return save_tiny_llama(tmp_path / "model")


@pytest.mark.parametrize("writer", WRITERS)
def test_overwrite_replaces_what_octoscale_wrote(writer, source, run):
    command = WRITERS[writer](source.parent)
    out = source.parent / "out"
    assert run(*command)[0] == 0
    first = contents(out)
    code, _, err = run(*command)
    assert (code, "exists already" in err) == (2, True)
    assert contents(out) == first
    assert run(*command, "--overwrite")[0] == 0
    assert contents(out) == first
    sizes = {name: len(content) for name, content in first.items() if name != MANIFEST}
    assert json.loads(first[MANIFEST]) == {"kind": "FP8 checkpoint", "files": sizes}
    assert [path.name for path in source.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("theirs", THEIRS)
def test_overwrite_never_replaces_what_others_wrote(theirs, writer, source, run):
    command = WRITERS[writer](source.parent)
    out = source.parent / "out"
    if THEIRS[theirs][0] == "ours and":
        assert run(*command)[0] == 0
    THEIRS[theirs][1](out)
    before = contents(source.parent)
    code, _, err = run(*command, "--overwrite")
    assert code == 2
    assert "out" in err
    assert contents(source.parent) == before


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_stays_and_its_target_is_written(writer, source, run):
    folder = source.parent
    (folder / "out").symlink_to(folder / "elsewhere")
    command = WRITERS[writer](folder)
    assert run(*command)[0] == 0
    assert (folder / "out").is_symlink()
    first = contents(folder / "elsewhere")
    assert run(*command, "--overwrite")[0] == 0
    assert (folder / "out").is_symlink()
    assert contents(folder / "elsewhere") == first


def test_out_is_never_the_source(source, run):
    before = contents(source)
    (source.parent / "link").symlink_to(source)
    for out in (source, source.parent, source.parent / "link", source / "../model"):
        for overwrite in ([], ["--overwrite"]):
            assert run("quantize", str(source), str(out), *overwrite)[0] == 2
    assert contents(source) == before


def test_out_in_the_source_is_a_folder_like_any(source):
    alone = quantize(source, source.parent / "out")
    assert quantize(source, source / "fp8") == alone


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("out", [".", "..", "/", "~"])
def test_where_somebody_is_is_never_replaced(out, writer, source, run, tmp_path, monkeypatch):
    """An empty folder too: the shell that is there would lose it."""
    (tmp_path / "home").mkdir()
    note(tmp_path / "home", "thesis.txt")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    path = str(tmp_path / "home") if out == "~" else out
    code, _, err = run(*WRITERS[writer](source.parent)[:-1], path, "--overwrite")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert contents(tmp_path / "home") == {"thesis.txt": b"mine"}
    assert Path.cwd().exists()


def test_where_a_file_system_begins_nothing_can_be_renamed(source, monkeypatch):
    out = source.parent / "out"
    out.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    with pytest.raises(ValueError, match="is where a file system begins: name a folder in it"):
        quantize(source, out, overwrite=True)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", [".out.tmp", ".out.old.tmp"])
def test_a_hidden_folder_of_others_stays(name, writer, source, run):
    note(source.parent / name, "thesis.txt")
    assert run(*WRITERS[writer](source.parent))[0] in (0, 2)
    assert contents(source.parent / name) == {"thesis.txt": b"mine"}


def test_a_refusal_makes_no_folder(source):
    with pytest.raises(ValueError, match="matches no linear layer"):
        quantize(source, source.parent / "new" / "out", skip=["nosuch"])
    config = source / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(ValueError, match="lacks 9 of the model"):
        quantize(source, source.parent / "new" / "out")
    assert sorted(path.name for path in source.parent.iterdir()) == ["model"]


class Killed(BaseException):
    """A process that ends here, as far as a test in one process can say it."""


def killed_at(monkeypatch, number):
    """Let the number-th rename or deletion of a folder's file, from now on, be the last moment of a process."""
    calls = []

    def counted(real):
        def call(self, *args, **options):
            if ".octoscale" not in self.name:
                calls.append(real)
                if len(calls) == number:
                    raise Killed
            return real(self, *args, **options)

        return call

    for name in ("rename", "unlink", "rmdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("number", range(1, 12))
def test_a_replacement_that_is_cut_short_anywhere(number, exchanges, source, monkeypatch):
    """Oracle: OUT is the old checkpoint or the new one, at once or after the next command; then nothing is left."""
    if not exchanges:
        monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    out = source.parent / "out"
    old = quantize(source, out, scaling="cscale:3")
    new = quantize(source, source.parent / "other")
    with monkeypatch.context() as patched:
        killed_at(patched, number)
        with suppress(Killed):
            quantize(source, out, overwrite=True)
    if exchanges:
        assert contents(out) in (old, new)
    with pytest.raises(FileExistsError, match="exists already"):
        run_quantization(Quantization(model=str(source), scaling="cscale:3"), out)
    assert contents(out) in (old, new)
    assert quantize(source, out, overwrite=True) == new
    assert [path.name for path in source.parent.iterdir() if path.name.startswith(".")] == []


def test_a_writer_holds_its_folder(source, monkeypatch):
    """The second command on the same folder, while the first is in the middle of it."""
    from octoscale.checkpoints import quantize as checkpoint

    out, write_rest = source.parent / "out", checkpoint._write_rest

    def meanwhile(*arguments):
        monkeypatch.undo()
        with pytest.raises(FileExistsError, match="another octoscale command"):
            quantize(source, out)
        write_rest(*arguments)

    monkeypatch.setattr(checkpoint, "_write_rest", meanwhile)
    assert quantize(source, out) == quantize(source, source.parent / "alone")


@pytest.mark.parametrize("left", [[], [f".{BEGUN}.4711.tmp"], [BEGUN], [BEGUN, "model.safetensors"]])
def test_a_process_that_was_killed_early_is_in_nobodys_way(left, source):
    (source.parent / ".out.tmp").mkdir()
    for name in left:
        note(source.parent / ".out.tmp", name, "{}")
    assert quantize(source, source.parent / "out") == quantize(source, source.parent / "other")
