"""Errors by length. Oracle: the sums of Python's integers, code by code, and their errors in float64."""

import math

import pytest
import torch

from octoscale.numerics.accumulators import ACCUMULATORS, dot
from octoscale.parity.lengths import FAMILIES, _operands, curves_of
from octoscale.parity.ways import ways_of

pytest.importorskip("octoscale.kernels.native", reason="the C++ core was not built")

SIDE, LENGTHS = 3, [64, 200, 512]
PAIR = ("e4m3fn", "e4m3fn")


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_are_those_of_sums_in_integers(family):
    found = curves_of(family, ways_of(["hopper", "blackwell"]), "e4m3fn", LENGTHS, seed=5, side=SIDE)
    assert found["lengths"] == LENGTHS
    series = {row["sums"]: row for row in found["series"]}
    assert [*series] == ["float32", "hopper", "hopper, promoted", "blackwell"]
    for place, length in enumerate(LENGTHS):
        high, a, b = _operands(FAMILIES[family], "e4m3fn", length, SIDE, 5)
        rows, columns = a.codes.view(torch.uint8).tolist(), b.codes.t().contiguous().view(torch.uint8).tolist()
        scale = 2.0 ** -int(a.scale_bias + b.scale_bias)
        right = [
            [math.fsum(x * y for x, y in zip(r, c, strict=True)) * scale for c in _values(b.t())] for r in _values(a)
        ]
        norm = math.sqrt(sum(value * value for row in right for value in row))
        for name, fast in (("hopper", True), ("hopper, promoted", False), ("blackwell", True)):
            row = ACCUMULATORS[name.partition(",")[0]]
            away = [
                dot(r, c, PAIR, row, fast=fast) * scale - value
                for r, line in zip(rows, right, strict=True)
                for c, value in zip(columns, line, strict=True)
            ]
            error = math.sqrt(sum(x * x for x in away)) / norm
            assert series[name]["error"][place] == pytest.approx(error, rel=1e-6, abs=1e-12)
            largest = max(map(abs, away)) / (norm / SIDE)
            assert series[name]["largest"][place] == pytest.approx(largest, rel=1e-6, abs=1e-12)
        casts = float((torch.tensor(right, dtype=torch.float64) - high).norm() / norm)
        assert found["casts"][place] == pytest.approx(casts, rel=1e-9)


def _values(codes):
    return codes.codes.double().tolist()


def test_what_promotion_does():
    """Up to 128 products it does nothing; behind that, the error of one sum grows and that of short ones does not."""
    found = curves_of("uniform", ways_of(["hopper"]), "e4m3fn", [64, 128, 1024, 4096], seed=0, side=8)
    fast, promoted = (row["error"] for row in found["series"][1:])
    assert fast[:2] == promoted[:2]
    assert fast[3] > 4 * fast[2] > 16 * promoted[2]
    assert promoted[3] < 1.5 * promoted[2]


def test_rows_of_attention_are_weights_whose_largest_is_one():
    for name in ("attention", "attention, V of mean 1"):
        p, v = FAMILIES[name].make(4, 300, torch.Generator().manual_seed(0))
        assert (p.shape, v.shape) == ((4, 300), (300, 4))
        assert torch.equal(p.amax(1), torch.ones(4))
        assert p.min() > 0
        assert v.mean() == pytest.approx(1.0 if "mean 1" in name else 0.0, abs=0.1)


def test_the_same_seed_makes_the_same_and_another_does_not():
    made = [curves_of("normal", ways_of([]), "e4m3fn", [64], seed=seed, side=4) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_progress_counts_lengths():
    done = []
    curves_of("normal", ways_of([]), "e4m3fn", [64, 128], seed=0, side=2, on_length=done.append)
    assert done == [1, 2]
