"""What reproduce wrote, as pictures and a page. Oracles: that the same numbers draw the same bytes; html.parser."""

import json
from html.parser import HTMLParser

import pytest

from octoscale.paper.write import Column, Numbers, Table, write
from octoscale.report.figures.paper import draw_paper
from octoscale.report.paper_page import write_page

SERIES = [
    {"role": role, "kind": kind, "layer": [0, 1], "mode": [4, 5], "low": [3, 5], "high": [4, 6]}
    for role in ("weight", "input")
    for kind in ("attn_qkv", "ffn_out")
]
STEPS = [
    {"role": role, "kind": "ffn_out", "layer": layer, "step": [0, 1, 2], "mode": [4, 5, 5]}
    for role in ("weight", "input", "grad_output")
    for layer in (0, 1)
]
WHO = {"model": "some/gpt-$10m", "task": "sst2", "seed": 0}
POINTS = [
    {"bias": -1, "score": 79.0, "low": 70.0, "high": 85.0},
    {"bias": 0, "score": 80.0},
    {"bias": 1, "score": None},
]
LINES = [{"scaling": "bf16", "score": 80.0}, {"scaling": "amax", "score": 79.5, "low": 79.0, "high": 80.5}]
LOSSES = [
    {"scaling": "bf16", "step": [1, 2], "loss": [0.7, 0.5]},
    {"scaling": "amax", "step": [1, 2], "loss": [0.7, None]},
]
MADE = {
    "command": "octoscale reproduce <all>",
    "date": "2030-01-02",
    "machine": {"octoscale": "1.2", "backend": "native", "threads": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table and each kind of figure, written down by hand, and drawn."""
    tmp_path = tmp_path_factory.mktemp("paper")
    columns = (Column(key="model", title="model"), Column(key="amax", title="AMAX", digits=2))
    rows = [{"model": "a<b", "amax": 66.6666}]
    write(
        Table(name="table4", title="Table 4. By hand", columns=columns, rows=rows, notes=("Of & nothing.",)), tmp_path
    )
    panels = {
        "fig5": [{**WHO, "items": 10, "lines": LINES, "points": POINTS}] * 4,
        "fig6": [{"model": name, "text": "pydoc", "tokens": 1024, "series": SERIES} for name in ("a", "b")],
        "fig7": [{**WHO, "series": STEPS}],
        "fig10": [{**WHO, "series": LOSSES}] * 2,
    }
    for name, content in panels.items():
        write(Numbers(name=name, title=f"Figure {name[3:]}. By hand", panels=content, notes=("So.",)), tmp_path)
    made = dict.fromkeys(("table4", *panels), MADE)
    (tmp_path / "made.json").write_text(json.dumps(made | {"left_out": {"fig9": "shows a third model"}}))
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
