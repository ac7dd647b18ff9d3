"""A fused model in a graph of torch.compile: it goes the usual way there. Oracle: the same model, not fused."""

import pytest
import torch
from models import tiny_llama, tokens
from stored_layers import as_stored

from octoscale.conversion.convert import convert
from octoscale.inference.fuse import fuse
from octoscale.kernels import decoder
from octoscale.numerics.recipe import Recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the compiler's own
    pytest.mark.skipif(decoder.why_not() is not None, reason="no decoder layer can be fused here"),
]


@torch.no_grad()
def test_a_fused_model_is_one_graph():
    """Before it has decoded anything, and after."""
    torch._dynamo.reset()
    model = tiny_llama(hidden_size=64, intermediate_size=112, num_hidden_layers=1).to(torch.bfloat16)
    convert(model, Recipe.amax())
    as_stored(model, "dynamic")
    ids = tokens(batch=1)
    expected = model(ids, use_cache=False).logits
    assert fuse(model).head
    for _ in range(2):
        graph = torch.compile(model, fullgraph=True, backend="eager")
        assert torch.equal(graph(ids, use_cache=False).logits, expected)
        assert model(ids[:, :1], use_cache=True).past_key_values.get_seq_length() == 1
    torch._dynamo.reset()
