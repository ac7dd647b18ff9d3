"""Results that outlive a kill. Oracles: the values that were put in, the files on the disk."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoscale.runs.cells import NAMES, Cells, check_words

IDENTITY = {"model": "gpt-10m", "window": 512, "skip": ("a", "b")}


def test_a_result_is_made_once_and_found_by_another_process(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"perplexity": 0.1 + 0.2, "losses": (1.0, 2.5)}

    expected = {"perplexity": 0.1 + 0.2, "losses": [1.0, 2.5]}
    for _ in range(2):
        assert Cells(tmp_path / "cells", IDENTITY).get_or_make("cscale:-1", make) == expected
    assert made == [1]
    assert Cells(tmp_path / "cells", IDENTITY).get("cscale:0") is None


def test_a_result_takes_the_place_of_an_older_one(tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    cells.put("a", 0)
    assert cells.get_or_make("a", lambda: 7) == 0
    cells.put("a", {"2": 1, "10": [False, None]})
    assert cells.get("a") == {"2": 1, "10": [False, None]}


def test_keys_of_numbers_are_texts_as_json_has_it(tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    cells.put("a", {2: "x", 10: "y"})
    assert cells.get("a") == {"2": "x", "10": "y"}


def test_what_make_raises_leaves_no_result(tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    with pytest.raises(ZeroDivisionError):
        cells.get_or_make("a", lambda: 1 / 0)
    assert cells.get("a") is None
    assert {path.name for path in tmp_path.iterdir()} == {"identity.json"}


def test_a_file_is_named_by_its_key_as_far_as_that_is_safe(tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    for key in ("cscale:-1", "PIQA / cscale:-1", "x" * 1000, "../../etc/passwd", "..", "", "identity", "con", "\ud800"):
        cells.put(key, key.replace("\ud800", "?"))
    names = sorted(
        path.name[: -len("-000000000000.json")] for path in tmp_path.iterdir() if path.name != "identity.json"
    )
    assert names == sorted(["cscale_-1", "piqa_cscale_-1", "x" * 80, "_.._etc_passwd", "", "", "identity", "con", "_"])
    assert all(re.fullmatch(NAMES, path.name) for path in tmp_path.iterdir())


@given(keys=st.lists(st.text(max_size=20), unique=True, max_size=5))
def test_any_texts_are_keys_and_none_takes_anothers_place(keys, tmp_path_factory):
    cells = Cells(tmp_path_factory.mktemp("cells"), IDENTITY)
    for number, key in enumerate(keys):
        cells.put(key, number)
    assert [cells.get(key) for key in keys] == list(range(len(keys)))


def test_keys_that_differ_in_case_alone_have_two_files(tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    cells.put("a", 1)
    cells.put("A", 2)
    assert len({path.name.lower() for path in tmp_path.iterdir()}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 256}, "window 512, not 256"),
        ({"seed": 1}, "seed unknown, not 1"),
        ({"model": "a", "window": 1}, "model gpt-10m, not a, window 512, not 1"),
        ({"skip": []}, r"skip \['a', 'b'\], not \[\]"),
    ],
)
def test_another_identity_is_refused_with_what_differs(change, message, tmp_path):
    Cells(tmp_path, IDENTITY).put("a", 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"were made with {message}: go on with the same, or in another folder"):
        Cells(tmp_path, IDENTITY | change)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def damage_digit(path):
    path.write_text(path.read_text().replace('"value": 12', '"value": 13'))


def damage_key(path):
    path.write_text(path.read_text().replace('"key": "a"', '"key": "b"'))


@pytest.mark.parametrize(
    "damage",
    [
        damage_digit,
        damage_key,
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(json.dumps([1])),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["digit", "key", "cut", "empty", "binary", "deep", "list", "folder"],
)
def test_a_damaged_result_is_refused_and_never_made_again(damage, tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    cells.put("a", 12)
    (path,) = (path for path in tmp_path.iterdir() if path.name != "identity.json")
    damage(path)
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged: delete it, and its result is made again")):
        cells.get_or_make("a", lambda: 12)


def test_an_identity_that_is_damaged_or_gone_is_refused(tmp_path):
    Cells(tmp_path, IDENTITY).put("a", 1)
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(ValueError, match=r"identity\.json is damaged: delete .*, and begin again"):
        Cells(tmp_path, IDENTITY)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(ValueError, match=r"holds results without identity\.json"):
        Cells(tmp_path, IDENTITY)


@pytest.mark.parametrize("value", [None, float("nan"), [float("inf")]])
def test_what_json_cannot_say_is_a_defect_of_the_caller(value, tmp_path):
    cells = Cells(tmp_path, IDENTITY)
    with pytest.raises(ValueError):  # noqa: PT011  json's own
        cells.put("a", value)
    assert cells.get("a") is None


def test_words_are_checked_without_the_rest_of_the_identity(tmp_path):
    check_words(tmp_path / "cells", {"window": 3})  # nothing there
    assert not (tmp_path / "cells").exists()
    Cells(tmp_path / "cells", IDENTITY)
    check_words(tmp_path / "cells", {"window": 512, "skip": ("a", "b")})
    with pytest.raises(ValueError, match="were made with window 512, not 3, seed unknown, not 1: go on with the same"):
        check_words(tmp_path / "cells", {"window": 3, "seed": 1})
    (tmp_path / "cells" / "identity.json").write_text("{")
    with pytest.raises(ValueError, match=r"identity\.json is damaged: delete .*, and begin again"):
        check_words(tmp_path / "cells", {})
    (tmp_path / "cells" / "identity.json").rename(tmp_path / "cells" / "x.json")
    with pytest.raises(ValueError, match=r"holds results without identity\.json"):
        check_words(tmp_path / "cells", {})
