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


def test_another_config_is_another_model_though_the_weights_are_the_same():
    """rms_norm_eps is in no weight, and moves every number."""
    seen = {fingerprint(tiny_llama(**change)) for change in ({}, {"rms_norm_eps": 1e-3}, {"rope_theta": 5e5})}
    assert len(seen) == 3


def test_where_a_model_was_read_from_is_no_part_of_it(tmp_path):
    model = tiny_llama()
    expected = fingerprint(model)
    model.save_pretrained(tmp_path)
    assert fingerprint(type(model).from_pretrained(tmp_path)) == expected


def test_a_module_without_a_config_has_a_fingerprint():
    layer = torch.nn.Linear(2, 3)
    assert fingerprint(layer) == fingerprint(layer)
