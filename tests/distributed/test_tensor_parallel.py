"""Tensor parallel on two ranks. Oracle: one process; sums that are in parts may differ in their last bits."""

import pytest
import torch
from many import MODELS, gradients, prepared, train, train_alone
from ranks import two_ranks  # noqa: F401
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from octoscale.conversion.stacks import decoder_stacks
from octoscale.distributed import plan
from octoscale.distributed.tensor_parallel import (
    COLWISE,
    GATHER_OUTPUT,
    ROWWISE,
    SPLIT_INPUT,
    split_layers,
    styles_of,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and peft's own

STEPS = 4

LLAMA = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), COLWISE),
    **dict.fromkeys(("o_proj", "down_proj"), ROWWISE),
}
GATHERED = {**dict.fromkeys(("q_proj", "k_proj", "v_proj"), GATHER_OUTPUT), "o_proj": SPLIT_INPUT}


def styles(name, size, **options):
    """By the last part of a layer's name."""
    model = prepared(name, "amax", **options)
    names = [key for key, module in model.named_modules() if hasattr(module, "fp8")]
    found = styles_of(model, names, size)
    assert set(found) == set(names)
    return {key.rpartition(".")[2]: style for key, style in found.items()}


def test_the_plan_is_the_models_own():
    assert styles("llama", 2) == LLAMA


@pytest.mark.parametrize(("name", "size"), [("few KV heads", 2), ("uneven", 2), ("llama", 4)])
def test_attention_is_whole_on_every_rank_where_they_do_not_divide_the_heads(name, size):
    assert styles(name, size) == LLAMA | GATHERED


@pytest.mark.parametrize("projection", LLAMA)
def test_a_block_is_whole_between_its_layers_if_one_of_them_is_left_out(projection):
    of_attention = projection in GATHERED
    whole = (
        GATHERED if of_attention else {"gate_proj": GATHER_OUTPUT, "up_proj": GATHER_OUTPUT, "down_proj": SPLIT_INPUT}
    )
    expected = {name: style for name, style in (LLAMA | whole).items() if name != projection}
    assert styles("llama", 2, skip=(projection,)) == expected


def test_a_block_is_whole_between_its_layers_if_it_holds_parameters_of_others():
    """Phi's norms of queries and keys: each rank would train them on its heads."""
    found = styles("phi", 2)
    assert (found["q_proj"], found["dense"]) == (GATHER_OUTPUT, SPLIT_INPUT)
    assert (found["fc1"], found["fc2"]) == (COLWISE, ROWWISE)


def test_a_model_without_a_plan_is_put_together_after_each_layer():
    assert styles("gpt2", 2) == {"c_attn": GATHER_OUTPUT, "c_proj": ROWWISE, "c_fc": COLWISE}


def compare(ranks, name, scaling="amax", accumulate=1, **options):
    """At first, codes and scales are those of one process; the losses stay close."""
    losses, weights = train_alone(name, scaling, 1, accumulate, STEPS, options)
    answers = ranks.call(train, name, scaling, 1, 2, accumulate, STEPS, options)
    for module, (codes, bias) in weights[0].items():
        parts = [of_rank[0][module] for _, of_rank in answers]
        assert [part_bias for _, part_bias in parts] == [bias, bias], module
        assert any(_is_together([part for part, _ in parts], dim, codes) for dim in (0, 1)), module
    for of_rank, _ in answers:
        assert of_rank == answers[0][0]
        assert of_rank == pytest.approx([mean for (mean,) in losses], rel=2e-3)
        assert of_rank[0] == pytest.approx(losses[0][0], rel=1e-5)


def _is_together(parts, dim, codes):
    return sum(part.shape[dim] for part in parts) == codes.shape[dim] and torch.equal(torch.cat(parts, dim), codes)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_as_in_one_process(name, two_ranks):  # noqa: F811
    compare(two_ranks, name)


@pytest.mark.parametrize("scaling", ["cscale:2", "amax:margin=1", "delayed:history=3"])
def test_every_rule_chooses_the_scales_of_one_process(scaling, two_ranks):  # noqa: F811
    compare(two_ranks, "llama", scaling)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "options",
    [{"checkpointing": True}, {"frozen": ("down_proj", "c_fc", "layers.0", "h.0")}, {"lora": True}, {"autocast": True}],
    ids=str,
)
def test_what_trainings_do_beside(options, name, two_ranks):  # noqa: F811
    compare(two_ranks, name, accumulate=2, **options)


@pytest.mark.parametrize("skip", LLAMA)
def test_a_layer_that_is_left_out_is_whole_on_every_rank(skip, two_ranks):  # noqa: F811
    compare(two_ranks, "llama", skip=(skip,))


@pytest.mark.parametrize("name", ["phi", "llama"])
def test_gradients_of_what_is_on_every_rank_are_those_of_one_process(name, two_ranks):  # noqa: F811
    """All parameters, put together; those that are no layer of ours are the same on both ranks."""
    expected = gradients(name, 1)
    for found in two_ranks.call(gradients, name, 2):
        assert found.keys() == expected.keys()
        for key, grad in expected.items():
            assert torch.allclose(found[key], grad, rtol=0.05, atol=0.02 * float(grad.abs().max())), key


@pytest.mark.parametrize("name", MODELS)
def test_without_fp8_gradients_are_those_of_one_process(name, two_ranks):  # noqa: F811
    """In float32 the order of sums is all that differs: some hundred terms of eps 1.2e-7, and what they cancel."""
    expected = gradients(name, 1, "fp32")
    for found in two_ranks.call(gradients, name, 2, "fp32"):
        assert found.keys() == expected.keys()
        for key, grad in expected.items():
            assert torch.allclose(found[key], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max())), key


@pytest.mark.parametrize(
    ("name", "options", "bound"),
    [
        ("llama", {}, 1e-5),
        ("uneven", {"checkpointing": True}, 1e-5),
        ("gpt2", {"lora": True}, 1e-5),
        ("gpt2", {"frozen": ("c_fc", "h.0")}, 1e-5),
        ("llama", {"autocast": True}, 2e-3),  # partial sums are rounded to bfloat16
    ],
    ids=str,
)
def test_without_fp8_losses_are_those_of_one_process(name, options, bound, two_ranks):  # noqa: F811
    losses, weights = train_alone(name, "fp32", 1, 2, STEPS, options)
    (found, casts), (others, _) = two_ranks.call(train, name, "fp32", 1, 2, 2, STEPS, options)
    assert casts == weights == [{}] * STEPS
    assert found == others
    assert found == pytest.approx([mean for (mean,) in losses], rel=bound)


@pytest.mark.parametrize("name", ["llama", "gpt2", "few KV heads", "phi"])
def test_without_fp8_the_same_layers_are_in_parts(name):
    """Oracle: those of the converted model, and the shapes of what is left of them."""
    with plan._ranks(2):
        mesh = init_device_mesh("cpu", (2,))
        models = [prepared(name, scaling) for scaling in ("fp32", "amax")]
        one, other = (split_layers(model, mesh) for model in models)
    assert one == other
    assert decoder_stacks(models[0]) == decoder_stacks(models[1])  # whose layers FSDP2 gathers one by one
    shapes = [{key: p._local_tensor.shape for key, p in _parts(model)} for model in models]
    assert shapes[0] == shapes[1]
    assert {key.rpartition(".")[0] for key in shapes[0] if key.endswith(".weight")} == set(one)


def _parts(model):
    return [(key, p) for key, p in model.named_parameters() if isinstance(p, DTensor)]
