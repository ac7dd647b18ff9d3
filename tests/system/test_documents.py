"""The documents are found in a wheel's copy, or a clone's. Oracles: a site made by hand; the browser that is asked."""

import pytest

from octoscale.cli.main import app
from octoscale.system import documents
from octoscale.system.errors import UserError


@pytest.fixture
def sites(tmp_path, monkeypatch):
    """Two places for a site, of which the second has one."""
    places = (tmp_path / "docs_site", tmp_path / "site")
    for name in ("index", "404", "guides/keep", "experiments/index"):
        (places[1] / name).parent.mkdir(parents=True, exist_ok=True)
        (places[1] / f"{name}.html").write_text(name)
    monkeypatch.setattr(documents.page, "__defaults__", (documents.START, places))
    return places


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("index", "index"),
        ("", "index"),
        ("guides/keep", "guides/keep"),
        ("guides/keep.html", "guides/keep"),
        ("experiments", "experiments/index"),
    ],
)
def test_a_page_by_its_name(sites, name, file):
    assert documents.page(name).read_text() == file


def test_the_wheels_copy_comes_first(sites):
    sites[0].mkdir()
    (sites[0] / "index.html").write_text("the wheel's")
    assert documents.page().read_text() == "the wheel's"


@pytest.mark.parametrize("name", ["guides/kep", "404", "../site/index", "guides"])
def test_what_is_no_page_is_refused_with_near_names(sites, name):
    with pytest.raises(UserError, match=r"no page .*; near names: .+"):
        documents.page(name)


def test_without_a_site_the_command_that_builds_it_is_named(sites, run):
    (sites[1] / "index.html").unlink()
    code, _, err = run("docs")
    assert code == 2
    assert "./dev docs --site" in err


@pytest.mark.parametrize(
    ("words", "opens", "printed"), [([], True, False), ([], False, True), (["--print"], True, True)]
)
def test_the_command_asks_a_browser_or_says_where_the_page_is(sites, run, monkeypatch, words, opens, printed):
    asked = []
    monkeypatch.setattr("webbrowser.open", lambda address: asked.append(address) or opens)
    code, out, _ = run("docs", "guides/keep", *words)
    page = sites[1] / "guides" / "keep.html"
    assert (code, out) == (0, f"{page}\n" if printed else "")
    assert asked == ([] if words else [page.as_uri()])


def test_docs_is_a_command():
    assert "docs" in {command.callback.__name__ for command in app.registered_commands}
