"""The gradients of a whole converted model, in situ, and what they are the derivatives of.

A cast is a step function: its derivative is zero almost everywhere. Backward treats it as the identity, the
*straight-through estimator* (Bengio et al. 2013), and casts each layer's grad_output to E5 on its way. So a gradient of
an FP8 model is, in general, not the derivative of its loss, and no finite difference of a weight can check it. What is
defined, and tested here:

    each layer alone          y, dx, dw and db are products of FP8 codes                    float64 on the same codes
    the whole backward pass   the chain of those products through the model                 the same chain in float64
    behind the last cast      the last FP8 layer's bias, final norm and head: derivatives   central differences
    along q(w)                the last FP8 layer's loss at s * q(w) is smooth in s          central differences

What is not defined: the derivative of the loss in a weight that is cast, in a bias or a norm with a cast behind it.
"""

import copy
from dataclasses import dataclass

import pytest
import torch
from intervals import assert_within, interval, reference_cast
from models import TINY, tokens
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from octoscale import Fp8Linear, Recipe, convert

RECIPES = (Recipe.amax(), Recipe.paper_training())


def fp8_model(name: str, recipe: Recipe | None = None, **changes) -> nn.Module:
    """A converted tiny model whose biases and gains are not the zeros and ones that they begin with."""
    model = TINY[name](**changes)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    convert(model, recipe or Recipe.amax())
    return model


def layers_of(model: nn.Module) -> dict[str, Fp8Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Fp8Linear)}


def lm_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """The mean cross entropy of the next token, in float64 from the logits on."""
    logits = model(ids).logits[:, :-1].double()
    return cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


# Each layer alone


@dataclass
class Seen:
    """The tensors of one layer in one forward and backward pass, as autograd hands them over."""

    x: Tensor
    y: Tensor
    grad_output: Tensor | None = None
    gradients: tuple[Tensor | None, ...] = ()


def watch(model: nn.Module) -> dict[str, Seen]:
    """Filled by the next pass. Hooks sit on autograd's node: one on the module would give siblings other tensors."""
    seen: dict[str, Seen] = {}

    def look(name: str, x: Tensor, y: Tensor) -> None:
        seen[name] = Seen(x=x.detach(), y=y.detach())

        def look_back(grad_inputs: tuple, grad_outputs: tuple) -> None:
            seen[name].gradients, (seen[name].grad_output,) = grad_inputs[:3], grad_outputs

        if y.grad_fn is not None:
            y.grad_fn.register_hook(look_back)

    for name, layer in layers_of(model).items():
        layer.register_forward_hook(lambda _, args, y, name=name: look(name, args[0], y))
    return seen


def check_layer(layer: Fp8Linear, seen: Seen) -> None:
    """Oracle: numerics/reference.py casts the three operands, float64 multiplies them; see intervals.py."""
    recipe, conv = layer.fp8.recipe, layer.fp8.is_conv1d
    x_BK = reference_cast(seen.x, recipe.input).flatten(0, -2)
    g_BN = reference_cast(seen.grad_output, recipe.grad_output).flatten(0, -2)
    w = reference_cast(layer.weight, recipe.weight)
    w_KN = w if conv else w.t()
    dx, dw, db = (*seen.gradients, None)[:3]
    assert_within(seen.y, interval(x_BK, w_KN, torch.float32, layer.bias))
    assert_within(dx, interval(g_BN, w_KN.t(), torch.float32))
    assert_within(dw if conv else dw.t(), interval(x_BK.t(), g_BN, torch.float32))
    assert (db is None) == (layer.bias is None)
    if db is not None:  # of the gradient itself, not of its codes
        rows = seen.grad_output.double().flatten(0, -2)
        assert_within(db, interval(torch.ones(1, len(rows), dtype=torch.float64), rows, torch.float32))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("name", TINY)
def test_each_layer_in_situ_equals_float64_on_the_same_codes(name, recipe):
    """And what autograd handed to the layer's parameters is what they have in the end."""
    model = fp8_model(name, recipe)
    seen = watch(model)
    model(tokens(), labels=tokens()).loss.backward()
    layers = layers_of(model)
    assert seen.keys() == layers.keys()
    for key, layer in layers.items():
        check_layer(layer, seen[key])
        assert torch.equal(layer.weight.grad, seen[key].gradients[1])
        assert layer.bias is None or torch.equal(layer.bias.grad, seen[key].gradients[2])


# The whole backward pass


class StraightThrough(torch.autograd.Function):
    """The three products in float64; operands are cast from float32 by numerics/reference.py, one number at a time."""

    @staticmethod
    def forward(ctx, x, w_KN, recipe):
        ctx.recipe = recipe
        x8, w8 = reference_cast(x.float(), recipe.input), reference_cast(w_KN.float(), recipe.weight)
        ctx.save_for_backward(x8, w8)
        return x8 @ w8

    @staticmethod
    def backward(ctx, grad):
        x8, w8 = ctx.saved_tensors
        g8 = reference_cast(grad.float(), ctx.recipe.grad_output)
        return g8 @ w8.t(), x8.flatten(0, -2).t() @ g8.flatten(0, -2), None


class Oracle(nn.Module):
    """What stands for an Fp8Linear in the float64 model, with the same parameter names."""

    def __init__(self, layer: Fp8Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.conv, self.recipe = layer.fp8.is_conv1d, layer.fp8.recipe

    def forward(self, x: Tensor) -> Tensor:
        y = StraightThrough.apply(x, self.weight if self.conv else self.weight.t(), self.recipe)
        return y if self.bias is None else y + self.bias


def in_float64(model: nn.Module) -> nn.Module:
    """A copy in float64, FP8 layers replaced. (transformers' RMSNorm goes through float32 in any dtype.)"""
    oracle = copy.deepcopy(model)
    for name, layer in layers_of(oracle).items():
        oracle.set_submodule(name, Oracle(layer))
    return oracle.double()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    lm_loss(model, tokens()).backward()
    return {name: parameter.grad.double() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("name", TINY)
def test_every_parameters_gradient_equals_that_of_the_chain_in_float64(name, recipe):
    """Sums in float32 cost 1e-7. One beside a tie flips a code: 2**-4 of one value in some hundreds, below 1e-2."""
    model = fp8_model(name, recipe)
    got, expected = gradients(model), gradients(in_float64(model))
    assert got.keys() == expected.keys()
    errors = [((got[key] - exact).norm() / exact.norm()).item() for key, exact in expected.items()]
    assert max(errors) < 1e-2
    assert sorted(errors)[len(errors) // 2] < 1e-5


# Behind the last cast


def central_difference(model: nn.Module, parameter: Tensor, direction: Tensor, step: float) -> float:
    """(L(p + step d) - L(p - step d)) / (2 step): truncation in step**2, float32 noise of the loss over step."""
    losses = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.add_(direction, alpha=sign * step)
            losses.append(lm_loss(model, tokens()).item())
            parameter.sub_(direction, alpha=sign * step)
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("gpt2", "transformer.h.1.mlp.c_proj.bias"),
        ("gpt2", "transformer.ln_f.weight"),
        ("gpt2", "transformer.ln_f.bias"),
        ("llama", "model.norm.weight"),
        ("llama", "lm_head.weight"),
    ],
)
def test_behind_the_last_cast_gradients_are_derivatives_of_the_quantized_loss(name, parameter):
    """Oracle: central differences along the gradient, where the derivative is its norm; no cast is crossed."""
    model = fp8_model(name)
    gradient = gradients(model)[parameter].float()
    direction = gradient / gradient.norm()
    difference = central_difference(model, model.get_parameter(parameter), direction, step=2.0**-5)
    assert difference == pytest.approx(gradient.norm().item(), rel=2e-3)


@pytest.mark.parametrize("name", TINY)
def test_a_weight_that_is_cast_has_no_such_derivative(name):
    """The quantized loss is a staircase: while no code changes, nothing does, where the gradient is not zero."""
    model = fp8_model(name)
    layer = list(layers_of(model).values())[-1]
    gradient = gradients(model)[next(key for key, p in model.named_parameters() if p is layer.weight)].float()
    step, weight, operand = 1e-6, layer.weight.detach(), layer.fp8.recipe.weight
    moved = [reference_cast(weight + sign * step * gradient.sign(), operand) for sign in (1, -1)]
    stays = (moved[0] == moved[1]) & (weight.abs() < weight.abs().max())  # the largest one sets the scale
    assert stays.float().mean() > 0.95
    assert central_difference(model, layer.weight, gradient.sign() * stays, step) == 0.0
    assert (gradient * gradient.sign() * stays).sum() > 1e-3


# Along q(w)


@pytest.mark.parametrize("name", TINY)
def test_along_its_own_codes_a_weights_gradient_is_the_derivative(name):
    """Oracle: central differences in s of the loss at s * q(w) in the last FP8 layer, whose output is s * (x8 @ q(w)).

    The exact derivative is <g, x8 @ q(w)> with the grad_output g. The layer's gradient is made with the cast of g, each
    element of which is off by at most 2**-3 of itself, or by half the smallest subnormal: below 2**-3 |g| for those
    that count. So |<dw, q(w)> - derivative| <= 2**-3 sum |g| |x8 @ q(w)|.
    """
    model = fp8_model(name)
    layer = list(layers_of(model).values())[-1]
    seen = watch(model)
    gradient = gradients(model)[next(key for key, p in model.named_parameters() if p is layer.weight)]
    last = list(seen.values())[-1]
    product = (last.y - (0 if layer.bias is None else layer.bias)).detach().double()
    g = last.grad_output.double().view(product.shape)

    factor = torch.ones(())
    layer.register_forward_hook(lambda _, __, y: y + (factor - 1) * product.float())
    difference = central_difference(model, factor, torch.ones(()), step=2.0**-5)
    assert difference == pytest.approx((g * product).sum().item(), rel=2e-3)

    along = (gradient * reference_cast(layer.weight, layer.fp8.recipe.weight)).sum().item()
    assert abs(along - difference) <= 2.0**-3 * (g.abs() * product.abs()).sum().item()


@pytest.mark.parametrize("name", TINY)
def test_a_power_of_two_on_a_weight_is_exact(name):
    """Oracle: under amax, w * 2 has the codes of w, and the product is twice as large, bit for bit."""
    model = fp8_model(name)
    layer = next(iter(layers_of(model).values()))
    x = torch.randn(3, layer.in_features)
    with torch.no_grad():
        before = layer(x)
        if layer.bias is not None:
            layer.bias.mul_(2)
        layer.weight.mul_(2)
        assert torch.equal(layer(x), 2 * before)
