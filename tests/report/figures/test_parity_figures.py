"""The figures of a parity. Oracle: a parity that was written by hand, and the lines and words of what was drawn."""

import math

import pytest

from octoscale.report.figures.parity import parity_figure
from octoscale.report.figures.parity_layers import drawn_layers, parity_layers_figure
from octoscale.report.figures.parity_lengths import parity_lengths_figure
from octoscale.report.figures.style import STYLES


def texts(figure):
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return {text for text in found if text}


def line(axes, number):
    return [list(map(float, data)) for data in axes.lines[number].get_data()]


@pytest.fixture
def kinds():
    """Two kinds and two products; hopper's counts, and none of float32's."""
    rows = [
        {"result": result, "kind": kind, "sums": sums, "outputs": 200, "above": above}
        for result in ("output", "grad_weight")
        for kind in ("attn_qkv", "ffn_out")
        for sums, above in (("float32", [0, 0, 0]), ("hopper", [200, 50, 0]))
    ]
    return {"kinds": rows, "exponents": [-8, 0, 8], "dtype": "bf16"}


@pytest.mark.parametrize("style", STYLES)
def test_shares_of_outputs_by_kind(kinds, style):
    figure = parity_figure(kinds, style=style, note="of tiny")
    assert len(figure.axes) == 4
    x, shares = line(figure.axes[0], 1)
    assert (x, shares[:2]) == ([2.0**-8, 1.0, 256.0], [100.0, 25.0])
    assert math.isnan(shares[2])
    assert all(map(math.isnan, line(figure.axes[0], 0)[1]))
    words = ("attn qkv", "ff output", "float32", "hopper", "from exact, ulp of bf16")
    assert {*words, "output,\nfarther away, %", "grad_weight,\nfarther away, %"} <= texts(figure)
    assert figure.note == (
        "shaded: less than rounding may take, 1/2 ulp; a line that is not there lies below 1/256 ulp; of tiny"
    )


@pytest.mark.parametrize("style", STYLES)
def test_where_all_sums_are_exact_the_panels_are_empty(kinds, style, tmp_path):
    """Short sums of a small model: no share is above zero, and a logarithmic axis has nothing to take its ends from."""
    exact = kinds | {"kinds": [row | {"above": [0, 0, 0]} for row in kinds["kinds"]]}
    figure = parity_figure(exact, style=style)
    figure.savefig(tmp_path / "parity.png")
    assert [axes.get_ylim() for axes in figure.axes] == [(0.1, 100.0)] * 4
    assert "a line that is not there lies below 1/256 ulp" in figure.note


@pytest.fixture
def layers():
    rows = [
        {
            "module": f"{number}.{kind}",
            "layer": number,
            "kind": kind,
            "result": "output",
            "of_casts": {"float32": 1e-8, "hopper": 0.01 * (number + 1), "hopper, promoted": None},
        }
        for number in range(3)
        for kind in ("attn_qkv", "ffn_out")
    ]
    other = {"module": "x", "layer": None, "kind": "other", "result": "output", "of_casts": {"hopper": 1.0}}
    return {"layers": [*rows, other, rows[0] | {"result": "grad_input"}]}


def test_errors_by_depth_are_those_of_outputs_in_the_stack(layers):
    assert len(drawn_layers(layers)) == 6
    figure = parity_layers_figure(layers, note="of tiny")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "hopper"
    assert line(axes, 0) == [[0.0, 1.0, 2.0], pytest.approx([1.0, 2.0, 3.0])]
    assert {"attn qkv", "ff output", "of the casts' error, %", "decoder layer"} <= texts(figure)
    assert drawn_layers({"layers": [row | {"of_casts": {"hopper": 0.0}} for row in layers["layers"]]}) == []


@pytest.fixture
def lengths():
    families = [("normal", "N(0, 1)"), ("uniform", "U(0, 1)"), ("attention", "P V")]
    return {
        "lengths": [
            {
                "operands": name,
                "says": says,
                "lengths": [64, 128, 256],
                "casts": [0.04, 0.04, 0.04],
                "series": [
                    {"sums": "float32", "error": [0.0, 0.0, 0.0], "largest": [0.0, 0.0, 0.0]},
                    {"sums": "hopper", "error": [0.01, 0.02, 0.04], "largest": [0.1, 0.1, 0.1]},
                ],
            }
            for name, says in families
        ]
    }


def test_errors_by_length_stand_beside_the_casts_and_what_deepseek_says(lengths):
    figure = parity_lengths_figure(lengths)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown] == ["N(0, 1)", "U(0, 1)", "P V"]
    assert line(shown[0], 1) == [[64.0, 128.0, 256.0], pytest.approx([1.0, 2.0, 4.0])]
    assert line(shown[0], 2)[1] == pytest.approx([4.0, 4.0, 4.0])
    assert [len(axes.lines) for axes in shown] == [4, 4, 3]
    assert line(shown[1], 3) == [[4096.0], [2.0]]
    assert {"the casts to FP8", "error of the sums, %", "products in a sum"} <= texts(figure)
    assert any("DeepSeek" in text for text in texts(figure))
