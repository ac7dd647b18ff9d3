"""The page and the file of a contest. Oracles: a contest that was written by hand; one line for each kind of damage."""

import json

import pytest
from contests import ROWS, contest, row

from octoscale.paper.write import markdown
from octoscale.report.arena_contents import is_arena, read_arena
from octoscale.report.arena_page import draw_arena, write_arena_page
from octoscale.report.paper_contents import is_reproduction
from octoscale.system.errors import UserError


def test_the_page_holds_the_table_the_picture_and_what_it_was_made_with(tmp_path):
    folder = contest(tmp_path / "arena")
    assert draw_arena(folder) == [folder / "arena.png", folder / "arena.svg"]
    text = write_arena_page(folder).read_text()
    assert text.startswith("# Arena: m, reading a text\n")
    assert markdown(read_arena(folder)).removeprefix("### ") in text
    assert "| amax | - | 20.0000 | 1.00 | 0.50 | 1.50 | worse than bf16 | 8.000 | 1.50 | 2.0 |" in text
    assert "](arena.png)" in text
    assert text.endswith("`octoscale arena m`; 2030-01-02; cpu a CPU, octoscale 1.2\n")


def test_a_folder_of_the_arena_is_known(tmp_path):
    folder = contest(tmp_path / "arena")
    assert is_arena(folder)
    assert not is_arena(tmp_path)
    (folder / "run.json").write_text("{}")
    assert not is_arena(folder)
    assert not is_reproduction(folder)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rows": ROWS[:1]}, "rows"),
        ({"rows": [*ROWS, {**row("x"), "gap": "1"}]}, "rows"),
        ({"rows": [*ROWS, {**row("x"), "gap": float("nan")}]}, "rows"),
        ({"rows": [*ROWS, {**row("x", 1.0), "low": 0.5}]}, "rows"),
        ({"rows": [*ROWS, {**row("x"), "low": 0.5, "high": 1.0}]}, "rows"),
        ({"rows": [*ROWS, {"scaling": "x"}]}, "rows"),
        ({"columns": [{"key": "scaling", "title": "x"}, {"key": "command", "title": "y"}]}, "columns"),
        ({"columns": [{"key": "scaling", "title": "x", "digits": 400}] * 2}, "columns"),
        ({"against": 3}, "against"),
        ({"trains": "no"}, "trains"),
        ({"notes": "So."}, "notes"),
    ],
)
def test_damage_is_one_line(tmp_path, changes, field):
    folder = contest(tmp_path / "arena", **changes)
    with pytest.raises(UserError, match=f"arena.json is damaged: {field} is none of an arena"):
        read_arena(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_file_that_is_no_table_is_one_line(tmp_path, text):
    (tmp_path / "arena.json").write_text(text)
    with pytest.raises(UserError, match=r"arena\.json"):
        read_arena(tmp_path)


def test_figures_draws_it_in_a_style(tmp_path, run):
    folder = contest(tmp_path / "arena")
    code, out, err = run("figures", folder, "--style", "slides", "--format", "png", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["figures"] == {"arena": [str(folder / "figures" / "slides" / "arena.png")]}
    for words, said in (
        (("--module", "m"), "--module is for the figures of a run"),
        (("--only", "loss"), "unknown figure 'loss': one of arena"),
    ):
        code, out, err = run("figures", folder, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err
