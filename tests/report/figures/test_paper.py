"""What reproduce wrote, as pictures and a page. Oracles: that the same numbers draw the same bytes; html.parser."""

from html.parser import HTMLParser

import pytest
from reproduced import reproduced

from octoscale.report.figures.paper import draw_paper
from octoscale.report.paper_page import write_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table and each kind of figure, written down by hand, and drawn."""
    tmp_path = tmp_path_factory.mktemp("paper")
    reproduced(tmp_path)
    names = [path.name for path in draw_paper(tmp_path)]
    assert names == ["fig5.png", "fig6.png", "fig6-2.png", "fig7.png", "fig10.png"]
    return tmp_path


class Page(HTMLParser):
    """Tags that were opened and closed, texts, and where pictures are from."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_same_numbers_draw_the_same_bytes(folder):
    before = {path.name: path.read_bytes() for path in folder.glob("fig*.??g")}
    assert len(before) == 10
    draw_paper(folder)
    assert {path.name: path.read_bytes() for path in folder.glob("fig*.??g")} == before


def test_the_page_stands_alone_and_holds_each_table_figure_and_command(folder):
    write_page(folder)
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    text = " ".join(page.texts)
    for expected in (
        "a<b",
        "66.67",
        "Of & nothing.",
        "octoscale reproduce <all>",
        "2030-01-02",
        "backend native, threads 2",
    ):
        assert expected in text
    assert "Left out: fig9 shows a third model." in text
    assert len(page.sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "<script" not in (folder / "index.html").read_text(encoding="utf-8")


def test_the_readme_links_what_is_there(folder):
    write_page(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []
    assert {"fig6-2.png", "table4.csv"} <= set(links)
    assert "| a<b | 66.67 |" in text
    assert "## Table 4. By hand" in text
