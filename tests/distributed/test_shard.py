"""FSDP2 with FP8 codes on two ranks. Oracle: the same training in one process, which accumulates the ranks' batches.

With two ranks a sum has one order only: all that is added up is the same, bit for bit.
"""

import re

import pytest
import torch
from many import MODELS, bytes_gathered, called_by_itself, scales, train, train_alone, with_nan
from ranks import two_ranks  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and peft's own

STEPS = 4


def compare(ranks, name, scaling="amax", accumulate=2, **options):
    """Codes and scales of all weights, and the losses, are those of one process at each step."""
    losses, weights = train_alone(name, scaling, 2, accumulate, STEPS, options)
    answers = ranks.call(train, name, scaling, 2, 1, accumulate, STEPS, options)
    for step in range(STEPS):
        for module, (codes, bias) in weights[step].items():
            parts = [of_rank[step][module] for _, of_rank in answers]
            assert [part_bias for _, part_bias in parts] == [bias, bias], (step, module)
            assert torch.equal(torch.cat([part for part, _ in parts]), codes), (step, module)
    assert [list(pair) for pair in zip(*(of_rank for of_rank, _ in answers), strict=True)] == losses
    assert len({str(casts) for casts in weights}) == STEPS or "lora" in options


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_as_in_one_process(name, two_ranks):  # noqa: F811
    compare(two_ranks, name)


@pytest.mark.parametrize("scaling", ["cscale:2", "amax:margin=1"])
def test_every_rule_chooses_the_scales_of_one_process(scaling, two_ranks):  # noqa: F811
    compare(two_ranks, "llama", scaling)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [{"checkpointing": True}, {"frozen": ("down_proj", "c_fc", "layers.0", "h.0")}, {"lora": True}, {"autocast": True}],
    ids=str,
)
def test_what_trainings_do_beside(options, name, two_ranks):  # noqa: F811
    compare(two_ranks, name, **options)


def test_micro_batches_are_accumulated(two_ranks):  # noqa: F811
    compare(two_ranks, "llama", accumulate=8)


def test_one_byte_a_value_is_gathered(two_ranks):  # noqa: F811
    """Oracle: what FSDP2 alone gathers of the same layers. Norms stay in float32: a wide model, where they are few."""
    codes, bfloat16, float32 = (
        two_ranks.call(bytes_gathered, "wide", scaling, dtype)[0]
        for scaling, dtype in (("amax", None), (None, torch.bfloat16), (None, None))
    )
    assert 0 < codes <= 0.27 * float32
    assert codes <= 0.52 * bfloat16


def test_a_layer_that_is_called_by_itself_after_an_optimizer_step_is_refused(two_ranks):  # noqa: F811
    message = "layers.0.*its weight changed since the scales were chosen; call the sharded model itself"
    for heard in two_ranks.call(called_by_itself):
        assert re.search(message, heard)


def test_weights_that_are_not_finite_raise_on_every_rank_in_inference(two_ranks):  # noqa: F811
    assert two_ranks.call(with_nan, "eval") == ["layer model.layers.1.mlp.down_proj: the weight holds infinity"] * 2
    assert two_ranks.call(with_nan, "train") == ["nan"] * 2


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_scales_of_the_world_are_those_of_the_batches_together(name, two_ranks):  # noqa: F811
    """Oracle: one process that reads both batches as one: in the first forward pass, all numbers are the same."""
    together = scales(name, 1)
    for of_rank in two_ranks.call(scales, name, 2):
        assert of_rank["input"] == together["input"]
        assert of_rank["weight"] == together["weight"]
    apart = [of_rank["input"] for of_rank in two_ranks.call(scales, name, 2, False)]
    assert apart[0] != apart[1]
