"""A loss scale that is applied twice, of notes and of rows. Oracle: factors that the test put there."""

import math

import pytest
from asked_rules import found, of
from written_runs import DOWN, row


def gradients(factors, notes=()):
    """What is found of gradients that are larger by a factor in each step; inputs stay as they are."""
    rows = []
    for step, factor in enumerate(factors):
        for layer in range(4):
            amax = (1 + 0.1 * layer + 0.01 * step) * factor
            bias = 15 - math.ceil(math.log2(amax))
            grad = {"role": "grad_output", "format": "e5m2", "scale_bias": bias, "amax": amax}
            rows += [row(step=step, layer=layer), row(step=step, layer=layer, **grad)]
    return of("loss_scale_twice", found(*rows, notes=notes))


def scale_note(step, value):
    return {"phase": "validate", "scaling": "amax", "note": "loss_scale", "step": step, "value": value}


@pytest.mark.parametrize(("factor", "expected"), [(2.0, []), (64.0, [(DOWN.format(0), "grad_output", 6)])])
def test_gradients_that_all_grow_at_once_and_stay_so(factor, expected):
    """Without notes: a loss that is computed outside of the model."""
    assert gradients([1.0] * 6 + [factor] * 10) == expected


@pytest.mark.parametrize(
    "factors",
    [
        [1.0] * 6 + [1 / 16] + [1.0] * 10,
        [1.0] * 6 + [16.0] * 4 + [1.0] * 10,
        [1.0, 16.0, 16.0, 1.0, 1.0, 1.0] + [16.0] * 10,
    ],
    ids=["one step is small", "some steps are large", "as large as some before"],
)
def test_gradients_that_go_up_and_down_are_no_loss_scale(factors):
    assert gradients(factors) == []


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ([(0, 1.0), (4, 64.0)], [4]),
        ([(0, 1.0), (4, 64.0), (7, 1.0)], [4]),
        ([(0, 1.0), (4, 64.0), (6, 1.0)], []),
        ([(0, 0.125), (4, 1.0), (5, 0.125), (9, 1.0), (10, 0.125)], []),
        ([(0, 0.125), (11, 1.0)], []),
        ([(0, 0.5), (3, 0.05), (3, 0.95), (4, 0.5)], []),
        ([(0, 512.0), (8, 1.0), (9, 512.0)], []),
        ([(0, 512.0), (5, 1.0), (8, 512.0)], [8]),
    ],
    ids=["stays", "for 3 steps", "for 2", "the last of 8 micro-batches", "at the end", "by tokens", "a gap", "a state"],
)
def test_a_loss_scale_that_jumps_and_stays_so(noted, expected):
    """Twelve steps; a jump by 2^3 and more over all of the three steps before, for three steps."""
    found = gradients([1.0] * 12, [scale_note(step, value) for step, value in noted])
    assert found == [(DOWN.format(0), "grad_output", step) for step in expected]


def test_where_a_loss_scale_is_noted_gradients_are_not_asked():
    assert gradients([1.0] * 6 + [64.0] * 10, [scale_note(0, 1.0)]) == []
