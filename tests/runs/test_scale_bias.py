"""Which scale each layer had. Oracle: small tables worked out by hand."""

import math

import pytest
from written_runs import frame, row

from octoscale.runs.scale_bias import drawn_layers, scale_bias_by_layer, scale_bias_by_step


def test_scale_bias_is_the_mode_over_steps_and_modules():
    qkv = {"kind": "attn_qkv", "layer": 3}
    rows = frame(
        *(row(**qkv, step=step, module="q", scale_bias=bias) for step, bias in enumerate([4, 6, 6])),
        *(row(**qkv, step=step, module="k", scale_bias=bias) for step, bias in enumerate([4, 4, 9])),
        *(row(step=step, scale_bias=bias) for step, bias in enumerate([5, -2, -2, 5])),
        row(role="weight", scale_bias=8),
    )
    assert scale_bias_by_layer(rows).rows() == [
        ("input", "attn_qkv", 3, 4, 4, 9),
        ("input", "ffn_out", 0, -2, -2, 5),  # of two modes the smaller
        ("weight", "ffn_out", 0, 8, 8, 8),
    ]


@pytest.mark.parametrize("odd", [{"amax": 0.0}, {"amax": math.inf}, {"amax": math.nan}, {"layer": None, "module": "m"}])
def test_a_tensor_without_a_scale_or_a_layer_has_no_say(odd):
    rows = frame(row(), row(**odd, scale_bias=0), row(**odd, scale_bias=0))
    assert scale_bias_by_layer(rows).rows() == [("input", "ffn_out", 0, 4, 4, 4)]


@pytest.mark.parametrize(
    ("number", "layers"),
    [(30, [0, 14, 15, 29]), (10, [0, 4, 5, 9]), (5, [0, 2, 4]), (4, [0, 1, 2, 3]), (3, [0, 1, 2]), (1, [0]), (0, [])],
)
def test_the_first_two_middle_and_the_last_layers_are_drawn(number, layers):
    assert drawn_layers(range(number)) == layers


def test_the_mode_over_modules_and_micro_batches_of_each_step():
    rows = frame(*[row(scale_bias=bias) for bias in (3, 4, 4)], *[row(step=1, scale_bias=bias) for bias in (7, 5)])
    assert scale_bias_by_step(rows).rows() == [("input", "ffn_out", 0, 0, 4), ("input", "ffn_out", 0, 1, 5)]
