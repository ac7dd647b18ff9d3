"""A file is whole or not there. Oracle: the bytes on the disk before and after."""

import math
from pathlib import Path

import pytest
from checkpoints import contents as files

from octoscale.system.whole_file import replacing, write_json


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_write_json_refuses_what_json_does_not_have(tmp_path, bad):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": [bad]})
    assert files(tmp_path) == {"summary.json": b'{\n  "loss": 1.0\n}\n'}


def test_write_json_refuses_an_object_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"loss": 2.0, "path": tmp_path})
    assert files(tmp_path) == {"summary.json": b'{\n  "loss": 1.0\n}\n'}


@pytest.mark.parametrize("moment", ["write_text", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, moment):
    path = tmp_path / "summary.json"
    write_json(path, {"loss": 1.0})

    def fail(self: Path, *args, **kwargs):
        self.write_bytes(b"{ half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, moment, fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"loss": 2.0})
    assert files(tmp_path) == {"summary.json": b'{\n  "loss": 1.0\n}\n'}


def test_a_reader_sees_the_old_file_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "part"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename is atomic only within one file system
    assert files(tmp_path) == {"part": b"new"}


def test_a_full_disk_is_named_with_the_file(tmp_path):
    path = tmp_path / "figure.png"
    with pytest.raises(OSError, match=r"No space left on device: .*figure\.png"), replacing(path):
        raise OSError(28, "No space left on device")
    assert files(tmp_path) == {}
