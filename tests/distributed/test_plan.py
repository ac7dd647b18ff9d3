"""What a plan says is what a real step holds. Oracles: two processes, torch's profiler, a simulation of all layers."""

import pytest
import torch
from planned import measured, prepare, work
from ranks import two_ranks  # noqa: F401

from octoscale.distributed import plan
from octoscale.distributed.mesh import Parallel
from octoscale.distributed.plan import Work
from octoscale.models.quiet import quietly
from octoscale.models.simulated import simulated
from octoscale.models.sizes import config_of_size
from octoscale.training.settings import AMAX_GROUPS

ROWS = ("parameters", "casts", "gradients", "optimizer", "activations", "peak")

STEPS = [
    ("llama", "amax", {"fsdp": 2}, 1),
    pytest.param("llama", "amax", {"fsdp": 2}, 2, marks=pytest.mark.slow),
    ("llama", "cscale:-1", {"tp": 2}, 1),
    pytest.param("llama", "bf16", {"fsdp": 2}, 1, marks=pytest.mark.slow),
    pytest.param("llama", "bf16", {"tp": 2}, 1, marks=pytest.mark.slow),
    pytest.param("gpt", "amax", {"fsdp": 2}, 1, marks=pytest.mark.slow),
    ("gpt", "amax", {"replicate": 2}, 1),
]


def planned(*words, **options):
    """The plan of a step."""
    with quietly():
        return plan.train(work(*words, **options))


@pytest.mark.parametrize(("family", "scaling", "words", "micro_batches"), STEPS)
def test_a_rank_holds_what_was_planned(two_ranks, family, scaling, words, micro_batches):  # noqa: F811
    """Oracle: the memory of the tensors of a real step on each of two ranks; most to the byte."""
    held = planned(family, scaling, words, micro_batches)
    found = held.parts() | {"peak": held.peak}
    for real in two_ranks.call(measured, family, scaling, words, micro_batches):
        assert {name: found[name] for name in ROWS} == pytest.approx(real, rel=0.1)
        assert found["activations"] == pytest.approx(real["activations"], rel=0.01)
        for name in ("parameters", "casts", "gradients", "optimizer"):
            assert found[name] == real[name]


@pytest.mark.parametrize(
    ("family", "scaling", "words", "micro_batches"),
    [
        pytest.param("llama", "amax", {"fsdp": 4, "tp": 2}, 1, marks=pytest.mark.slow),
        pytest.param("llama", "amax", {"fsdp": 3}, 3, marks=pytest.mark.slow),
        pytest.param("gpt", "bf16", {"fsdp": 2, "replicate": 2}, 2, marks=pytest.mark.slow),
        pytest.param("llama", "bf16", {"fsdp": 2, "tp": 2}, 1, marks=pytest.mark.slow),
        ("gpt", "cscale:-1", {}, 1),
    ],
)
def test_a_deep_model_is_drawn_out_exactly(family, scaling, words, micro_batches):
    """Oracle: all layers simulated."""
    few = planned(family, scaling, words, micro_batches, 7)
    all_of_them = planned(family, scaling, words, micro_batches, 7, are_alike=False)
    assert few.parts() == all_of_them.parts()
    assert few.moved == pytest.approx(all_of_them.moved)
    assert few.messages == all_of_them.messages
    assert few.peak == all_of_them.peak


@pytest.mark.slow
def test_codes_move_where_weights_would():
    """Oracle: by hand. Of 3 in 4 parts that others have, weights of layers come twice a step, with one byte a value."""
    of_layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 320
    rest = 2 * 640 * 128 + (2 * 5 + 1) * 128
    in_fp8, without = (planned("llama", scaling, {"fsdp": 4}).moved for scaling in ("amax", "bf16"))
    assert in_fp8["reduce-scatter"] == without["reduce-scatter"] == 4 * (5 * of_layer + rest) * 3 / 4
    norms = 2 * 5 * 128
    of_root = 4 * (rest - norms)
    assert without["all-gather"] == pytest.approx((2 * (4 * (5 * of_layer + norms)) + of_root) * 3 / 4)
    assert in_fp8["all-gather"] == pytest.approx((2 * (5 * of_layer + 4 * norms) + of_root) * 3 / 4)


@pytest.mark.slow
def test_micro_batches_gather_each_and_share_gradients_once():
    """Oracle: the step of one."""
    one, many = (planned("llama", "amax", {"fsdp": 2}, number) for number in (1, 5))
    assert many.moved["reduce-scatter"] == one.moved["reduce-scatter"]
    assert many.moved["all-gather"] == 5 * one.moved["all-gather"]
    assert many.gradients == pytest.approx(2 * one.gradients, rel=0.01)  # whole, until the last


def test_scales_for_the_world_cost_a_message_a_cast():
    """Oracle: by hand. A layer casts 4 inputs, for q, k and v, and gate and up, share theirs, and 7 gradients."""
    own, shared = (planned("llama", "amax", {"fsdp": 4}, 3, 1, amax_group=group) for group in AMAX_GROUPS)
    casts = 3 * (4 + 7)
    assert own.messages["all-reduce"] == 3  # the amaxes of all weights
    assert shared.messages["all-reduce"] == own.messages["all-reduce"] + casts
    assert shared.moved["all-reduce"] == pytest.approx(own.moved["all-reduce"] + casts * 4 * 2 * 3 / 4)
    assert {**shared.moved, "all-reduce": 0} == {**own.moved, "all-reduce": 0}


def test_tensor_parallel_without_fp8_adds_up_the_same_sums():
    """Oracle: by hand. In float32, 2 sums of a layer's outputs, and of its 5 gradients with respect to an input."""
    held = planned("llama", "bf16", {"tp": 2}, 1, 1)
    assert held.messages == {"all-reduce": 2 + 5}
    assert held.moved["all-reduce"] == (2 + 5) * 2 * 200 * 128 * 4 * 2 * 1 / 2


def test_inference_holds_codes_keys_and_values():
    """Oracle: by hand, of a Llama with 2 heads of 32 keys and values."""
    with quietly():
        held = plan.infer(work("llama", "amax", {}))
    of_layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 320
    assert held.casts == 5 * of_layer
    assert held.cache == 5 * 2 * 2 * 200 * 64 * 4  # in the parameters' dtype, here float32
    assert held.parameters == 4 * (2 * 640 * 128 + (2 * 5 + 1) * 128)
    assert held.peak > held.casts + held.cache + held.parameters


def test_70b_on_512_ranks_takes_no_memory():
    """Oracle: arithmetic. All of 69 B parameters would not be here; 512 ranks have a part each."""
    config = config_of_size("llama2-70b")
    with quietly():
        held = plan.train(
            Work(
                make=lambda depth: simulated(config, depth, torch.float32),
                prepare=prepare("amax"),
                num_layers=80,
                vocabulary=32000,
                parallel=Parallel(fsdp=64, tp=8),
                batch=1,
                window=4096,
                autocast=torch.bfloat16,
            )
        )
    shared, whole = 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672), 2 * 32000 * 8192 + 161 * 8192
    assert held.parameters == pytest.approx(4 * (shared / 512 + whole / 64), rel=1e-3)
    assert held.optimizer == pytest.approx(2 * held.parameters, rel=1e-3)
