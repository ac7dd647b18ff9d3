"""Names from files in figures, all of the kind: shown as text, in one piece, inside the picture. Oracle: matplotlib."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from written_runs import frame, histogram, row

from octoscale.report.data.training import LossCurve
from octoscale.report.figures import paper
from octoscale.report.figures.advice import advice_figure
from octoscale.report.figures.bias_map import bias_map_figure
from octoscale.report.figures.clipping import clipping_figure
from octoscale.report.figures.exponents import exponents_figure
from octoscale.report.figures.loss import loss_figure
from octoscale.report.figures.perplexity import perplexity_figure
from octoscale.report.figures.scale_bias import scale_bias_figure
from octoscale.report.figures.scale_bias_steps import scale_bias_steps_figure
from octoscale.report.figures.style import STYLES, save
from octoscale.report.figures.words import shown

NAMES = {
    "html": "<script>alert(1)</script>&amp;'\"",
    "formula": r"$\frac{$ \$ $$ x_1^2 $\undefined$",
    "newlines": "a\nb\r\n\tc",
    "long": "W" * 10_000,
    "long words": "model of many words " * 500,
    "right to left": "\u202egnp.exe\u200f\u2066 \u05d0\u05d1",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "no glyph": "\u6a21\u578b \U00020000 \ue000 \xad\u200b",
    "half a character": "\udcff\ud800",
    "underscore": "_nolegend_",
    "empty": "",
    "percent": "100 % {x} %s \\n \\",
}


def perplexity(name, style):
    scores = {name: 17.0, f"{name}2": 18.0, "amax": 18.0, "cscale": {"-1": 17.5, "0": 17.2, "1": None}}
    return perplexity_figure(scores, style=style, note=name)


def bias_map(name, style):
    cells = [{"weight": 0, "input": bias, "verdict": "passes", "worse": 1.0} for bias in range(3)]
    found = {"roles": ["weight", "input"], "what": "accuracy", "against": name, "cells": cells}
    return bias_map_figure(found, style=style, note=name)


def rows(name, **changes):
    seen = {"scaling": name, "module": name, "exponents": histogram({0: 9, -12: 1})} | changes
    return frame(*(row(**seen, layer=layer, role=role) for layer in range(3) for role in ("weight", "input")))


def loss(name, style):
    words = {"scaling": "amax", "steps": [1, 2], "losses": [2.0, 1.0], "skipped": [], "validation": {}}
    curves = [LossCurve(label=f"{name}{number}", **words) for number in range(5)]
    return loss_figure(curves, style=style, note=name)


def advice(name, style):
    layers = [{"module": name, "layer": 0, "kind": "ffn_out", "estimate": {"both": 0.02}}]
    found = {"recipe": name, "model": name, "keep": [name], "tokens": 9, "layers": layers}
    return advice_figure(found, style=style, note=name)


def accuracies(name, style):
    points = [{"bias": -1, "score": 79.0, "low": 70.0, "high": 85.0}, {"bias": 0, "score": 80.0}]
    lines = [{"scaling": name, "score": 80.0}, {"scaling": f"{name}2", "score": 79.5}]
    panel = {"model": name, "task": name, "seed": 0, "lines": lines, "points": points}
    return paper._accuracy_figure([panel] * 3, style=style)


def losses(name, style):
    series = [{"scaling": f"{name}{number}", "step": [1, 2], "loss": [0.7, None]} for number in range(2)]
    return paper._losses_figure([{"model": name, "task": name, "seed": 0, "series": series}], style=style)


WHOSE = {
    "perplexity": perplexity,
    "bias_map": bias_map,
    "scale_bias": lambda name, style: scale_bias_figure(rows(name), scaling=name, style=style, note=name),
    "exponents": lambda name, style: exponents_figure(rows(name), module=name, scaling=name, style=style, note=name),
    "clipping": lambda name, style: clipping_figure(rows(name), scalings=[name], style=style, note=name),
    "scale_bias_steps": lambda name, style: scale_bias_steps_figure(rows(name, phase="train"), style=style, note=name),
    "loss": loss,
    "advice": advice,
    "paper's accuracies": accuracies,
    "paper's losses": losses,
}
OF_ROWS = ("scale_bias", "exponents", "clipping", "scale_bias_steps")


def numbers_of(axis):
    """The labels of the ticks, those included that are beyond the axis and not drawn."""
    return [label for tick in (*axis.majorTicks, *axis.minorTicks) for label in (tick.label1, tick.label2)]


def drawn_texts(figure):
    """What is drawn beside the numbers of axes, and the rectangle that it fills, in pixels."""
    figure.set_dpi(144)
    with figure.style.applied():
        FigureCanvasAgg(figure).draw()
        ticks = {id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in numbers_of(axis)}
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and id(text) not in ticks]
        return [(text, text.get_window_extent()) for text in texts]


#: Names in the rows of a run are Unicode; those in its JSON files may be less.
PAIRS = [(name, whose) for name in NAMES for whose in WHOSE if not (name == "half a character" and whose in OF_ROWS)]


@pytest.mark.parametrize(("name", "figure"), PAIRS)
def test_a_name_is_text_inside_the_picture(name, figure):
    """No warning, which is an error here, no formula, nothing unprintable, nothing beyond the edges.

    Each figure meets each style, and each name.
    """
    style = [*STYLES][PAIRS.index((name, figure)) % len(STYLES)]
    made = WHOSE[figure](NAMES[name], style)
    texts = drawn_texts(made)
    assert texts
    for text, box in texts:
        words = text.get_text()
        assert all(letter.isprintable() or letter == "\n" for letter in words), repr(words)
        assert text._preprocess_math(words)[1] is False
        assert -2 <= box.x0 < box.x1 <= made.bbox.width + 2, (words, box)
        assert -2 <= box.y0 < box.y1 <= made.bbox.height + 2, (words, box)


@pytest.mark.parametrize("name", ["html", "terminal", "no glyph", "formula"])
def test_files_of_all_formats_hold_it(name, tmp_path):
    for style in STYLES:
        paths = save(loss(NAMES[name], style), tmp_path, style, ("pdf", "svg", "png"))
        assert all(path.stat().st_size > 1000 for path in paths)
        svg = paths[1].read_text(encoding="utf-8")
        assert "<script" not in svg
        assert "\x1b" not in svg


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "plain"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[1m", r"\x1b[1m"),
        ("\u202ex\u200f", r"\u202ex\u200f"),
        ("\u6a21", r"\u6a21"),
        ("\U00020000", r"\U00020000"),
        ("é", "é"),
        ("$x$", r"\$x\$"),
        ("_x", " _x"),
    ],
)
def test_what_cannot_be_seen_stands_as_its_escape(name, text):
    assert shown(name) == text


def test_a_long_name_keeps_its_two_ends_and_fits():
    """Oracle: the extent that matplotlib measures."""
    name = "model.layers." + "x" * 300 + ".mlp.down_proj"
    text = shown(name, 2.0, 10.0)
    assert text.startswith("model.layer")
    assert text.endswith("p.down_proj")
    assert 1.7 * 72 < TextPath((0, 0), text, size=10.0).get_extents().width <= 2.0 * 72
    assert shown("short", 2.0, 10.0) == "short"


def test_a_legend_shows_every_label(recwarn):
    """Matplotlib leaves out those that begin with an underscore."""
    figure = loss_figure([LossCurve(label="_run", scaling="amax", steps=[1], losses=[1.0], skipped=[], validation={})])
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["_run"]
    assert not recwarn.list


def test_notes_are_in_the_picture_or_for_the_caption():
    drawn = {style: loss_figure(curves(), style=style, note="a note") for style in STYLES}
    assert {style: figure.note for style, figure in drawn.items()} == dict.fromkeys(
        STYLES, "lines: training; circles: validation; a note"
    )
    inside = [style for style, figure in drawn.items() if any("a note" in t.get_text() for t in figure.findobj(Text))]
    assert inside == ["report", "slides"]


def curves():
    return [LossCurve(label="amax", scaling="amax", steps=[1], losses=[1.0], skipped=[], validation={})]
