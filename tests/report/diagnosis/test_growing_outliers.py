"""An outlier that grows, among siblings, and without. Oracle: growth by factors that the test chose; calls counted."""

import math

import polars as pl
import pytest
from asked_rules import found, of
from written_runs import DOWN, frame, row

from octoscale.report.diagnosis.growth import outlier_growth
from octoscale.report.diagnosis.tensors import groups_of

GATE = "model.layers.{}.mlp.gate_proj"


def inputs(binades, num_steps=16, name=DOWN, kind="ffn_out"):
    """Inputs of layers that grow by so many binades each, evenly from the fourth step to the last but two."""
    rows = []
    for layer, all_of_it in enumerate(binades):
        for step in range(num_steps):
            part = min(max((step - 3) / (num_steps - 6), 0), 1)
            names = {"layer": layer, "kind": kind, "module": name.format(layer)}
            rows.append(row(step=step, amax=2.0 ** (part * all_of_it)) | names)
    return rows


@pytest.mark.parametrize(
    ("binades", "expected"),
    [
        ([0, 0, 3.5, 0], [2]),
        ([0, 0, 2.5, 0], []),
        ([5, 5, 5, 5], []),
        ([5, 5, 9, 5], [2]),
        ([0, 0, 9, 9, 0], [2, 3]),
    ],
)
def test_growth_against_three_siblings_and_more(binades, expected):
    assert [module for module, _, _ in of("outlier_growth", found(*inputs(binades)))] == [
        DOWN.format(layer) for layer in expected
    ]


@pytest.mark.parametrize("binades", [(0, 5.5), (0, 0, 5.5)])
def test_a_median_of_one_or_two_siblings_says_nothing(binades):
    """As a down_proj of two or three layers does in training; other inputs stand still."""
    rows = [*inputs(binades), *inputs([0] * len(binades), name=GATE, kind="ffn_in")]
    assert of("outlier_growth", found(*rows)) == []


def test_without_siblings_the_inputs_of_all_layers_say_what_is_usual():
    rows = [*inputs([0, 9]), *inputs([0, 0], name=GATE, kind="ffn_in")]
    assert [module for module, _, _ in of("outlier_growth", found(*rows))] == [DOWN.format(1)]
    assert of("outlier_growth", found(*inputs([9]))) == []


def test_layers_of_one_kind_are_siblings_too():
    up = GATE.replace("gate", "up")
    rows = [*inputs([0, 4], name=GATE, kind="ffn_in"), *inputs([0, 0], name=up, kind="ffn_in")]
    assert [module for module, _, _ in of("outlier_growth", found(*rows))] == [GATE.format(1)]


def test_the_tables_that_are_made_do_not_grow_with_the_tensors(monkeypatch):
    """Linear in rows: no table is searched again for each tensor that grows."""
    calls = []
    for name in ("filter", "group_by", "join", "sort"):
        whole = getattr(pl.DataFrame, name)
        monkeypatch.setattr(pl.DataFrame, name, lambda *a, _whole=whole, **k: calls.append(1) or _whole(*a, **k))
    counted = []
    for num_layers in (9, 90):
        rows = frame(*inputs([4 if layer % 3 == 0 else 0 for layer in range(num_layers)]))
        (group,) = groups_of(rows, [], [], {})
        before = len(calls)
        assert len(list(outlier_growth(group))) == num_layers / 3
        counted.append(len(calls) - before)
    assert counted[0] == counted[1]


def test_where_growth_began():
    (each,) = [each for each in found(*inputs([0, 0, 8, 0], num_steps=40)) if each.rule == "outlier_growth"]
    assert math.isclose(each.numbers["binades"], 8, abs_tol=0.5)
    assert abs(each.step - 3) <= 3
