"""The figure of a contest. Oracle: a contest that was written by hand, and the lines and words of what was drawn."""

import pytest
from contests import contest, row

from octoscale.report.arena_contents import read_arena
from octoscale.report.figures.arena import arena_figure
from octoscale.report.figures.style import STYLES


def marks(figure, marker):
    """Where marks of a kind are: gap, row, and whether they are filled."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker]
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_markerfacecolor() != "white")
        for line in lines
    ]


def texts(figure):
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@pytest.mark.parametrize("style", STYLES)
def test_marks_bars_and_words(tmp_path, style):
    figure = arena_figure(read_arena(contest(tmp_path / "arena")), style=style, note="a note")
    assert marks(figure, "o") == [(1.0, 0, True), (0.5, 1, False), (-1.0, 2, True), (0.25, 6, False)]
    bars = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [tuple(map(float, line.get_xdata())) for line in bars] == [(0.5, 1.5), (-0.5, 1.5), (-1.25, -0.75)]
    low, high = figure.axes[0].get_xlim()
    assert low < -1.25
    assert 1.5 < high < 3
    assert marks(figure, ">") == [(high, 3, True)]
    assert marks(figure, "x") == [(high, 4, True), (high, 5, True)]
    words = {"+400", "no finite result", "refused", "told from bf16", "not told from bf16", r"amax:\$row"}
    assert {*words, "perplexity above bf16's, %"} <= texts(figure)
    assert figure.note.endswith("intervals of the paired difference, over the windows; a note")
    assert figure.axes[0].yaxis_inverted()  # the first contestant is on top


def test_losses_of_trainings(tmp_path):
    folder = contest(tmp_path / "arena", trains=True, unit="seeds")
    assert "validation loss above bf16's, nats a token" in texts(arena_figure(read_arena(folder)))


def test_nobody_with_a_number_and_far_out_to_the_left(tmp_path):
    figure = arena_figure(read_arena(contest(tmp_path / "a", [row("bf16"), row("amax")])))
    assert len(marks(figure, "x")) == 1
    far = [row("bf16"), row("a", -900.0, -901.0, -899.0), row("b", 1.0, 0.9, 1.1), row("c", 1.0, 0.9, 1.1)]
    figure = arena_figure(read_arena(contest(tmp_path / "b", far)))
    assert marks(figure, "<") == [(figure.axes[0].get_xlim()[0], 0, True)]
    assert "-900" in texts(figure)


def test_a_gap_within_the_noise_of_the_others_is_never_far_out(tmp_path):
    """By its gap alone it would be: ten times the others'."""
    rows = [row("bf16"), *(row(name, 0.01, -1.0, 1.02) for name in "abc"), row("d", 0.1, -0.9, 1.1)]
    figure = arena_figure(read_arena(contest(tmp_path / "a", rows)))
    assert len(marks(figure, "o")) == 4
    assert marks(figure, ">") == []
