"""From amax to scale_bias. Oracles: integer arithmetic on Fractions, Table 7's largest values, math.ldexp."""

import dataclasses
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octoscale.numerics import reference
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.scaling import Amax, Constant, Delayed, History, amax_to_scale_bias, power_of_two

LARGEST = {"e4m3fn": 448, "e5m2": 57344, "e4m3fnuz": 240, "e5m2fnuz": 57344}  # Table 7
MARGINS = (0, 3, -2, 50)
float32s = st.floats(width=32, min_value=0, exclude_min=True, allow_infinity=False)


def exact_scale_bias(amax: float, name: str, margin: int = 0) -> int:
    """The oracle: the largest b with amax * 2**b <= max, less margin, within [-126, 126], in integers."""
    if amax == 0 or not math.isfinite(amax):
        return 0
    room = Fraction(LARGEST[name]) / Fraction(amax)
    bias = room.numerator.bit_length() - room.denominator.bit_length()
    bias -= Fraction(2) ** bias > room
    assert Fraction(2) ** bias <= room < Fraction(2) ** (bias + 1)
    return max(-126, min(126, bias - margin))


def by_torch(amaxes: list[float], fmt: Format, margin: int = 0) -> list[int]:
    return amax_to_scale_bias(torch.tensor(amaxes), fmt, margin).tolist()


def by_reference(amaxes: list[float], fmt: Format, margin: int = 0) -> list[int]:
    return [reference.scale_bias(amax, fmt, margin) for amax in amaxes]


IMPLEMENTATIONS = {"torch": by_torch, "reference": by_reference}


def float32_and_neighbors(points: list[float]) -> list[float]:
    """The points that are positive float32 numbers, and the float32 numbers next to each."""
    exact = np.array([point for point in points if 0 < point < 2.0**128 and np.float32(point) == point], np.float32)
    near = np.concatenate(
        [exact, np.nextafter(exact, np.float32(0)), np.nextafter(exact[exact < 3e38], np.float32(3e38))]
    )
    return np.unique(near).tolist()


POWERS_OF_TWO = float32_and_neighbors([2.0**k for k in range(-149, 128)])


def scaled_maxima(name: str) -> list[float]:
    """m * max * 2**k over float32's whole range, for a few odd m, and the neighbors."""
    return float32_and_neighbors([math.ldexp(m * LARGEST[name], k) for m in (1, 3, 5, 7) for k in range(-170, 130)])


@pytest.mark.parametrize("margin", MARGINS)
def test_every_power_of_two_and_its_neighbors(fmt, margin):
    expected = [exact_scale_bias(amax, fmt.name, margin) for amax in POWERS_OF_TWO]
    assert by_torch(POWERS_OF_TWO, fmt, margin) == expected


@pytest.mark.parametrize("margin", MARGINS)
def test_every_scaled_maximum_and_its_neighbors(fmt, margin):
    amaxes = scaled_maxima(fmt.name)
    assert len(amaxes) > 2000
    assert by_torch(amaxes, fmt, margin) == [exact_scale_bias(amax, fmt.name, margin) for amax in amaxes]


@pytest.mark.parametrize("margin", MARGINS)
def test_reference_is_exact_too(fmt, margin):
    amaxes = POWERS_OF_TWO[::11] + scaled_maxima(fmt.name)[::29]
    assert by_reference(amaxes, fmt, margin) == [exact_scale_bias(amax, fmt.name, margin) for amax in amaxes]


@given(amax=float32s, margin=st.integers(-300, 300))
def test_any_float32(fmt, amax, margin):
    assert by_torch([amax], fmt, margin) == [exact_scale_bias(amax, fmt.name, margin)]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_zero_infinity_and_nan_give_0(impl, fmt):
    """Oracle: DESIGN.md, whatever the margin."""
    assert IMPLEMENTATIONS[impl]([0.0, -0.0, math.inf, math.nan], fmt, 5) == [0, 0, 0, 0]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_known_values(impl):
    """Oracle: by hand; 256 <= 448 < 512 and 32768 <= 57344 < 65536."""
    known = {"e4m3fn": [8, 0, -1, 126, -119], "e5m2": [15, 7, 6, 126, -112]}
    for name, expected in known.items():
        assert IMPLEMENTATIONS[impl]([1.0, 448.0, 449.0, 2.0**-149, 2.0**127], FORMATS[name]) == expected


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_it_stays_where_the_multiplier_is_a_normal_float32(impl, fmt):
    """Oracle: the limits of DESIGN.md, [-126, 126]."""
    assert IMPLEMENTATIONS[impl]([2.0**-149, 2.0**-120], fmt, 0) == [126, 126]
    assert IMPLEMENTATIONS[impl]([3e38, 2.0**120], fmt, 40) == [-126, -126]


@given(amax=float32s)
def test_the_largest_value_lands_in_the_top_binade(fmt, amax):
    """Oracle: Fraction; unless the limit of 126 holds it back."""
    bias = by_torch([amax], fmt)[0]
    scaled = Fraction(amax) * Fraction(2) ** bias
    assert scaled <= Fraction(fmt.max)
    assert bias == 126 or 2 * scaled > Fraction(fmt.max)


def test_the_result_is_int32_of_the_shape_of_amax(fmt):
    for shape in ((), (0,), (3,), (2, 3)):
        bias = amax_to_scale_bias(torch.ones(shape), fmt)
        assert bias.shape == shape
        assert bias.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_amax_of_another_dtype_is_exact(fmt, dtype):
    amaxes = [2.0**-14, 1.0, 448.0, 57344.0]
    expected = [exact_scale_bias(amax, fmt.name) for amax in amaxes]
    assert amax_to_scale_bias(torch.tensor(amaxes, dtype=dtype), fmt).tolist() == expected


def test_power_of_two_is_exact_over_its_domain():
    """Oracle: math.ldexp."""
    exponents = torch.arange(-126, 128, dtype=torch.int32)
    powers = power_of_two(exponents)
    assert powers.dtype == torch.float32
    assert powers.tolist() == [math.ldexp(1, k) for k in range(-126, 128)]
    assert power_of_two(exponents[0]).item() == 2.0**-126


# The rules


@pytest.mark.parametrize("margin", [0, 3])
def test_amax_rule_is_amax_to_scale_bias(fmt, margin):
    bias = Amax(margin=margin).scale_bias(torch.tensor(0.75), fmt)
    assert (bias.item(), bias.shape, bias.dtype) == (exact_scale_bias(0.75, fmt.name, margin), (), torch.int32)


@pytest.mark.parametrize("rule", [Amax(margin=2), Constant(3)])
def test_amax_and_constant_ignore_a_history(fmt, rule):
    assert rule.scale_bias(torch.tensor(1.0), fmt, history_of(1e-3)) == rule.scale_bias(torch.tensor(1.0), fmt)


@pytest.mark.parametrize("amax", [0.0, 1.0, 3e38, math.inf, math.nan])
@pytest.mark.parametrize("bias", [-126, -1, 0, 126])
def test_constant_is_the_same_for_every_amax(fmt, amax, bias):
    scale_bias = Constant(bias).scale_bias(torch.tensor(amax), fmt)
    assert (scale_bias.item(), scale_bias.shape, scale_bias.dtype) == (bias, (), torch.int32)


@pytest.mark.parametrize("bias", [-127, 127])
def test_constant_outside_the_limits_is_an_error(bias):
    with pytest.raises(ValueError, match=re.escape(f"constant scale_bias {bias} is outside -126..126")):
        Constant(bias)


@pytest.mark.parametrize("history", [0, -1])
def test_delayed_needs_a_step_of_history(history):
    with pytest.raises(ValueError, match=f"history of at least 1 step, not {history}"):
        Delayed(history=history)


@pytest.mark.parametrize("rule", [Amax, Delayed])
@pytest.mark.parametrize("margin", [2**40, -(2**40)])
def test_a_margin_beyond_int32_is_an_error(rule, margin):
    """It would wrap around in int32 and give a scale_bias that has nothing to do with it."""
    with pytest.raises(ValueError, match=str(margin)):
        rule(margin=margin)


@pytest.mark.parametrize("rule", [Amax(), Constant(1), Delayed()])
def test_rules_are_frozen(rule):
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.margin = 1


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Amax(), "amax"),
        (Amax(margin=3), "amax:margin=3"),
        (Constant(-1), "cscale:-1"),
        (Delayed(), "delayed:history=16"),
        (Delayed(history=4, margin=2), "delayed:history=4,margin=2"),
    ],
)
def test_a_rule_is_written_as_on_the_command_line(rule, text):
    assert str(rule) == text


# Delayed scaling and its history


def history_of(*amaxes: float, length: int = 16) -> History:
    """A history of closed steps with these amaxes."""
    history = History(length)
    for amax in amaxes:
        history.observe(torch.tensor(amax))
        history.advance()
    return history


def test_an_empty_history_has_no_largest():
    assert History(4).max() is None


def test_a_history_returns_its_largest_amax():
    assert history_of(1.0, 4.0, 2.0).max() == 4.0


def test_a_history_forgets_what_is_older_than_its_length():
    assert history_of(9.0, 1.0, 2.0, length=2).max() == 2.0
    assert history_of(1.0, 9.0, 2.0, length=1).max() == 2.0


def test_a_step_counts_only_when_it_is_closed():
    history = history_of(1.0)
    history.observe(torch.tensor(8.0))
    assert history.max() == 1.0
    history.advance()
    assert history.max() == 8.0


def test_the_micro_batches_of_a_step_enter_as_one_amax():
    history = History(2)
    for step in ([5.0, 1.0], [2.0, 3.0, 1.0], [1.0]):
        for amax in step:
            history.observe(torch.tensor(amax))
        history.advance()
    assert history.max() == 3.0  # of the last two steps, 3 and 1


def test_the_amaxes_of_one_step_do_not_leak_into_the_next():
    history = History(1)
    history.observe(torch.tensor(8.0))
    history.advance()
    history.observe(torch.tensor(2.0))
    history.advance()
    assert history.max() == 2.0


def test_advancing_without_an_observation_changes_nothing():
    history = history_of(3.0, length=1)
    history.advance()
    assert history.max() == 3.0


@pytest.mark.parametrize("amax", [0.0, math.inf, math.nan])
def test_a_step_of_zero_or_not_finite_amax_leaves_no_trace(amax):
    assert history_of(amax).max() is None
    assert history_of(3.0, amax, length=1).max() == 3.0


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("order", [1, -1])
def test_one_bad_micro_batch_drops_the_whole_step(bad, order):
    history = History(4)
    for amax in [2.0, bad][::order]:
        history.observe(torch.tensor(amax))
    history.advance()
    assert history.max() is None


@pytest.mark.parametrize("margin", [0, 2])
def test_delayed_takes_the_largest_of_the_history(fmt, margin):
    rule, now = Delayed(margin=margin), torch.tensor(1000.0)
    assert rule.scale_bias(now, fmt, history_of(1.0, 3.0, 2.0)) == exact_scale_bias(3.0, fmt.name, margin)


@pytest.mark.parametrize("history", [None, History(4)])
def test_delayed_falls_back_to_its_own_amax(fmt, history):
    bias = Delayed(margin=1).scale_bias(torch.tensor(3.0), fmt, history)
    assert (bias.item(), bias.shape, bias.dtype) == (exact_scale_bias(3.0, fmt.name, 1), (), torch.int32)


def test_delayed_ignores_the_step_that_is_still_open(fmt):
    """So a forward that is recomputed under activation checkpointing has the scale of the first one."""
    history, now = history_of(1.0), torch.tensor(64.0)
    before = Delayed().scale_bias(now, fmt, history)
    history.observe(now)
    assert Delayed().scale_bias(now, fmt, history) == before == exact_scale_bias(1.0, fmt.name)
