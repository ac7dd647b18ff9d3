"""Estimates from one backward pass. Oracles: the gradient and the error of each layer's own output, one by one."""

import math
from dataclasses import replace

import pytest
import torch
from models import TINY, tiny_llama, tokens

from octoscale.advise.estimate import LayerEstimate, estimate_costs
from octoscale.advise.keeping import Measure
from octoscale.advise.rankings import spearman
from octoscale.conversion.convert import preview
from octoscale.kernels import ops
from octoscale.layers.linear import to_fp8
from octoscale.layers.state import NonFiniteError
from octoscale.numerics.formats import get_format
from octoscale.numerics.granularity import GRANULARITIES
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.runs.scales import LayerName
from octoscale.validation.perplexity import window_loss

RECIPES = [
    Recipe.amax(),
    Recipe.cscale(4),
    Recipe.amax(formats="fnuz", margin=2),
    *(Recipe.amax(granularity=name) for name in GRANULARITIES if name != "tensor"),
    parse_scaling("weight=amax:mx,round=up,input=amax:row"),
]


def estimates_of(model, windows, recipe):
    return estimate_costs(model, windows, recipe, preview(model, recipe).converted, drawn=False)


def seen_at(model, module, window):
    """A layer's input, its output, and the gradient of the window's loss there."""
    found = []

    def keep(_, args, y):
        y.retain_grad()
        found.append((args[0], y))

    hook = model.get_submodule(module).register_forward_hook(keep)
    window_loss(model, window).sum().backward()
    hook.remove()
    model.zero_grad()
    ((x, y),) = found
    return x.detach(), y.detach(), y.grad


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("family", TINY)
def test_the_terms_are_the_gradient_times_the_error_of_the_output(family, recipe):
    model, windows = TINY[family](), tokens(2, 12)
    for estimate in estimates_of(model, windows, recipe):
        layer = model.get_submodule(estimate.module)
        fp8 = to_fp8(layer, LayerName(module="x", layer=0, kind="other"), recipe)
        terms = []
        for window in windows:
            x, y, g = seen_at(model, estimate.module, window)
            terms.append((g * (fp8(x).detach() - y)).sum(-1).flatten().double())
        terms = torch.cat(terms)
        size = float(terms.abs().sum())
        assert estimate.first["both"] == pytest.approx(float(terms.sum()), abs=1e-3 * size)
        assert estimate.second["both"] == pytest.approx(float(terms.square().sum()) / 2, rel=1e-2, abs=1e-12)
        assert estimate.num_tokens == 2 * 11
        assert estimate.cost == estimate.second["both"] / 22


@pytest.mark.parametrize("family", TINY)
def test_input_and_weight_alone(family):
    """The layer with its weight, or its input, cast and decoded beforehand."""
    model, (window,), recipe = TINY[family](), tokens(1, 12), Recipe.amax()
    for estimate in estimates_of(model, window[None], recipe):
        layer = model.get_submodule(estimate.module)
        x, y, g = seen_at(model, estimate.module, window)
        cast = {
            name: ops.quantize(t.detach(), "e4m3fn", recipe.input.rule).dequantize()
            for name, t in (("x", x), ("w", layer.weight))
        }
        by_input = (g * (layer(cast["x"]) - y)).sum(-1).flatten().double()
        weight, layer.weight.data = layer.weight.data, cast["w"]
        by_weight = (g * (layer(x) - y)).sum(-1).flatten().double()
        layer.weight.data = weight
        for part, terms in (("input", by_input), ("weight", by_weight)):
            assert estimate.second[part] == pytest.approx(float(terms.detach().square().sum()) / 2, rel=1e-2)


def test_what_the_casts_did():
    model, windows, recipe = tiny_llama(), tokens(2, 12), Recipe.cscale(6)
    (estimate, *_) = estimates_of(model, windows, recipe)
    assert estimate.module == "model.layers.0.self_attn.q_proj"
    weight = model.get_submodule(estimate.module).weight.detach()
    cast = ops.quantize(weight, "e4m3fn", recipe.weight.rule, counts=True)
    noise = (cast.dequantize() - weight).double().square().sum()
    of = estimate.casts["weight"]
    assert of.sqnr_db == pytest.approx(10 * math.log10(weight.double().square().sum() / noise))
    assert (of.saturated, of.flushed) == (2 * int(cast.observed.saturated), 2 * int(cast.observed.flushed))
    assert (of.numel, of.scale_biases) == (2 * weight.numel(), [6] * 4)
    assert estimate.wanted("weight") == Recipe.amax().weight.rule.scale_bias(
        float(weight.abs().max()), get_format("e4m3fn")
    )
    assert estimate.wanted("weight") != 6


@pytest.mark.parametrize(("granularity", "rows_of_a_group"), [("row", 1), ("block", 128)])
def test_of_several_scales_the_lowest_and_the_highest_are_kept(granularity, rows_of_a_group):
    """Oracle: the amax of each group of rows; no weight of the model is wider than a block."""
    model, windows, recipe = tiny_llama(), tokens(2, 12), Recipe.amax(granularity=granularity)
    (estimate, *_) = estimates_of(model, windows, recipe)
    groups = model.get_submodule(estimate.module).weight.detach().abs().split(rows_of_a_group)
    rule, fmt = recipe.weight.rule, get_format("e4m3fn")
    biases = [int(rule.scale_bias(float(group.max()), fmt)) for group in groups]
    assert (min(biases) < max(biases)) == (rows_of_a_group == 1)
    assert estimate.casts["weight"].scale_biases == [min(biases), max(biases)] * 2


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_call_without_rows_adds_nothing(recipe):
    """As of an expert that gets no token."""
    model = tiny_llama()
    (row, *_) = preview(model, recipe).converted
    estimate = LayerEstimate(row=row, recipe=recipe)
    weight = model.get_submodule(row.module).weight.detach()
    estimate.add(torch.empty(0, weight.shape[1]), weight, torch.empty(0, weight.shape[0]))
    assert estimate.second["both"] == 0
    assert estimate.casts["input"].numel == 0


def test_the_model_is_left_as_it_was():
    model, windows = tiny_llama(), tokens(2, 12)
    before = window_loss(model, windows[0])
    model.lm_head.weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # as a caller may have it
        estimates_of(model, windows, Recipe.amax())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all("forward" not in module.__dict__ and not module._forward_hooks for module in model.modules())
    assert torch.equal(window_loss(model, windows[0]), before)


def test_only_one_decoder_layer_is_in_memory(monkeypatch):
    """Of the tensors that autograd saves outside of a layer's own backward, none comes from inside of a layer."""
    model, (window,) = tiny_llama(num_hidden_layers=4), tokens(1, 12)
    model.requires_grad_(False)
    widths = set()

    def pack(x):
        if torch._C._current_graph_task_id() == -1:
            widths.update(x.shape[-1:])
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        estimates_of(model, window[None], Recipe.amax())
    assert 64 not in widths  # the FFN's inner width


def test_infinity_names_the_layer():
    model = tiny_llama()
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.inf
    with pytest.raises(
        (NonFiniteError, FloatingPointError), match=r"model\.layers\.1\.mlp\.down_proj: the weight holds"
    ):
        estimates_of(model, tokens(1, 12), Recipe.amax())


def test_bf16_agrees_with_float32():
    """Half a per cent of rounding of activations changes an average little: within a factor of 2 for each layer."""
    windows, recipe = tokens(4, 24), Recipe.amax()
    exact = estimates_of(tiny_llama(), windows, recipe)
    rounded = estimates_of(tiny_llama().bfloat16(), windows, recipe)
    for a, b in zip(exact, rounded, strict=True):
        assert 0.5 < a.cost / b.cost < 2
    assert replace(recipe) == recipe


def test_with_drawn_tokens_the_sum_is_the_expected_cost_of_small_errors():
    """Oracle: the divergence, measured. Errors of a few per cent add up: within a quarter, for 32 windows of draws."""
    model, recipe = tiny_llama(), Recipe.amax()
    model.lm_head.weight.data *= 30
    windows, rows = tokens(32, 24), preview(model, recipe).converted
    estimates = estimate_costs(model, windows, recipe, rows)
    measure = Measure(model, recipe, rows, windows)
    assert sum(each.cost for each in estimates) == pytest.approx(measure.cost().expected.mean, rel=0.25)
    alone = [measure.cost_alone(each.module).expected.mean for each in estimates]
    assert spearman([each.cost for each in estimates], alone) > 0.9
    again = estimate_costs(model, windows, recipe, rows)
    assert [each.cost for each in again] == [each.cost for each in estimates]
