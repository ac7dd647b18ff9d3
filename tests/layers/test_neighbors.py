"""A sequence and its neighbors in a batch: under a scale a row they do not meet, under one a tensor they do.

Oracle: the sequence alone, bit for bit. What transformers computes in high precision, attention and the head, has to be
as independent of its batch: torch's GEMMs are, but for that of float32 for a few tokens, which is left out here.
"""

import pytest
import torch
from implementations import BACKENDS, using
from models import TINY, VOCABULARY
from torch import nn

from octoscale import Recipe, convert

#: Wide enough that the order of a sum is seen in its bits.
SIZES = {
    "gpt2": {"n_embd": 128, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": {"hidden_size": 128, "intermediate_size": 256},
}
FIRST_NORM = {"gpt2": "transformer.h.0.ln_1", "llama": "model.layers.0.input_layernorm"}
LENGTHS = {torch.float32: (12, 24), torch.bfloat16: (2, 12, 24)}


def model_of(name: str, recipe: Recipe, dtype: torch.dtype, *, training: bool) -> nn.Module:
    """A converted model in which half of the tokens have an outlier, 2**12 times as large as any other value."""
    model = TINY[name](**SIZES[name]).to(dtype)
    embedded, gain = model.get_input_embeddings().weight, model.get_submodule(FIRST_NORM[name]).weight
    with torch.no_grad():
        embedded[: VOCABULARY // 2, 0], embedded[VOCABULARY // 2 :, 0], gain[0] = 0, 1, 2.0**12
    convert(model, recipe)
    return model.train(training)


def logits_of(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.set_grad_enabled(model.training):
        return model(input_ids=ids, use_cache=False).logits.detach()


def batch(length: int) -> torch.Tensor:
    """Eight sequences: the first one of tokens without an outlier, the others of any."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(VOCABULARY, (8, length), generator=generator)
    ids[0] %= VOCABULARY // 2
    return ids


@pytest.mark.parametrize("training", [False, True], ids=["validation", "training"])
@pytest.mark.parametrize("dtype", LENGTHS, ids=str)
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("isa", [name for name in BACKENDS if name not in ("portable", "native[scalar]")])
def test_under_a_scale_a_row_a_sequence_has_the_bits_that_it_has_alone(isa, name, dtype, training):
    with using(isa):
        model = model_of(name, Recipe.amax(granularity="row"), dtype, training=training)
        for length in LENGTHS[dtype]:
            ids = batch(length)
            alone, first = logits_of(model, ids[:1])[0], logits_of(model, ids)[0]
            assert torch.equal(first, alone)
            assert torch.equal(logits_of(model, ids.roll(5, 0))[5], alone)


@pytest.mark.parametrize("training", [False, True], ids=["validation", "training"])
def test_under_a_scale_a_tensor_its_neighbors_change_them(training):
    """Llama: an RMSNorm leaves a zero where there is no outlier. The rule decides, not the order of a sum."""
    model, ids = model_of("llama", Recipe.amax(), torch.float32, training=training), batch(12)
    alone, first = logits_of(model, ids[:1])[0], logits_of(model, ids)[0]
    assert (first - alone).abs().max() > 1e-3
