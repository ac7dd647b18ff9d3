"""The fingerprint of weights. Oracle: the same weights elsewhere, and each small change of them."""

import torch
from models import tiny_gpt2, tiny_llama

from octoscale.models.fingerprint import fingerprint


def test_the_same_weights_have_the_same_fingerprint():
    assert fingerprint(tiny_llama()) == fingerprint(tiny_llama())
    assert len(fingerprint(tiny_gpt2())) == 16


def test_any_change_of_a_weight_is_seen():
    model = tiny_llama().bfloat16()
    seen = {fingerprint(model)}
    weight = model.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        weight[3, 5] += 1
        seen.add(fingerprint(model))
        weight[3, 5] = 0.0
        seen.add(fingerprint(model))
        weight[3, 5] = -0.0
        seen.add(fingerprint(model))
    assert len(seen) == 4
    assert (
        len({fingerprint(make) for make in (tiny_llama(), tiny_llama(seed=1), tiny_llama().half(), tiny_gpt2())}) == 4
    )
