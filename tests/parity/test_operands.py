"""The operands of a model's layers. Oracles: what its layers gave themselves, autograd, and float64."""

import copy

import pytest
import torch
from models import TINY, tokens

from octoscale.conversion.convert import convert, revert
from octoscale.conversion.record import fp8_layers
from octoscale.layers.state import NonFiniteError
from octoscale.numerics.recipe import Recipe
from octoscale.parity import products as module
from octoscale.parity.products import backward_products, forward_products, spread
from octoscale.parity.ways import FLOAT32, exact
from octoscale.validation.perplexity import window_loss

ALL = 10_000
WINDOWS = tokens(batch=3, length=16)


def products(model, windows=WINDOWS, rows=ALL):
    found = []
    forward_products(model, Recipe.amax(), windows, found.append, rows=rows)
    return found


@pytest.fixture(params=TINY)
def model(request):
    """Its biases are drawn, for they begin as zeros."""
    made = TINY[request.param]()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return made


def test_outputs_are_those_of_the_layers(model):
    """Of each layer in each window; what it is compared with is the same layer without casts, of the same input."""
    found = products(model)
    plain = dict(copy.deepcopy(model).double().named_modules())
    convert(model, Recipe.amax())
    seen = []
    for layer in fp8_layers(model):
        layer.register_forward_hook(lambda layer, args, y: seen.append((layer.fp8.name, args[0], y)))
    with torch.no_grad():
        for window in WINDOWS:
            window_loss(model, window)
    assert [product.layer for product in found] == [name for name, *_ in seen]
    for product, (name, x, y) in zip(found, seen, strict=True):
        sums = FLOAT32.sums(product.a, product.b, product.bias)
        assert torch.equal(sums.to(y.dtype), y.flatten(0, -2))
        assert torch.allclose(sums.double(), exact(product.a, product.b, product.bias), rtol=1e-5, atol=1e-6)
        expected = plain[name.module](x.double()).flatten(0, -2).detach()
        assert torch.allclose(product.high, expected, rtol=1e-12, atol=1e-14)
        assert 0 < (exact(product.a, product.b, product.bias) - product.high).norm() < 0.1 * product.high.norm()


def test_gradients_are_those_of_autograd(model):
    """Of each weight as its optimizer would get it; of the inputs that one layer alone takes, as they are kept."""
    found = []
    backward_products(model, Recipe.amax(), WINDOWS[0], found.append, rows=ALL)
    assert all(parameter.grad is None for parameter in model.parameters())
    convert(model, Recipe.amax())
    inputs = {}

    def keep(layer, args):
        args[0].retain_grad()
        inputs[layer.fp8.name.module] = args[0]

    for layer in fp8_layers(model):
        if layer.fp8.name.kind in ("attn_out", "ffn_out"):
            layer.register_forward_pre_hook(keep)
    window_loss(model, WINDOWS[0]).mean().backward()
    layers = {layer.fp8.name: layer for layer in fp8_layers(model)}
    assert len(found) == 2 * len(layers)
    for product in found:
        layer = layers[product.layer]
        sums = FLOAT32.sums(product.a, product.b)
        if product.result == "grad_weight":
            grad = layer.weight.grad.t() if layer.fp8.is_conv1d else layer.weight.grad
            assert torch.allclose(sums, grad, rtol=1e-5, atol=1e-6 * float(grad.abs().max()))
        elif product.layer.module in inputs:
            grad = inputs[product.layer.module].grad.flatten(0, -2)
            assert torch.allclose(sums, grad, rtol=1e-5, atol=1e-6 * float(grad.abs().max()))
        error = (exact(product.a, product.b) - product.high).norm()
        assert 0 < error < 0.2 * product.high.norm()


def test_rows_are_spread_over_the_text(model):
    few, all_of_them = products(model, rows=6), products(model)
    assert {tuple(product.high.shape[:1]) for product in few} == {(2,)}
    for one, whole in zip(few, all_of_them, strict=True):
        assert torch.equal(one.a.codes.float(), whole.a.codes.float()[[0, 15]])
        assert torch.allclose(one.high, whole.high[[0, 15]], rtol=1e-12, atol=1e-14)
    assert {tuple(product.high.shape[:1]) for product in products(model, rows=1)} == {(1,)}


@pytest.mark.parametrize(
    ("count", "wanted", "expected"), [(5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (4, 1, [0]), (0, 3, [])]
)
def test_spread(count, wanted, expected):
    assert spread(count, wanted).tolist() == expected


def test_the_model_is_left_as_it_was(model):
    before = {name: type(module) for name, module in model.named_modules()}
    called = []
    hook = next(iter(model.children())).register_forward_hook(lambda *_: called.append(1))
    products(model)
    backward_products(model, Recipe.amax(), WINDOWS[0], lambda _: None, rows=2)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert len(called) == 4
    hook.remove()
    assert not any(module._forward_hooks for module in model.modules())
    convert(model, Recipe.amax())
    assert revert(model)


@pytest.mark.parametrize(
    ("role", "parameters"),
    [
        ("weight", ("o_proj.weight", "attn.c_proj.weight")),
        ("input", ("input_layernorm.weight", "ln_1.weight")),
    ],
)
def test_an_operand_that_is_not_finite_is_named(model, role, parameters):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(parameters):
                parameter.view(-1)[0] = torch.inf
    with pytest.raises(NonFiniteError, match=f"the {role} holds infinity or NaN"):
        products(model)
    with pytest.raises(NonFiniteError, match=f"the {role} holds infinity or NaN"):
        backward_products(model, Recipe.amax(), WINDOWS[0], lambda _: None, rows=2)


def test_a_gradient_that_is_not_finite_is_named(model, monkeypatch):
    """Of a loss that has none."""
    monkeypatch.setattr(module, "window_loss", lambda model, window: window_loss(model, window) * torch.inf)
    with pytest.raises(NonFiniteError, match="the grad_output holds infinity or NaN"):
        backward_products(model, Recipe.amax(), WINDOWS[0], lambda _: None, rows=2)
    assert all(parameter.grad is None for parameter in model.parameters())
