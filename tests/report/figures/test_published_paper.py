"""`octoscale figures` of a reproduction. Oracles: the pictures that reproduce draws; the PNG standard; broken files."""

import copy
import json
import shutil
import struct

import pytest
from reproduced import LINES, LOSSES, POINTS, SERIES, STEPS, WHO, reproduced

from octoscale.report.figures.paper import draw_paper, makers
from octoscale.report.paper_contents import FIGURES, is_reproduction, read_paper


@pytest.fixture
def made(tmp_path):
    """A folder as reproduce leaves it, but for the pictures."""
    (tmp_path / "made").mkdir()
    reproduced(tmp_path / "made")
    return tmp_path / "made"


def test_each_picture_is_drawn_in_the_style_and_its_formats_and_what_is_not_there_is_said(made, run):
    code, out, err = run("figures", made, "--json")
    printed = json.loads(out)
    stems = ["fig5", "fig6", "fig6-2", "fig7", "fig10"]
    assert (code, err) == (0, "")
    assert printed["figures"] == {
        stem: [str(made / "figures" / "paper" / f"{stem}.{end}") for end in ("pdf", "svg", "png")] for stem in stems
    }
    for stem in stems:
        data = (made / "figures" / "paper" / f"{stem}.png").read_bytes()
        assert struct.unpack(">I", data[16:20])[0] in (3.3 * 300, 6.9 * 300)
    assert printed["needs"] == {"fig8": f"octoscale reproduce fig8 --out {made}", "fig9": "it shows a third model"}
    assert printed["captions"]["fig6-2"] == "Figure 6. By hand; b, pydoc, 1,024 tokens"
    assert not (made / "figures" / "fig5.png").exists()


def test_in_the_style_of_a_report_they_are_those_that_reproduce_draws(made, run):
    draw_paper(made)
    code, out, _ = run("figures", made, "--style", "report", "--only", "fig5", "--only", "fig6")
    assert code == 0
    assert f"3 figures: {made / 'figures'}" in out
    for name in ("fig5.png", "fig6.png", "fig6-2.svg"):
        assert (made / "figures" / name).read_bytes() == (made / name).read_bytes()
    assert not (made / "figures" / "fig7.png").exists()


def test_slides_are_16_to_9_and_a_folder_of_ones_own_keeps_its_files(made, run, tmp_path):
    words = ("figures", made, "--style", "slides", "--format", "png", "--only", "fig10", "--out", tmp_path / "talk")
    assert run(*words)[0] == 0
    path = tmp_path / "talk" / "fig10.png"
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert (round(width / height, 2), height) == (1.78, 1080)
    path.write_text("mine")
    code, _, err = run(*words)
    assert (code, err.count("\n")) == (2, 1)
    assert path.read_text() == "mine"
    assert run(*words, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("words", "names", "said"),
    [
        ((), (), "is not a run, nor a folder of octoscale reproduce"),
        (
            (),
            ("made.json", "table4.json"),
            "holds no figure of the paper, fig5.json to fig10.json; octoscale reproduce",
        ),
        (("--only", "fig8"), ("fig5.json",), "has nothing for fig8: octoscale reproduce fig8"),
        (("--only", "loss"), ("fig5.json",), "unknown figure 'loss': one of fig5, "),
        (("--format", "gif"), ("fig5.json",), "unknown format 'gif'"),
        (("--style", "poster"), ("fig5.json",), "unknown style 'poster'"),
        (("--module", "m"), ("fig5.json",), "--module is for the figures of a run"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(words, names, said, made, run, tmp_path):
    (tmp_path / "some").mkdir()
    for name in names:
        shutil.copy(made / name, tmp_path / "some")
    code, out, err = run("figures", tmp_path / "some", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == sorted(names)


def test_a_run_is_never_taken_for_a_reproduction(made):
    assert is_reproduction(made)
    (made / "run.json").write_text("{}")
    assert not is_reproduction(made)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"title": "x"}', '{"title": "x", "panels": []}', "\x00"])
def test_a_damaged_figure_is_left_out_and_named(text, made, run):
    (made / "fig5.json").write_text(text)
    code, _, err = run("figures", made, "--format", "svg")
    assert code == 0
    assert err.startswith(f"octoscale: damaged, and left out: {made / 'fig5.json'} is damaged")
    drawn = sorted(path.name for path in (made / "figures" / "paper").iterdir())
    assert drawn == ["fig10.svg", "fig6-2.svg", "fig6.svg", "fig7.svg"]


def test_where_all_are_damaged_that_is_the_error(made, run):
    for path in made.glob("fig*.json"):
        path.write_text("{")
    code, out, err = run("figures", made)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{made / 'fig5.json'} is damaged" in err


def test_a_link_out_of_the_folder_is_not_followed(made, tmp_path):
    (made / "fig5.json").rename(tmp_path / "secret.json")
    (made / "fig5.json").symlink_to(tmp_path / "secret.json")
    contents = read_paper(made)
    assert "fig5" not in contents.figures
    assert contents.damaged[0].startswith(str(made / "fig5.json"))


PANELS = {
    "fig5": {**WHO, "lines": LINES, "points": POINTS},
    "fig6": {"model": "a", "text": "pydoc", "tokens": 1024, "series": SERIES},
    "fig7": {**WHO, "series": STEPS},
    "fig10": {**WHO, "series": LOSSES},
}


def places(value, path=()):
    """The way to each thing in a panel, lists at their first entry."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(panel, path, value):
    made = copy.deepcopy(panel)
    at = made
    for key in path[:-1]:
        at = at[key]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return made


@pytest.mark.parametrize("name", PANELS)
def test_whatever_one_field_holds_it_is_damage_or_can_be_drawn(name, tmp_path):
    """Every field gone, or something else: figures are drawn of what `read_paper` lets pass."""
    wrong = [KeyError, None, True, "x", -7, 2.5, 1e308, 10**400, float("inf"), [], [None], {}]
    assert set(PANELS) < set(FIGURES)
    refused, drawn = 0, set()
    for path in places(PANELS[name]):
        for value in wrong:
            content = {"title": "By hand", "panels": [changed(PANELS[name], path, value)]}
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
            try:
                contents = read_paper(tmp_path)
            except ValueError:
                refused += 1
                continue
            if path[-1] not in drawn:  # a field that may hold several of them is drawn with the first
                drawn.add(path[-1])
                for _, make in makers(name, contents.figures[name]):
                    make()
    assert refused > 80
