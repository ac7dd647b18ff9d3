"""Orders of layers, and how far two orders agree. Oracles: by hand; Spearman's formula without ties."""

import math
import random

import pytest

from octoscale.advise.estimate import CastSums, LayerEstimate
from octoscale.advise.rankings import ESTIMATE, rankings, spearman
from octoscale.conversion.convert import ModuleReport
from octoscale.numerics.recipe import Recipe


def layer(name, cost, noise, clipped):
    row = ModuleReport(module=name, type="Linear", shape=(2, 2), kind="other", layer=0, converted=True, reason="")
    estimate = LayerEstimate(row=row, recipe=Recipe.amax(), num_tokens=1)
    estimate.second["both"] = cost
    for role in ("weight", "input"):
        estimate.casts[role] = CastSums(
            signal=1.0, noise=noise if role == "input" else 1e-9, numel=100, saturated=clipped
        )
    return estimate


def test_each_order_by_hand():
    layers = [layer("a", 1, 0.1, 0), layer("b", 3, 0.2, 5), layer("c", 2, 0.0, 9), layer("d", 3, 0.3, 5)]
    assert rankings(layers) == {
        ESTIMATE: ["b", "d", "c", "a"],
        "lowest SQNR": ["d", "b", "a", "c"],
        "most saturated and flushed": ["c", "b", "d", "a"],
        "first and last layers": ["a", "d", "b", "c"],
    }


def test_spearman_without_ties():
    a = random.Random(0).sample(range(50), 50)
    b = random.Random(1).sample(range(50), 50)
    expected = 1 - 6 * sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (50 * (50**2 - 1))
    assert spearman(a, [2.0**x for x in b]) == pytest.approx(expected)


def test_spearman_with_ties_and_without_an_order():
    """Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: covariance 4.5, variances 4.5 and 5."""
    assert spearman([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(spearman([1, 1], [1, 2]))
