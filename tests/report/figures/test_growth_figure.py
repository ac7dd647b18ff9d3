"""The figure of bench growth. Oracle: the numbers that it was given, found again in what it drew."""

import pytest

from octoscale.report.figures.growth import growth_figure
from octoscale.report.figures.style import STYLES

RATIOS = {"a layer of gpt-111m": 1.09, "a layer of gpt-590m": 0.98, "a layer of gpt-1.3b": 0.94}
RANKS = {"1 rank": 1.05, "2 ranks": 0.71}


def report():
    """As the command prints it, without what the figure does not read."""
    ratios = RATIOS | RANKS
    return {
        "what": "a decoder layer of 512 tokens",
        "machine": {"cpu": "a CPU", "threads": 2},
        "ratios": {f"time_over_bf16, {what}": ratio for what, ratio in ratios.items()},
        "quartiles of the turns' ratios": {
            what: {"lower": ratio - 0.04, "upper": ratio + 0.3 * ratio} for what, ratio in ratios.items()
        },
    }


def test_a_panel_shows_the_ratios_in_their_order_on_an_axis_from_0():
    figure = growth_figure(report())
    for axes, expected in zip(figure.axes, (RATIOS, RANKS), strict=True):
        (at_1, line) = axes.get_lines()
        assert list(at_1.get_ydata()) == [1, 1]
        assert list(line.get_ydata()) == list(expected.values())
        assert [text.get_text() for text in axes.texts] == [f"{ratio:.2f}" for ratio in expected.values()]
        assert axes.get_ylim()[0] == 0
        highest = max(text.xy[1] for text in axes.texts)
        assert axes.get_ylim()[1] > highest == pytest.approx(1.3 * max(expected.values()))
    assert [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes] == [
        ["111M", "590M", "1.3B"],
        ["1 rank", "2 ranks"],
    ]


def test_a_line_reaches_over_the_middle_half_of_the_turns():
    figure = growth_figure(report())
    spreads = [segment[:, 1] for axes in figure.axes for segment in axes.collections[0].get_segments()]
    expected = [(ratio - 0.04, 1.3 * ratio) for ratio in (*RATIOS.values(), *RANKS.values())]
    assert [tuple(spread) for spread in spreads] == [pytest.approx(each) for each in expected]


@pytest.mark.parametrize("style", STYLES)
def test_it_has_the_style_that_was_asked_for(style):
    figure = growth_figure(report(), style=style)
    assert figure.style.name == style
    assert (
        "FP8-AMAX; a decoder layer of 512 tokens; lines: the middle half of the turns; a CPU, 2 threads" in figure.note
    )
