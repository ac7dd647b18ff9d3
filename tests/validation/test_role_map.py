"""Pairs of biases. Oracle: a map of three pairs worked out by hand."""

import math

import pytest

from octoscale.validation.criterion import perplexity_criterion
from octoscale.validation.role_map import pair_map, pair_of
from octoscale.validation.scores import Score

AMAX = Score(scaling="amax", perplexity=math.exp(3.0), seconds=1.0, losses=(2.0, 3.0, 4.0))


def shifted(scaling, by, **more):
    return Score(
        scaling=scaling, perplexity=math.exp(3.0 + by), seconds=1.0, losses=tuple(x + by for x in AMAX.losses), **more
    )


def test_a_map_of_pairs():
    scores = [
        AMAX,
        shifted("cscale:0", 0.0),
        shifted("cscale:weight=3,input=-1", math.log(1.25)),
        shifted("cscale:weight=-2,input=0", -0.001),
        shifted("cscale:weight=-2,input=1", 0.0, failure="layer 1: the input is NaN"),
    ]
    found = pair_map(scores, perplexity_criterion(AMAX.perplexity, AMAX.losses), ("weight", "input"))
    assert [(c["weight"], c["input"], c["verdict"]) for c in found["cells"]] == [
        (-2, 0, "passes"),
        (-2, 1, "fails"),
        (3, -1, "fails"),
    ]
    assert [cell["worse"] for cell in found["cells"]] == [pytest.approx(-0.09995), None, pytest.approx(25.0)]
    assert (found["what"], found["against"], found["roles"]) == ("perplexity", "amax", ["weight", "input"])
    assert found["text"] == (
        "1 of 3 pairs pass beyond noise (perplexity within 0.5% of amax's 20.0855; 95% intervals over 3 windows), "
        "0 are undecided; by the estimates alone 1 pass; the best is weight=-2, input=0"
    )


def test_without_a_reference_no_pair_passes_and_the_reason_is_said():
    found = pair_map([], "there is no finite perplexity of amax", ("input", "weight"))
    assert found == {
        "roles": ["input", "weight"],
        "cells": [],
        "text": "no pair passes (there is no finite perplexity of amax)",
    }


@pytest.mark.parametrize(
    ("scaling", "pair"),
    [
        ("cscale:weight=3,input=-1", (3, -1)),
        ("cscale:3", None),
        ("cscale:weight=3,input=-1,grad_output=2", None),
        ("amax", None),
    ],
)
def test_the_pair_of_a_scaling(scaling, pair):
    assert pair_of(scaling) == pair
