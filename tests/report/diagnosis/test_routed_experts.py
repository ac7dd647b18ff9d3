"""Experts, which a router calls when it likes. Oracle: rows of which layers were called, worked out by hand."""

import pytest
from asked_rules import found, note, of
from written_runs import row

from octoscale.report.diagnosis.tensors import is_routed

EXPERT = "model.layers.{}.mlp.experts.{}.up_proj"
SHARED = "model.layers.{}.mlp.shared_experts.up_proj"


def called(name, step, layer, times=1):
    """Rows of an input that is cast so many times in a step."""
    changes = {"module": name, "layer": layer, "step": step, "kind": "ffn_in", "amax": 20 + step / 97}
    return [row() | changes for _ in range(times)]


def rules(rows, notes=()):
    return {each.rule: each.module for each in found(*rows, notes=notes)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.block_sparse_moe.experts.7.w1", True),
        ("model.layers.0.mlp.experts.3.down_proj", True),
        ("model.layers.0.mlp.shared_experts.down_proj", False),
        ("model.layers.0.mlp.shared_expert.up_proj", False),
        ("model.layers.0.mlp.pre_expert_proj", False),
        ("model.layers.0.mlp.up_proj", False),
    ],
)
def test_which_layers_a_router_calls(name, expected):
    assert is_routed(name) == expected


def test_an_expert_that_got_no_token_at_all_is_no_fault():
    """Four experts in each of two layers; one is called in one of them only. A layer that is not routed is one."""
    names = [EXPERT.format(layer, expert) for layer in (0, 1) for expert in range(4)]
    rows = [each for step in range(4) for name in names[:-1] for each in called(name, step, int(name[13]))]
    assert rules(rows, [note(fp8=names)]) == {}
    shared = [each for step in range(4) for each in called(SHARED.format(0), step, 0)]
    fp8 = [*names, SHARED.format(0), SHARED.format(1)]
    assert rules([*shared, *rows], [note(fp8=fp8)]) == {"never_ran": SHARED.format(1)}


@pytest.mark.parametrize("steps_called", [[0, 1, 2, 5, 6], [0, 1, 2], [6]])
def test_an_expert_that_gets_tokens_in_some_steps_only_is_no_fault(steps_called):
    rows = [each for step in range(7) for layer in (0, 1) for each in called(EXPERT.format(layer, 0), step, layer)]
    rows += [each for step in range(7) for each in called(EXPERT.format(0, 1), step, 0)]
    rows += [each for step in steps_called for each in called(EXPERT.format(1, 1), step, 1)]
    assert of("never_ran", found(*rows)) == []


def test_an_expert_that_is_called_in_all_micro_batches_is_not_cast_twice():
    """In 4 of 4, its namesakes in 2. A shared expert is called in each: twice as often is a fault."""
    rows = []
    for step in range(4):
        for layer in range(3):
            rows += called(EXPERT.format(layer, 0), step, layer, times=2 if layer else 4)
            rows += called(SHARED.format(layer), step, layer, times=4)
    assert rules(rows) == {}
    more = [each for step in range(4) for each in called(SHARED.format(2), step, 2, times=4)]
    assert rules([*rows, *more]) == {"cast_twice": SHARED.format(2)}
