"""The numbers that figures show. Oracles: tables worked out by hand, numerics/reference.py."""

import math

import pytest
from written_runs import DOWN, PERPLEXITY, frame, histogram, row

from octoscale.numerics import reference
from octoscale.report.data import validation as data


def test_scores_are_split_into_lines_and_points():
    lines, points = data.split_scores(PERPLEXITY | {"cscale": {"2": None, "-10": 9.0, "1": 18.1}})
    assert list(lines.items()) == [("bf16", 17.5), ("amax", 18.0), ("amax:margin=3", 18.2)]
    assert list(points.items()) == [(-10, 9.0), (1, 18.1), (2, None)]


def test_excess_is_in_per_cent_and_leaves_out_what_is_not_finite():
    assert data.excess({-1: 22.0, 0: 0.0, 1: None}, 20.0) == pytest.approx({-1: 10.0, 0: -100.0})
    assert data.excess({"amax": 22.0}, None) == {}


def test_the_basin_is_at_most_half_a_per_cent_above_amax():
    assert data.basin(PERPLEXITY) == [0]  # the limit is 18.09, which 18.09 / 18 misses in floating point
    assert data.basin(PERPLEXITY | {"amax": 18.01}) == [-1, 0, 1]


@pytest.mark.parametrize("missing", [{"amax": None}, {"cscale": {}}, {"amax": 1.0}])
def test_there_may_be_no_basin(missing):
    assert data.basin(PERPLEXITY | missing) == []
    assert data.basin({}) == []


def test_shares_by_exponent_are_of_the_nonzero_finite_values():
    rows = frame(
        row(exponents=histogram({0: 5, -3: 2}, zeros=50, nonfinite=7)),
        row(exponents=None),
        row(exponents=histogram({0: 1, 127: 1, -126: 1})),
    )
    assert data.shares_by_exponent(rows) == {-126: 10.0, -3: 20.0, 0: 60.0, 127: 10.0}
    assert data.shares_by_exponent(frame(row(exponents=histogram({}, zeros=9)))) == {}
    assert data.shares_by_exponent(frame(row())) == {}


@pytest.mark.parametrize("scale_bias", [-3, 0, 11])
def test_reach_agrees_with_the_cast(fmt, scale_bias):
    held = data.reach(fmt, scale_bias)

    def codes(x):
        return reference.quantize([x], fmt, scale_bias)

    flushed, normal = 2.0**held.flushed, 2.0**held.normal
    assert codes(flushed)[1].flushed == 1
    assert codes(math.nextafter(flushed, 1.0))[1].flushed == 0
    mantissa_mask = (1 << fmt.mantissa_bits) - 1
    assert codes(normal)[0] == [mantissa_mask + 1]  # the first code with an exponent field
    largest = fmt.max * 2.0**-scale_bias
    assert math.log2(largest) == pytest.approx(held.saturated)
    assert codes(largest)[1].saturated == 0
    assert codes(math.nextafter(largest, math.inf))[1].saturated == 1


def test_clipped_shares_are_of_all_values_over_steps_and_modules():
    rows = frame(
        row(saturated=1, flushed=20),
        row(step=1, saturated=2, flushed=0, numel=300),
        row(layer=1, numel=0),
        row(scaling="cscale:1", role="weight", flushed=100),
        row(layer=None, module="head", saturated=100),
    )
    assert data.clipped_shares(rows).rows() == [
        ("amax", "input", "ffn_out", 0, 0.75, 5.0),
        ("cscale:1", "weight", "ffn_out", 0, 0.0, 100.0),
    ]


@pytest.mark.parametrize(
    ("shares", "limits"),
    [
        ([0.0, 0.02, 3.0], (0.01, 10.0)),
        ([100.0], (10.0, 100.0)),
        ([10.0], (10.0, 100.0)),
        ([1.0], (1.0, 10.0)),
        ([0.0], (1.0, 10.0)),
    ],
)
def test_shares_are_shown_in_whole_decades(shares, limits):
    assert data.decades(shares) == limits


def test_the_main_scaling_is_amax_or_the_first_that_adapts():
    assert data.main_scaling(["cscale:1", "amax:margin=3", "amax"]) == "amax"
    assert data.main_scaling(["cscale:1", "delayed:history=4", "amax:margin=3"]) == "delayed:history=4"
    assert data.main_scaling(["cscale:1", "cscale:-1,formats=fnuz", "cscale:weight=3,input=-1"]) is None


@pytest.mark.parametrize(
    ("scalings", "shown"),
    [
        (["amax", "cscale:-8", "cscale:6", "cscale:-10"], ["amax", "cscale:6", "cscale:-10"]),
        (["cscale:3", "amax"], ["amax", "cscale:3"]),
        (["cscale:-1", "cscale:0"], ["cscale:0", "cscale:-1"]),
        (["amax:margin=3"], ["amax:margin=3"]),
        (["cscale:weight=3,input=-1"], ["cscale:weight=3,input=-1"]),
        (
            ["amax", "cscale:weight=3,input=-1", "cscale:weight=3,input=2", "cscale:weight=-3,input=9"],
            ["amax", "cscale:weight=3,input=2", "cscale:weight=-3,input=9"],
        ),
        ([], []),
    ],
)
def test_clipping_shows_the_main_scaling_and_the_outermost_biases(scalings, shown):
    assert data.clipping_scalings(scalings) == shown


def test_the_default_module_is_the_ffn_out_that_flushes_most_under_amax():
    bins = histogram({0: 9})
    rows = [row(layer=layer, exponents=bins) for layer in range(5)]
    q_proj = row(kind="attn_qkv", module="q_proj", flushed=90, exponents=bins)
    assert data.default_module(frame(*rows, q_proj)) == DOWN.format(2)
    constant = row(layer=4, scaling="cscale:1", flushed=90, exponents=bins)
    rows[3] |= {"flushed": 5}
    rows[1] |= {"flushed": 6, "numel": 200}
    unseen = row(layer=0, flushed=50)  # no histogram
    assert data.default_module(frame(*rows, q_proj, constant, unseen)) == DOWN.format(3)
    assert data.default_module(frame(q_proj, unseen)) == "q_proj"
    assert data.default_module(frame(constant)) == DOWN.format(4)
    assert data.default_module(frame(unseen)) is None


def test_exponents_are_drawn_for_the_main_scaling_and_the_worst_constant_one():
    losses = {"amax": 1, "cscale:0": 0, "cscale:1": 20, "cscale:-2": 50, "cscale:2": 10}
    rows = frame(*(row(scaling=scaling, flushed=flushed) for scaling, flushed in losses.items()))
    assert data.exponent_scalings(rows, PERPLEXITY) == ["amax", "cscale:2"]  # null is worse than any number
    assert data.exponent_scalings(rows, {"cscale": {"0": 30.0, "1": 31.0}}) == ["amax", "cscale:1"]
    assert data.exponent_scalings(rows, {}) == ["amax", "cscale:-2"]  # no perplexity: the most is lost
    assert data.exponent_scalings(rows.filter(scaling="amax"), PERPLEXITY) == ["amax"]
    assert data.exponent_scalings(frame(), {}) == []


@pytest.mark.parametrize(
    ("scaling", "constants"),
    [
        ("cscale:-3", (-3,)),
        ("cscale:-3,formats=fnuz", (-3,)),
        ("cscale:weight=3,input=-1", (3, -1)),
        ("cscale:weight=3,input=-1,grad_output=8,formats=fnuz", (3, -1)),
        ("amax", None),
        ("bf16", None),
        ("delayed:history=16", None),
    ],
)
def test_the_constants_of_a_scaling(scaling, constants):
    assert data.constants(scaling) == constants


@pytest.mark.parametrize(
    ("scaling", "roles"),
    [
        ("amax", {"weight", "input", "grad_output"}),
        ("cscale:3", set()),
        ("cscale:weight=3,input=-1", {"grad_output"}),
        ("cscale:weight=3,input=-1,grad_output=8", set()),
    ],
)
def test_the_roles_whose_scale_adapts(scaling, roles):
    assert {role for role in ("weight", "input", "grad_output") if data.adapts(scaling, role)} == roles
