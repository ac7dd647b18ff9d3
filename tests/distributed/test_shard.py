"""FSDP2 with FP8 codes on two ranks. Oracle: the same training in one process, which accumulates the ranks' batches.

With two ranks a sum has one order only: all that is added up is the same, bit for bit.
"""

import pytest
import torch
from many import MODELS, train, train_alone
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
