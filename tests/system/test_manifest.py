"""A folder's list of its files. Oracle: by hand."""

import json

import pytest
from checkpoints import note

from octoscale.system.manifest import MANIFEST, first_stranger, kind_of, write_manifest


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b/c", "b/d/e"):
        note(tmp_path, name)
    write_manifest(tmp_path, "ours")
    return tmp_path


def test_the_list_names_what_is_there(folder):
    assert json.loads((folder / MANIFEST).read_text()) == {"kind": "ours", "files": {"a": 4, "b/c": 4, "b/d/e": 4}}
    assert (kind_of(folder), first_stranger(folder)) == ("ours", None)
    write_manifest(folder, "again", without=["a"])
    assert (kind_of(folder), first_stranger(folder)) == ("again", "a")


@pytest.mark.parametrize(
    ("change", "stranger"),
    [
        (lambda folder: note(folder, "new"), "new"),
        (lambda folder: note(folder, "b/new"), "b/new"),
        (lambda folder: note(folder, "b/c", "longer"), "b/c"),
        (lambda folder: (folder / "empty").mkdir(), "empty"),
        (lambda folder: (folder / "b" / "empty").mkdir(), "b/empty"),
        (lambda folder: (folder / "link").symlink_to("b"), "link"),
        (lambda folder: (folder / "link").symlink_to("nowhere"), "link"),
        (lambda folder: (folder / "b" / "c").unlink(), None),
        (lambda folder: note(folder, MANIFEST, "{"), "a"),
        (lambda folder: note(folder, MANIFEST, '{"files": {}}'), "a"),
        (lambda folder: note(folder, MANIFEST, '{"files": ["a", "b/c", "b/d/e"]}'), "a"),
    ],
)
def test_a_stranger_is_named(folder, change, stranger):
    change(folder)
    assert first_stranger(folder) == stranger


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"kind": 3}', '"kind"', "\x00"])
def test_a_list_that_is_none_has_no_kind(tmp_path, content):
    if content is not None:
        note(tmp_path, MANIFEST, content)
    assert kind_of(tmp_path) is None
