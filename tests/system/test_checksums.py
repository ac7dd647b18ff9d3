"""A file that changed is named. Oracle: the bytes on the disk, one of which was changed."""

import os
import zlib

import pytest

from octoscale.system import checksums
from octoscale.system.checksums import CHECKSUMS, check_checksums, write_checksums
from octoscale.system.errors import UserError
from octoscale.system.whole_file import write_json

CONTENT = {"a.json": b"{}", "b.pt": bytes(range(256)) * 20, "empty": b"", "sub/c": b"parts"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, data in CONTENT.items():
        (tmp_path / name).write_bytes(data)
    write_checksums(tmp_path)
    return tmp_path


def test_a_folder_that_is_as_it_was_passes(folder):
    check_checksums(folder)
    assert f"{zlib.crc32(CONTENT['b.pt']):08x}" in (folder / CHECKSUMS).read_text()
    write_checksums(folder)
    check_checksums(folder)


def test_what_another_process_computed_is_taken_as_it_says(folder, monkeypatch):
    """Files that are listed nowhere here yet, too: another machine wrote them."""
    read = []
    monkeypatch.setattr(checksums, "crc_of", lambda path: read.append(path.name) or zlib.crc32(path.read_bytes()))
    known = {name: zlib.crc32(CONTENT[name]) for name in ("b.pt", "empty", "sub/c")}
    (folder / "sub" / "c").unlink()
    write_checksums(folder, known)
    assert read == ["a.json"]
    with pytest.raises(UserError, match="c is missing, or no file"):
        check_checksums(folder)
    (folder / "sub" / "c").write_bytes(CONTENT["sub/c"])
    check_checksums(folder)


def test_a_folder_without_checksums_passes(tmp_path):
    (tmp_path / "a").write_text("x")
    check_checksums(tmp_path)


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("change", ["flip", "cut", "delete", "pipe", "folder", "loop"])
def test_a_file_that_changed_is_named(change, name, folder):
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if change == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:] if data else b"x")
    elif change == "cut":
        path.write_bytes(data[:-1] if data else b"x")
    elif change == "pipe":
        os.mkfifo(path)
    elif change == "folder":
        path.mkdir()
    elif change == "loop":
        path.symlink_to(path.name)
    with pytest.raises(ValueError, match=rf"{name} is .*: delete {folder} to go on without it"):
        check_checksums(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"../x": "0"}', '{"/x": "0"}', '{"sub/../../x": "0"}', '{"": "0"}', "[" * 100000]
)
def test_checksums_that_are_damaged_are_named(text, folder):
    (folder / CHECKSUMS).write_text(text)
    with pytest.raises(ValueError, match=rf"{CHECKSUMS} is damaged"):
        check_checksums(folder)


def test_a_checksum_of_another_type_is_another_one(folder):
    write_json(folder / CHECKSUMS, {"a.json": None})
    with pytest.raises(ValueError, match=r"a\.json is not what was written there"):
        check_checksums(folder)
