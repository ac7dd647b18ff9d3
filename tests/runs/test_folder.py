"""A run folder is never half written and never overwritten unasked. Oracle: the bytes on the disk before and after."""

import json
import math

import pytest
from checkpoints import contents as files

from octoscale.runs import folder
from octoscale.runs.files import MARK
from octoscale.runs.folder import RunFolder


@pytest.mark.parametrize("existing", ["absent", "empty"])
def test_create_makes_a_run(tmp_path, existing):
    path = tmp_path / "deep" / "run"
    if existing == "empty":
        path.mkdir(parents=True)
    run = RunFolder.create(path, {"seed": 1})
    assert run.read_json(run.header) == MARK | {"seed": 1}
    assert run.scales.is_dir()
    assert RunFolder.open(path).read_json(run.header) == MARK | {"seed": 1}


@pytest.mark.parametrize("overwrite", [False, True])
def test_create_refuses_a_folder_that_is_not_a_run(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds files that are not a run: choose another folder"):
        RunFolder.create(tmp_path, {}, overwrite=overwrite)
    assert files(tmp_path) == {"thesis.txt": b"years of work"}


def test_create_refuses_a_run_unless_told_to_overwrite(tmp_path):
    old = RunFolder.create(tmp_path / "run", {"seed": 1})
    (old.scales / "part-000000.parquet").write_bytes(b"old rows")
    old.append_metrics({"loss": 1.0})
    before = files(old.path)
    with pytest.raises(FileExistsError, match="already holds a run: choose another folder, or --overwrite"):
        RunFolder.create(old.path, {"seed": 2})
    assert files(old.path) == before
    RunFolder.create(old.path, {"seed": 2}, overwrite=True)
    assert list(files(old.path)) == ["run.json"]  # nothing of the old run is left to be mixed with the new one
    assert old.read_json(old.header) == MARK | {"seed": 2}


def test_a_run_that_a_crash_left_emptied_can_be_made_anew(tmp_path, monkeypatch):
    """A disk that was full when the new header should have been written. Oracle: the header, and the files."""
    path = RunFolder.create(tmp_path / "run", {"mine": 1}).path
    (path / "metrics.jsonl").write_text("{}\n")
    written = folder.write_json
    monkeypatch.setattr(folder, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        RunFolder.create(path, {"mine": 2}, overwrite=True)
    monkeypatch.setattr(folder, "write_json", written)
    assert RunFolder(path).is_emptied
    run = RunFolder.create(path, {"mine": 3})
    assert run.read_json(run.header)["mine"] == 3
    assert not run.metrics.exists()
    assert not run.is_emptied


def test_create_refuses_a_path_that_is_a_file(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match="run"):
        RunFolder.create(tmp_path / "run", {}, overwrite=True)
    assert (tmp_path / "run").read_text() == "a file"


def test_open_names_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run: it holds no run\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        RunFolder.open(tmp_path / "absent")


def test_read_json_names_what_is_missing(tmp_path):
    run = RunFolder.create(tmp_path, {})
    with pytest.raises(FileNotFoundError, match=r"has no summary\.json: the run ended before it was written"):
        run.read_json(run.summary)


def test_metrics_are_appended_line_by_line(tmp_path):
    run = RunFolder.create(tmp_path, {})
    rows = [{"step": 0, "loss": 0.1 + 0.2}, {"step": 1, "text": "two\nlines, ümlaut"}]
    for row in rows:
        run.append_metrics(row)
    lines = run.metrics.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_metrics_refuse_what_json_does_not_have(tmp_path, bad):
    run = RunFolder.create(tmp_path, {})
    with pytest.raises(ValueError, match="JSON compliant"):
        run.append_metrics({"loss": bad})


def test_a_line_cut_short_does_not_spoil_the_next(tmp_path):
    run = RunFolder.create(tmp_path, {})
    run.metrics.write_text('{"step": 0}\n{"step": 1, "lo')
    run.append_metrics({"step": 2})
    assert '{"step": 2}' in run.metrics.read_text().splitlines()


@pytest.mark.parametrize("name", ["metrics", "notes"])
def test_only_the_wanted_lines_are_kept(name, tmp_path):
    """A line that a crash cut short is none; a file that is not there is not made."""
    run = RunFolder.create(tmp_path / "run", {})
    path = getattr(run, name)
    run.keep_lines(path, lambda _: True)
    assert not path.exists()
    path.write_text('{"step": 0}\n{"step": 1}\n{"ste')
    run.keep_lines(path, lambda row: row["step"] > 0)
    assert path.read_text() == '{"step": 1}\n'
