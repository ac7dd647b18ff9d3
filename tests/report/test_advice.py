"""An advice as tables, a page and a figure. Oracles: the numbers of an advice that was made by hand."""

import math

import pytest

from octoscale.report.advice import advice_tables, markdown
from octoscale.report.figures.advice import advice_figure
from octoscale.report.figures.style import save


def cost(mean, margin=0.001):
    """What is expected, and twice as much measured, with an interval four times as wide."""
    return {"expected": one(mean, margin), "measured": one(2 * mean, 4 * margin)}


def one(mean, margin):
    if not math.isfinite(mean):
        return {"loss": None, "low": None, "high": None, "perplexity_excess": None, "is_clear": True}
    return {
        "loss": mean,
        "low": mean - margin,
        "high": mean + margin,
        "perplexity_excess": math.expm1(mean),
        "is_clear": not mean - margin <= 0 <= mean + margin,
    }


def layer(name, number, estimate, measured=None, kind="ffn_out"):
    role = {"sqnr_db": 31.25, "saturated": 0.0, "flushed": 0.002, "scale_bias": [3, 4], "amax": 2.0}
    row = {"module": name, "layer": number, "kind": kind, "estimate": {"both": estimate}}
    row |= {"weight": role, "input": role | {"sqnr_db": None, "scale_bias": [7, 7]}}
    return row | ({} if measured is None else {"alone": measured, "bought": one(0.001, 0.002)})


@pytest.fixture
def advice():
    return {
        "model": "a|b\nc",
        "recipe": "amax",
        "answer": ["Keep this layer in high precision: x.1.", "More."],
        "keep": ["x.1"],
        "cost": {"search": cost(0.03), "verify": cost(math.inf)},
        "cost_left": {"search": cost(0.005), "verify": cost(0.004)},
        "rankings": {"lowest SQNR": {"keep": ["x.0"], **cost(0.02)}},
        "scalings": {"cscale:3": cost(5.0)},
        "layers": [
            layer("x.0", 0, 0.0, kind="attn_qkv"),
            layer("x.1", 1, 0.02, cost(0.0213)),
            layer("x.2", 2, 1e-4, cost(2e-4)),
        ],
        "text": "t.txt",
        "verify_text": None,
        "tokens": 8192,
        "window": 512,
        "dtype": "fp32",
        "num_passes": 12,
        "backend": "native",
        "reason": "here",
    }


def test_the_tables_say_the_numbers(advice):
    costs, layers, scalings = advice_tables(advice)
    assert costs.rows == [
        ("nothing", "0", "+3.045±0.100", "+6.184±0.400", "not finite", "not finite"),
        ("this list", "1", "+0.501±0.100", "+1.005±0.400", "+0.401±0.100", "+0.803±0.400"),
        ("lowest SQNR", "1", "-", "-", "+2.020±0.100", "+4.081±0.400"),
    ]
    assert [row[0] for row in layers.rows] == ["x.1", "x.2", "x.0"]
    assert layers.rows[0][1:] == [
        "2",
        "+2.153±0.100",
        "+4.352±0.400",
        "+0.100±0.200?",
        "31.2",
        "0",
        "0.2",
        "3..4",
        "-",
        "0",
        "0.2",
        "7",
    ]
    assert layers.rows[1][2:4] == ["+0.020±0.100?", "+0.040±0.400?"]
    assert scalings.rows == [("amax", "not finite", "not finite"), ("cscale:3", "x 148", "x 2.2e+04")]


def test_the_page_holds_the_tables(advice):
    page = markdown(advice)
    assert page.startswith("# FP8 for a|b c: advice\n\nKeep this layer in high precision: x.1.\n")
    assert "| lowest SQNR | 1 | - | - | +2.020±0.100 | +4.081±0.400 |" in page
    assert "Searched on t.txt, verified on the next part of t.txt" in page


def test_without_a_list_there_is_nothing_left_to_say(advice):
    advice |= {"keep": None, "cost_left": None, "rankings": {}}
    costs, *_ = advice_tables(advice)
    assert [row[0] for row in costs.rows] == ["nothing"]
    assert advice_figure(advice)


def test_the_figure_is_the_same_twice_and_leaves_out_what_costs_nothing(advice, tmp_path):
    pictures = [save(advice_figure(advice), tmp_path / name, "advice")[0].read_bytes() for name in "ab"]
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
    (axes,) = advice_figure(advice).axes
    marks = [line for line in axes.lines if len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in marks] == [
        pytest.approx([100 * math.expm1(0.02), 100 * math.expm1(1e-4)])
    ]


def test_a_figure_of_layers_without_a_cost_is_empty(advice):
    advice["layers"] = [layer("x.0", None, 1.0), layer("x.1", 1, 0.0)]
    assert advice_figure(advice)
