"""Advice. Oracles: faults planted by hand in models that compute the same as before; costs measured on the converted
model; and texts that the model wrote itself, on which every error costs on average.
"""

import math
from functools import partial

import pytest
import torch
from models import tiny_gpt2, tiny_llama
from planted import plant_feeder, plant_hook, plant_norm

from octoscale.advise.cost import cost_of, look
from octoscale.advise.findings import advise, most_passes
from octoscale.advise.words import answer_of, to_json
from octoscale.conversion.convert import convert, preview, revert
from octoscale.layers.linear import Fp8Linear
from octoscale.models.loading import load
from octoscale.models.texts import read_text, token_windows
from octoscale.numerics.recipe import Recipe, parse_scaling

GPT2, LLAMA = "transformer.h.2", "model.layers.2"
QKV = [f"{LLAMA}.self_attn.{name}_proj" for name in "qkv"]
UP, DOWN = f"{LLAMA}.mlp.up_proj", f"{LLAMA}.mlp.down_proj"

#: Family, how the fault is planted, the layers that have it, and what feeds them.
FAULTS = {
    "gpt2 c_attn": (
        "gpt2",
        partial(plant_norm, norm=f"{GPT2}.ln_1", readers=[f"{GPT2}.attn.c_attn"]),
        [f"{GPT2}.attn.c_attn"],
        (),
    ),
    "gpt2 c_fc": (
        "gpt2",
        partial(plant_norm, norm=f"{GPT2}.ln_2", readers=[f"{GPT2}.mlp.c_fc"]),
        [f"{GPT2}.mlp.c_fc"],
        (),
    ),
    "llama qkv": ("llama", partial(plant_norm, norm=f"{LLAMA}.input_layernorm", readers=QKV), QKV, ()),
    "llama gate, up": (
        "llama",
        partial(plant_norm, norm=f"{LLAMA}.post_attention_layernorm", readers=[f"{LLAMA}.mlp.gate_proj", UP]),
        [f"{LLAMA}.mlp.gate_proj", UP],
        (),
    ),
    "llama down": ("llama", partial(plant_feeder, feeder=UP, layer=DOWN), [DOWN], (UP,)),
    "llama q": ("llama", partial(plant_hook, layer=QKV[0]), [QKV[0]], ()),
}


def sharp(family):
    """Four layers of width 32 that all count, and whose predictions are far from even, so that an error shows."""
    model = tiny_gpt2(n_layer=4) if family == "gpt2" else tiny_llama(num_hidden_layers=4)
    for row in preview(model, Recipe.amax()).converted:
        model.get_submodule(row.module).weight.data *= 8
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach() * 30)  # apart from the embedding, where it was tied
    return model


@torch.no_grad()
def written_by(model, num_windows=12, length=20):
    """Windows of tokens that the model draws from its own predictions."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(96, (num_windows, 1), generator=generator)
    while ids.shape[1] < length:
        shares = model(input_ids=ids).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(shares, 1, generator=generator)], 1)
    return ids


def advice_on(model, recipe, limit=0.01, at_most=3):
    search, verify = written_by(model).tensor_split(2)
    return advise(model, recipe, search=search, verify=verify, limit=limit, at_most=at_most)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_exactly_and_costs_amax_nothing(name):
    family, plant, modules, fed_by = FAULTS[name]
    model = sharp(family)
    (window, *_) = written_by(model)
    healthy = advice_on(model, Recipe.amax(), limit=10.0, at_most=1)
    before = model(input_ids=window[None]).logits
    plant(model)
    torch.testing.assert_close(model(input_ids=window[None]).logits, before, rtol=1e-5, atol=1e-5)
    findings = advice_on(model, Recipe.amax(), limit=10.0, at_most=1)
    assert healthy.outliers == []
    assert [outlier.module for outlier in findings.outliers] == modules
    assert all(outlier.is_pair and outlier.fed_by == fed_by for outlier in findings.outliers)
    assert findings.whole.expected.mean == pytest.approx(healthy.whole.expected.mean, rel=1e-3, abs=1e-6)
    words = " ".join(answer_of(findings, 10.0, "amax"))
    assert all(module in words for module in modules)
    assert "amax pays nothing" in words


@pytest.mark.parametrize("name", FAULTS)
def test_under_a_constant_the_planted_layers_are_the_list(name):
    """The constant serves the other layers. What feeds a planted layer is as broken as the layer itself."""
    family, plant, modules, fed_by = FAULTS[name]
    model, recipe = sharp(family), Recipe.cscale(5)
    limit = 1.2 * advice_on(model, recipe, limit=10.0, at_most=1).whole_in_search.expected.excess
    plant(model)
    findings = advice_on(model, recipe, limit=limit)
    assert findings.whole_in_search.expected.excess > limit
    assert set(findings.kept) <= {*modules, *fed_by}
    assert findings.kept
    assert findings.left_in_search.expected.excess <= limit
    ranked = sorted(findings.estimates, key=lambda estimate: -estimate.cost)
    assert {estimate.module for estimate in ranked[: len(modules) + len(fed_by)]} == {*modules, *fed_by}
    assert [outlier.module for outlier in findings.outliers] == modules


def test_costs_are_those_of_the_converted_model_and_it_is_left_as_it_was():
    model = sharp("llama")
    search, verify = written_by(model).tensor_split(2)
    before = look(model, verify)
    done = []
    findings = advise(
        model,
        Recipe.cscale(9),
        search=search,
        verify=verify,
        limit=1e-9,
        at_most=2,
        progress=lambda *at: done.append(at),
    )
    assert findings.kept is None
    convert(model, Recipe.cscale(9))
    assert findings.whole == cost_of(model, verify, before)
    revert(model)
    for kept, cost in findings.others.values():
        convert(model, Recipe.cscale(9, skip=kept))
        assert cost == cost_of(model, verify, before)
        revert(model)
    assert not any(isinstance(module, Fp8Linear) for module in model.modules())
    assert torch.equal(look(model, verify).losses, before.losses)
    assert [number for number, _ in done] == sorted(number for number, _ in done)
    assert done[-1][0] <= done[-1][1] == most_passes(2)


def test_a_scaling_of_the_same_name_in_other_formats_has_a_cost_of_its_own():
    """With --formats fnuz, `amax` means those formats; the alternative `amax` means ocp."""
    model = sharp("llama")
    search, verify = written_by(model).tensor_split(2)
    before = look(model, verify)
    recipe = parse_scaling("amax", "fnuz")
    findings = advise(model, recipe, search=search, verify=verify, limit=10.0, at_most=1)
    assert recipe.name == "amax"
    for found, other in ((findings.whole, recipe), (findings.scalings["amax"], Recipe.amax())):
        convert(model, other)
        assert found == cost_of(model, verify, before)
        revert(model)


def test_two_runs_find_the_same():
    first, second = (
        to_json(advice_on(sharp("llama"), Recipe.amax(), limit=1e-9, at_most=1), 1e-9, "amax") for _ in range(2)
    )
    assert first == second


def test_a_shared_layer_is_one_layer():
    model = sharp("llama")
    model.model.layers[3].mlp.up_proj = model.model.layers[1].mlp.up_proj
    findings = advice_on(model, Recipe.amax(), limit=10.0, at_most=1)
    names = [estimate.module for estimate in findings.estimates]
    assert "model.layers.1.mlp.up_proj" in names
    assert "model.layers.3.mlp.up_proj" not in names


def test_a_broken_model_is_at_fault_and_not_fp8():
    model = sharp("llama")
    windows = written_by(model, 4)
    model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match="the model is at fault, not FP8"):
        advise(model, Recipe.amax(), search=windows[:2], verify=windows[2:], limit=0.01, at_most=1)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (10.0, "Nothing to keep on the text of the search, where FP8 (amax) raises the perplexity by "),
        (1e-9, "No list of 3 layers reaches the bound of"),
    ],
)
def test_answers_without_a_list_are_answers(limit, said):
    findings = advice_on(sharp("llama"), Recipe.amax(), limit=limit)
    assert answer_of(findings, limit, "amax")[0].startswith(said)
    assert math.isfinite(findings.whole.measured.mean)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [4, 17])
def test_a_fault_planted_in_smollm2_is_named(layer):
    """Beside the outliers that it has by itself."""
    loaded = load("smollm2-135m", torch.float32)
    windows = token_windows(read_text("pydoc"), loaded.encode, window=128, num_tokens=512)
    options = {"search": windows[:2], "verify": windows[2:], "limit": 10.0, "at_most": 1}
    natural = {outlier.module for outlier in advise(loaded.model, Recipe.amax(), **options).outliers}
    block = f"model.layers.{layer}"
    plant_feeder(loaded.model, f"{block}.mlp.up_proj", f"{block}.mlp.down_proj")
    found = {outlier.module: outlier for outlier in advise(loaded.model, Recipe.amax(), **options).outliers}
    assert found.keys() - natural == {f"{block}.mlp.down_proj"}
    assert found[f"{block}.mlp.down_proj"].fed_by == (f"{block}.mlp.up_proj",)
