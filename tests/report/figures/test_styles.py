"""Styles as files: sizes, fonts, formats. Oracles: the bytes of PNG and PDF, as their standards say."""

import re
import struct
import zlib
from pathlib import Path

import matplotlib
import pytest
from written_runs import SUMMARY, small_run, write_run

from octoscale.report.contents import read_run
from octoscale.report.figures import style
from octoscale.report.figures.of_run import FIGURES, makers
from octoscale.report.figures.publish import Request, publish
from octoscale.report.figures.style import FORMATS, KIND_STYLES, LOOKS, STYLES, get_style


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    return read_run(write_run(tmp_path_factory.mktemp("styles") / "run", small_run(), SUMMARY).path)


@pytest.fixture(scope="module")
def published(contents):
    """One run in the two styles, in all formats."""
    words = {"formats": FORMATS, "only": ["perplexity", "scale_bias", "exponents"]}
    return {style: publish(contents, Request(style=style, **words)) for style in ("paper", "slides")}


def png_size(path):
    """Width, height and pixels in an inch: the chunks IHDR and pHYs."""
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"pHYs") + 4
    return width, height, round(struct.unpack(">I", data[start : start + 4])[0] * 0.0254)


def pdf_bytes(path):
    """The file with its streams inflated."""
    data = path.read_bytes()
    streams = re.findall(rb"/FlateDecode.*?stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    return data + b"\n".join(map(zlib.decompress, streams))


def test_a_paper_has_the_widths_of_its_columns(published):
    sizes = {stem: png_size(paths[2]) for stem, paths in published["paper"].drawing.files.items()}
    assert sizes["perplexity"][0] == 6.9 * 300
    assert sizes["scale_bias"][0] == 3.3 * 300  # two layers
    assert {size[2] for size in sizes.values()} == {300}
    assert all(height <= 9 * 300 for _, height, _ in sizes.values())


def test_slides_are_16_to_9(published):
    sizes = {png_size(paths[2])[:2] for paths in published["slides"].drawing.files.values()}
    assert {(round(width / height, 2), height) for width, height in sizes} == {(1.78, 1080)}


@pytest.mark.parametrize("style", ["paper", "slides"])
def test_a_pdf_carries_its_fonts_as_truetype(style, published):
    for paths in published[style].drawing.files.values():
        data = pdf_bytes(paths[0])
        assert data.startswith(b"%PDF")
        assert b"/FontFile2" in data
        assert b"/Type3" not in data


@pytest.mark.parametrize("style", ["paper", "slides"])
def test_an_svg_needs_no_font(style, published):
    for paths in published[style].drawing.files.values():
        assert "<text" not in paths[1].read_text()


def test_letters_of_a_paper_are_8_points(contents):
    figure = makers(contents)["scale_bias"]["scale_bias"](style="paper")
    sizes = {label.get_fontsize() for axes in figure.axes for label in (axes.xaxis.label, axes.title, axes._left_title)}
    assert sizes == {8.0}


@pytest.mark.parametrize("style", ["paper", "slides"])
def test_the_same_run_draws_the_same_files_whatever_the_settings(style, published, contents):
    before = {path: path.read_bytes() for paths in published[style].drawing.files.values() for path in paths}
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3, "savefig.dpi": 50}):
        publish(contents, Request(style=style, only=["perplexity", "scale_bias", "exponents"], formats=FORMATS))
    assert {path: path.read_bytes() for path in before} == before


def test_lines_differ_in_grey_print():
    """By dashes or marks; oracle: the pairs."""
    for looks in ([*KIND_STYLES.values()], LOOKS):
        assert len({(look.line, look.marker) for look in looks}) == len(looks)


def test_a_color_and_a_hatched_cell_are_stated_once():
    """Oracle: the text of our figures."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(style.__file__).parent.glob("*.py")))
    colors = re.findall(r"#[0-9A-F]{6}", text)
    assert len(colors) == len(set(colors)) > 6
    assert text.count('"hatch": ') == 1


def test_captions_say_what_is_not_in_the_picture(published):
    captions = published["paper"].drawing.captions
    assert captions["perplexity"].startswith(f"{FIGURES['perplexity'].shows}; tiny-llama, 4,096 tokens")
    assert "scaling cscale:2" in captions["exponents-cscale_2"]


def test_an_unknown_style_is_an_error():
    with pytest.raises(ValueError, match="unknown style 'poster': one of report, paper, slides"):
        get_style("poster")
    assert get_style("paper") is STYLES["paper"]
