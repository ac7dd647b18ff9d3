"""Fp8Linear: three products, what is reused, what is saved, what is never hidden.

Oracle of the products: numerics/reference.py casts x, w and grad_output one number at a time; float64 multiplies them.
Oracle of everything else: the same layer without the feature (no checkpoint, no copy, no reuse), bit for bit.
"""

import copy
import gc
import io
import itertools
import math
import pickle
import weakref
from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from intervals import assert_within, interval, reference_cast
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from octoscale import NonFiniteError, Recipe
from octoscale.kernels import ops
from octoscale.layers.linear import Fp8Linear, to_fp8
from octoscale.numerics import reference
from octoscale.numerics.formats import get_format
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Amax, Constant
from octoscale.runs.scales import LayerName

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
KINDS = ("linear", "linear without bias", "conv1d")
K, N = 33, 17
NAME = LayerName(module="block.proj", layer=0, kind="other")


def original(kind: str = "linear", dtype: torch.dtype = torch.float32, seed: int = 0, k: int = K, n: int = N):
    """A high-precision layer with random weight and bias."""
    torch.manual_seed(seed)
    layer = Conv1D(n, k) if kind == "conv1d" else nn.Linear(k, n, bias=kind == "linear")
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer.to(dtype)


def fp8(layer: nn.Module | None = None, recipe: Recipe | None = None) -> Fp8Linear:
    return to_fp8(original() if layer is None else layer, NAME, recipe or Recipe.amax())


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def output_and_gradients(layer: nn.Module, x: Tensor, g: Tensor) -> list[Tensor | None]:
    """The output, and the gradients of the input and of each parameter, for the output's gradient `g`."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(g)
    return [y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]


def assert_identical(got: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert len(got) == len(expected)
    for index, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a is None if b is None else (a.dtype == b.dtype and torch.equal(a, b)), f"tensor {index} differs"


@pytest.fixture
def casts(monkeypatch):
    """The casts as they are made: one (role, scale_bias) a call of ops.quantize."""
    calls: list[tuple[str, int]] = []
    quantize = ops.quantize

    def spy(x, format, rule, **options):
        cast = quantize(x, format, rule, **options)
        role = "weight" if isinstance(x, nn.Parameter) else "grad_output" if format.startswith("e5") else "input"
        calls.append((role, cast.scale_bias.item()))
        return cast

    monkeypatch.setattr(ops, "quantize", spy)
    return calls


def count(casts: list[tuple[str, int]]) -> dict[str, int]:
    return dict(Counter(role for role, _ in casts))


# The three products


def check_products(layer: Fp8Linear, x: Tensor, g: Tensor, out: torch.dtype | None = None) -> None:
    """Output and gradients against float64 on the same FP8 operands."""
    recipe, conv = layer.fp8.recipe, layer.fp8.is_conv1d
    x = x.detach().requires_grad_()
    y = layer(x)
    assert y.shape == (*x.shape[:-1], layer.out_features)
    y.backward(g)

    x_BK = reference_cast(x, recipe.input).reshape(-1, layer.in_features)
    g_BN = reference_cast(g, recipe.grad_output).reshape(-1, layer.out_features)
    w = reference_cast(layer.weight, recipe.weight)
    w_KN = w if conv else w.t()
    assert_within(y, interval(x_BK, w_KN, out or x.dtype, layer.bias))
    assert_within(x.grad, interval(g_BN, w_KN.t(), x.dtype))
    dw_KN = layer.weight.grad if conv else layer.weight.grad.t()
    assert_within(dw_KN, interval(x_BK.t(), g_BN, layer.weight.dtype))
    if layer.bias is not None:  # high precision: no cast, summed in float32
        rows = g.detach().double().reshape(-1, layer.out_features)
        ones = torch.ones(1, len(rows), dtype=torch.float64)
        assert_within(layer.bias.grad, interval(ones, rows, layer.bias.dtype))


RECIPES = (Recipe.amax(), Recipe.paper_training(), Recipe.cscale(2))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("shape", [(K,), (6, K), (2, 3, K)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_equal_float64_on_the_same_codes(dtype, kind, shape, recipe):
    x = normal(*shape, dtype=dtype)
    g = normal(*shape[:-1], N, dtype=dtype, seed=2, scale=1e-3)
    check_products(fp8(original(kind, dtype), recipe), x, g)


@pytest.mark.parametrize("kind", ["linear without bias", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_products_of_matrices_large_enough_for_the_fast_gemm(dtype, kind):
    x, g = normal(64, 96, dtype=dtype), normal(64, 80, dtype=dtype, seed=2, scale=100.0)
    check_products(fp8(original(kind, dtype, k=96, n=80)), x, g)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("w_dtype", DTYPES, ids=str)
def test_input_and_weight_may_differ_in_dtype(w_dtype, x_dtype, kind):
    check_products(fp8(original(kind, w_dtype)), normal(4, K, dtype=x_dtype), normal(4, N, dtype=x_dtype, seed=2))


NON_CONTIGUOUS = {
    "transposed": lambda rows, columns, seed: normal(columns, rows, seed=seed).t(),
    "every second": lambda rows, columns, seed: normal(rows, 2 * columns, seed=seed)[:, ::2],
    "expanded": lambda rows, columns, seed: normal(1, columns, seed=seed).expand(rows, columns),
    "one value": lambda rows, columns, seed: torch.tensor(0.7).expand(rows, columns),
    "3-D permuted": lambda rows, columns, seed: normal(2, columns, rows, seed=seed).permute(2, 0, 1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strides", NON_CONTIGUOUS)
def test_non_contiguous_input_and_gradient(strides, kind):
    x, g = NON_CONTIGUOUS[strides](6, K, 1), NON_CONTIGUOUS[strides](6, N, 2)
    assert not x.is_contiguous()
    assert not g.is_contiguous()
    check_products(fp8(original(kind)), x, g)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(0, K), (2, 0, K)], ids=str)
def test_empty_batch(shape, dtype, kind):
    layer = fp8(original(kind, dtype))
    y, dx, *parameters = output_and_gradients(layer, torch.empty(shape, dtype=dtype), torch.empty(*shape[:-1], N))
    assert (y.shape, y.dtype) == ((*shape[:-1], N), dtype)
    assert (dx.shape, dx.dtype) == (shape, dtype)
    for parameter, gradient in zip(layer.parameters(), parameters, strict=True):
        assert torch.equal(gradient, torch.zeros_like(parameter))


def test_zeros_give_the_bias_and_zero_gradients():
    layer = fp8()
    y, dx, dw, db = output_and_gradients(layer, torch.zeros(3, K), torch.zeros(3, N))
    assert torch.equal(y, layer.bias.detach().expand(3, N))
    assert not any(gradient.any() for gradient in (dx, dw, db))


@pytest.mark.parametrize("shape", [(), (K + 1,), (2, K - 1), (K, 2)], ids=str)
def test_a_wrong_shape_names_the_layer(shape):
    with pytest.raises(ValueError, match=r"block\.proj: takes inputs \[\.\.\., 33\], not \["):
        fp8()(torch.ones(shape))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64], ids=str)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="takes float32, bfloat16 or float16, not"):
        fp8()(torch.ones(2, K, dtype=dtype))


def test_the_gradient_is_differentiated_only_once():
    x = normal(2, K).requires_grad_()
    (dx,) = torch.autograd.grad(fp8()(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        dx.sum().backward()


# Signal to quantization noise


def relative_noise(mantissa_bits: int) -> float:
    """The mean squared error of rounding a standard normal variable to `mantissa_bits`, over its mean square.

    Derivation. In the binade [2**e, 2**(e+1)) the grid has a spacing of 2**(e - m). Rounding to nearest makes an error
    that is uniform over one spacing: its mean square is 4**(e - m) / 12. Weighted with the probability of each binade:
    sum_e P(e) * 4**(e - m) / 12, over E[x**2] = 1. Scaling by a power of two moves the binades and changes nothing.
    Amax scaling leaves about 12 (E4) or more binades below the values' size before subnormals: they do not matter.
    """
    probability = [math.erf(2.0 ** (e + 1) / math.sqrt(2)) - math.erf(2.0**e / math.sqrt(2)) for e in range(-30, 4)]
    return sum(p * 4.0 ** (e - mantissa_bits) / 12 for e, p in zip(range(-30, 4), probability, strict=True))


def sqnr_db(exact: Tensor, noisy: Tensor) -> float:
    exact, noisy = exact.double(), noisy.double()
    return 10 * math.log10(exact.square().sum() / (exact - noisy).square().sum())


@pytest.mark.parametrize("formats", ["ocp", "fnuz"])
@pytest.mark.parametrize("kind", KINDS)
def test_sqnr_is_what_the_mantissa_bits_predict(kind, formats):
    """E4 has 3 mantissa bits, E5 has 2.

    An output sums terms x*w. Their errors, dx*w + x*dw (+ dx*dw, smaller by relative_noise), have no mean and are
    independent, so noise over signal is the sum of both operands' relative noise. 0.2 dB (5 %) on either side: the
    noise of at least 2**15 operand values is an average that varies by about 1 %, and the error is slightly
    correlated with the value, as the density falls inside a binade. A wrong mantissa bit in one operand makes >= 1 dB.
    """
    torch.manual_seed(0)
    high = Conv1D(192, 512) if kind == "conv1d" else nn.Linear(512, 192, bias=kind == "linear")
    nn.init.normal_(high.weight)
    if high.bias is not None:
        nn.init.zeros_(high.bias)
    x, g = normal(256, 512), normal(256, 192, seed=2)
    y, dx, dw, *_ = output_and_gradients(high, x, g)
    y8, dx8, dw8, *_ = output_and_gradients(fp8(high, Recipe.amax(formats=formats)), x, g)
    e4, e5 = relative_noise(3), relative_noise(2)
    for exact, noisy, noise in ((y, y8, e4 + e4), (dx, dx8, e5 + e4), (dw, dw8, e5 + e4)):
        assert sqnr_db(exact, noisy) == pytest.approx(-10 * math.log10(noise), abs=0.2)


# The weight is cast once until it changes


def test_the_weight_is_cast_once_for_all_micro_batches_and_their_backward(casts):
    layer = fp8()
    for seed in range(3):
        layer(normal(4, K, seed=seed)).sum().backward()
    layer.eval()(normal(4, K))
    assert count(casts) == {"weight": 1, "input": 4, "grad_output": 3}


def step(make_optimizer):
    """A change of the weight by one step of an optimizer."""

    def change(layer):
        optimizer = make_optimizer(layer.parameters())
        layer(normal(4, K)).square().sum().backward()
        optimizer.step()

    return change


class WritesThroughData(torch.optim.Optimizer):
    """An optimizer as Megatron, apex and bitsandbytes have them: it writes where autograd does not look."""

    def __init__(self, params):
        super().__init__(params, {})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=-0.1)


def assign(layer):
    layer.weight.data = layer.weight.data * -2


def copy_in(layer):
    with torch.no_grad():
        layer.weight.copy_(layer.weight * -2)


def multiply_in_inference_mode(layer):
    with torch.inference_mode():
        layer.weight.mul_(-2)


def new_parameter(layer):
    layer.weight = nn.Parameter(layer.weight.detach() * -2)


def load(layer, assign):
    layer.load_state_dict({name: tensor * -2 for name, tensor in layer.state_dict().items()}, assign=assign)


def assign_memory_that_was_freed(layer):
    """`.data =` twice: the allocator hands out the first address again, here by hand."""
    memory = np.ones(layer.weight.shape, dtype=np.float32)
    layer.weight.data = torch.from_numpy(memory)
    layer(normal(4, K))
    layer.weight.data = layer.weight.data * -2
    memory *= np.linspace(-3, 3, memory.size, dtype=np.float32).reshape(memory.shape)
    layer.weight.data = torch.from_numpy(memory)


CHANGES = {
    "SGD": step(lambda parameters: torch.optim.SGD(parameters, lr=0.1)),
    "AdamW for loop": step(lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=False)),
    "AdamW foreach": step(lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=True)),
    "AdamW fused": step(lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True)),
    "Adafactor": step(lambda parameters: torch.optim.Adafactor(parameters, lr=0.1)),
    "load_state_dict": lambda layer: load(layer, assign=False),
    "load_state_dict assign": lambda layer: load(layer, assign=True),
    "data =": assign,
    "copy_": copy_in,
    "mul_ in inference mode": multiply_in_inference_mode,
    "new parameter": new_parameter,
    "to bfloat16": lambda layer: layer.to(torch.bfloat16),
    "to float16": lambda layer: layer.half(),
    "data = at an old address": assign_memory_that_was_freed,
    "optimizer that writes to .data": step(WritesThroughData),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_weight_is_cast_again(change, casts):
    layer, x = fp8(), normal(4, K, seed=5)
    layer(x)
    change(layer)
    casts.clear()
    y = layer(x)
    assert torch.equal(y, fp8(layer.original())(x))  # a layer that never saw the old weight
    assert count(casts)["weight"] == 2  # once by each of the two
    layer(x)
    assert count(casts)["weight"] == 2


@pytest.mark.parametrize("same_input", [False, True])
def test_training_after_inference_mode(same_input):
    """Evaluate, then train: the casts that inference mode left behind cannot be saved for backward."""
    layer, x, g = fp8(), normal(4, K), normal(4, N, seed=2)
    with torch.inference_mode():
        layer.eval()(x)
    x = x if same_input else x.clone()
    layer.train()(x).backward(g)
    other = fp8()
    other(normal(4, K)).backward(g)
    assert_identical([p.grad for p in layer.parameters()], [p.grad for p in other.parameters()])


def test_data_assigned_with_other_strides_is_cast():
    """The same memory at the same offset, seen transposed."""
    layer, x = fp8(original(n=K)), normal(K, K)
    layer(x)
    layer.weight.data = layer.weight.data.t()
    assert torch.equal(layer(x), fp8(layer.original())(x))
    x.data = x.data.t()
    assert torch.equal(layer(x), fp8(layer.original())(x.clone()))


def test_a_weight_made_in_inference_mode_is_never_stale():
    with torch.inference_mode():
        layer, x = fp8().eval(), normal(4, K)
        layer(x)
        layer.weight.mul_(-2)
        assert torch.equal(layer(x), fp8(layer.original()).eval()(x))


# Siblings share the cast of their input


def siblings(num: int = 3) -> list[Fp8Linear]:
    return [fp8(original(seed=seed)) for seed in range(num)]


def test_siblings_share_the_cast_of_their_input(casts):
    x = normal(4, K).requires_grad_()
    sum(layer(x).sum() for layer in siblings()).backward()
    assert count(casts) == {"weight": 3, "input": 1, "grad_output": 3}
    siblings(1)[0](normal(4, K))  # equal values, another tensor
    assert count(casts)["input"] == 2


def test_siblings_with_another_operand_cast_for_themselves():
    x, recipe = normal(4, K), Recipe.amax()
    others = [Operand(format="e5m2", rule=Amax()), Operand(format="e4m3fn", rule=Constant(-4))]
    recipes = [recipe, *(recipe.override(input=operand) for operand in others)]
    outputs = [fp8(recipe=each)(x) for each in recipes]
    for each, output in zip(recipes, outputs, strict=True):
        assert torch.equal(output, fp8(recipe=each)(x.clone()))


SIBLING_CHANGES = {
    "add_": lambda x: x.add_(1),
    "add_ to a view": lambda x: x.view(-1)[3:].mul_(-2),
    "add_ to the detached": lambda x: x.detach().mul_(-2),
    "data =": lambda x: setattr(x, "data", x.data * -2),
}


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("made_in_mode", [False, True], ids=["made outside", "made inside"])
@pytest.mark.parametrize("change", SIBLING_CHANGES.values(), ids=SIBLING_CHANGES)
def test_a_change_between_siblings_is_noticed(change, made_in_mode, mode):
    x = normal(4, K)
    with mode():
        if made_in_mode:
            x = normal(4, K)
        for layer in siblings(2):
            assert torch.equal(layer(x), fp8(layer.original())(x.clone()))
            change(x)


@pytest.mark.parametrize("keep", [False, True], ids=["the first is dead", "the first lives"])
def test_another_tensor_at_the_same_address_is_cast(keep):
    memory, layer, kept = np.ones((4, K), dtype=np.float32), fp8(), []
    with torch.no_grad():
        for factor in (1, -1, 3):
            memory *= factor
            x = torch.from_numpy(memory)
            assert torch.equal(layer(x), fp8()(torch.from_numpy(memory.copy())))
            layer(x)  # so that this is the last cast
            kept += [x] if keep else []
            del x


def test_data_assigned_at_an_old_address_is_cast():
    memory, layer = np.ones((4, K), dtype=np.float32), fp8()
    x = torch.from_numpy(memory)
    layer(x)
    x.data = torch.ones(4, K)
    memory *= -3
    x.data = torch.from_numpy(memory)
    assert torch.equal(layer(x), fp8()(x.clone()))


def test_the_shared_cast_lives_no_longer_than_its_input(monkeypatch):
    quantize, codes = ops.quantize, []

    def spy(x, *args, **options):
        cast = quantize(x, *args, **options)
        codes.append(weakref.ref(cast.codes))
        return cast

    monkeypatch.setattr(ops, "quantize", spy)
    x, layer = normal(4, K), fp8()
    with torch.no_grad():
        layer(x)
    assert [code() is None for code in codes] == [False, False]  # weight, input
    del x
    gc.collect()
    assert [code() is None for code in codes] == [False, True]


def test_nothing_piles_up_on_an_input_that_is_used_again_and_again():
    model, x = nn.Sequential(fp8(original(n=K)), fp8()), normal(4, K)
    with torch.no_grad():
        for _ in range(50):
            model(x)
    assert weakref.getweakrefcount(x) < 10


# Saved for backward


def saved_for_backward(run) -> list[Tensor]:
    """What autograd saves while `run` runs, each tensor once, by its memory."""
    saved = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.setdefault(t.data_ptr(), t), lambda t: t):
        run()
    return list(saved.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_only_codes_and_scale_bias_are_saved(dtype, kind):
    x, layer = normal(2, 3, K, dtype=dtype).requires_grad_(), fp8(original(kind, dtype))
    saved = saved_for_backward(lambda: layer(x))
    assert sorted((str(t.dtype), t.nbytes) for t in saved) == sorted(
        [("torch.float8_e4m3fn", x.numel()), ("torch.float8_e4m3fn", layer.weight.numel())] + 2 * [("torch.int32", 4)]
    )


def test_siblings_save_their_input_once():
    x, layers = normal(6, K).requires_grad_(), siblings()
    saved = saved_for_backward(lambda: [layer(x) for layer in layers])
    assert sum(t.nbytes for t in saved) == x.numel() + 4 + 3 * (K * N + 4)


def test_the_high_precision_input_is_not_kept():
    layer, first = fp8(), fp8(original(n=K))
    hidden = first(normal(4, K))
    seen = weakref.ref(hidden)
    y = layer(hidden)
    del hidden
    assert seen() is None
    y.sum().backward()


@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_only_the_wanted_gradients_are_made(kind, wanted):
    """Frozen weights and inputs without grad: what is wanted is the same as if all were, and nothing else is saved."""
    g = normal(4, N, seed=2)
    _, *expected = output_and_gradients(fp8(original(kind)), normal(4, K), g)
    layer, x = fp8(original(kind)), normal(4, K)
    tensors = (x, layer.weight, layer.bias)
    for tensor, want in zip(tensors, wanted, strict=True):
        tensor.requires_grad_(want)
    outputs = []
    saved = saved_for_backward(lambda: outputs.append(layer(x)))
    want_x, want_w, _ = wanted
    assert sum(t.nbytes for t in saved) == want_x * (K * N + 4) + want_w * (4 * K + 4)
    assert outputs[0].requires_grad == any(wanted)
    if any(wanted):
        outputs[0].backward(g)
    assert_identical(
        [tensor.grad for tensor in tensors],
        [gradient if want else None for gradient, want in zip(expected, wanted, strict=True)],
    )


# Together with the rest of torch


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_decides_the_dtype_of_the_output_only(autocast, x_dtype, kind):
    """Oracle: nn.Linear's dtypes; the values are those without autocast, rounded to its dtype."""
    high, x = original(kind), normal(4, K, dtype=x_dtype)
    layer = fp8(high)
    with torch.autocast("cpu", autocast):
        assert layer(x).dtype == high(x).dtype == autocast
        check_products(layer, x, normal(4, N, dtype=autocast, seed=2), out=autocast)
    with torch.autocast("cpu", autocast, enabled=False):
        assert layer(x).dtype == x_dtype


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
def test_modes_do_not_change_the_output(mode, training):
    layer, x = fp8(), normal(4, K)
    expected = layer(x)
    with mode():
        y = layer.train(training)(x)
    assert torch.equal(y, expected)
    assert not y.requires_grad


class Block(nn.Module):
    """Two siblings and a layer after them: what is checkpointed as one."""

    def __init__(self, recipe):
        super().__init__()
        self.a, self.b = (fp8(original(seed=seed), recipe) for seed in (1, 2))
        self.c = fp8(original(seed=3, k=N, n=K), recipe)

    def forward(self, x):
        return self.c(torch.tanh(self.a(x)) * self.b(x))


@pytest.mark.parametrize("recipe", [Recipe.amax(), Recipe.delayed(history=2)], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_changes_no_bit(use_reentrant, recipe):
    def train(*, checkpointed):
        block, seen = Block(recipe), []
        optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
        for index in range(4):  # delayed scaling needs a history
            x = normal(5, K, seed=index, scale=4.0**index).requires_grad_()
            y = checkpoint(block, x, use_reentrant=use_reentrant) if checkpointed else block(x)
            y.backward(normal(5, K, seed=index + 10))
            seen += [y.detach(), x.grad, *(parameter.grad.clone() for parameter in block.parameters())]
            optimizer.step()
        return seen

    assert_identical(train(checkpointed=True), train(checkpointed=False))


def test_tied_weights_sum_their_gradients():
    g, g2 = normal(4, N, seed=2), normal(4, N, seed=3)
    first, second = fp8(original("linear without bias")), fp8(original("linear without bias"))
    _, _, dw = output_and_gradients(first, normal(4, K), g)
    _, _, dw2 = output_and_gradients(second, normal(4, K, seed=4), g2)
    first.zero_grad()
    second.weight = first.weight
    torch.autograd.backward([first(normal(4, K)), second(normal(4, K, seed=4))], [g, g2])
    assert second.weight.grad is first.weight.grad
    assert torch.equal(first.weight.grad, dw + dw2)


def test_gradients_accumulate_over_micro_batches():
    layer = fp8()
    batches = [(normal(4, K, seed=seed), normal(4, N, seed=seed + 5)) for seed in (1, 2)]
    (_, _, dw, db), (_, _, dw2, db2) = (output_and_gradients(layer, x, g) for x, g in batches)
    layer.zero_grad()
    for x, g in batches:
        layer(x).backward(g)
    assert_identical([layer.weight.grad, layer.bias.grad], [dw + dw2, db + db2])


def save_and_load(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), save_and_load],
    ids=["deepcopy", "pickle", "torch.save"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_equal_and_independent(kind, duplicate):
    layer, x, g = fp8(original(kind)), normal(4, K), normal(4, N, seed=2)
    layer(x).sum().backward()  # so that there are casts that could be copied
    twin = duplicate(layer)
    assert type(twin) is Fp8Linear
    assert str(twin) == str(layer)
    before = output_and_gradients(layer, x, g)
    assert_identical(output_and_gradients(twin, x, g), before)
    with torch.no_grad():
        twin.weight.mul_(-2)
    assert torch.equal(twin(x), fp8(twin.original())(x))
    assert_identical(output_and_gradients(layer, x, g), before)
    assert type(twin.original()) is type(original(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_buffers_hooks_and_mode_stay(kind):
    high = original(kind).eval()
    high.register_buffer("extra", torch.ones(1))
    seen = []
    handle = high.register_forward_hook(lambda *_: seen.append("called"))
    attributes = dict(high.__dict__)
    layer = fp8(high)
    assert dict(high.__dict__) == attributes  # the original is left as it was
    assert list(layer.state_dict()) == list(high.state_dict())
    assert all(a is b for a, b in zip(layer.parameters(), high.parameters(), strict=True))
    assert not layer.training
    layer(normal(2, K))
    back = layer.original()
    assert type(back) is type(high)
    assert set(back.__dict__) == set(attributes)
    assert torch.equal(back(normal(2, K)), high(normal(2, K)))
    assert len(seen) == 3
    handle.remove()
    layer(normal(2, K))
    assert len(seen) == 3


def test_print_shows_the_recipe_of_each_role():
    text = str(fp8(original("conv1d"), Recipe.cscale(-1)))
    assert text == (
        "Fp8Linear(33, 17, bias=True, weight [in, out], "
        "weight: e4m3fn cscale:-1, input: e4m3fn cscale:-1, grad_output: e5m2 cscale:-1)"
    )


# Infinity and NaN


@pytest.mark.parametrize("recipe", [*RECIPES, Recipe.delayed()], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_training_shows_a_non_finite_input(bad, dtype, recipe):
    layer, x = fp8(original(dtype=dtype), recipe), normal(4, K, dtype=dtype)
    x[2, 5] = bad
    y, dx, dw, _ = output_and_gradients(layer, x, normal(4, N, dtype=dtype, seed=2))
    assert y.isnan().tolist() == [[row == 2] * N for row in range(4)]
    assert dx.isfinite().all()  # does not depend on the input
    assert dw.isnan().tolist() == [[column == 5 for column in range(K)]] * N


@pytest.mark.parametrize("recipe", [*RECIPES, Recipe.delayed()], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_training_shows_a_non_finite_gradient(bad, recipe):
    """Also with e5m2, whose own infinity could have been multiplied by zero, or summed away."""
    g = normal(4, N, seed=2)
    g[2, 5] = bad
    _, dx, dw, db = output_and_gradients(fp8(recipe=recipe), normal(4, K), g)
    assert dx.isnan().tolist() == [[row == 2] * K for row in range(4)]
    assert dw.isnan().tolist() == [[row == 5] * K for row in range(N)]
    assert (~db.isfinite()).tolist() == [row == 5 for row in range(N)]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("role", ["input", "weight"])
@pytest.mark.parametrize("recipe", [*RECIPES, Recipe.delayed()], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_inference_raises_with_the_name(bad, recipe, role, mode):
    layer, x = fp8(recipe=recipe).eval(), normal(4, K)
    with mode():
        layer(x)
        (x if role == "input" else layer.weight)[2, 5] = bad
        for _ in range(2):  # also when the cast is reused
            with pytest.raises(NonFiniteError, match=rf"layer block\.proj: the {role} holds infinity or NaN"):
                layer(x)


@pytest.mark.parametrize(("training", "mode"), [(True, torch.no_grad), (False, nullcontext)])
def test_training_mode_and_gradients_are_no_inference(training, mode):
    """Eval mode with gradients, and train mode without, as in the first forward of a reentrant checkpoint."""
    layer, x = fp8().train(training), normal(4, K)
    x[0, 0] = math.nan
    with mode():
        assert layer(x)[0].isnan().all()


# Delayed scaling

AMAX = (1.0, 8.0, 0.5, 0.25, 64.0)


def constant(shape, value):
    return torch.full(shape, value)


@pytest.mark.parametrize("frozen", [False, True])
def test_delayed_scales_come_from_the_previous_steps(casts, frozen):
    """Oracle: reference.scale_bias of the largest amax of the last two steps; the first step has only its own."""
    layer = fp8(recipe=Recipe.delayed(history=2))
    layer.weight.requires_grad_(not frozen)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    weight_amax = []
    for amax in AMAX:
        weight_amax.append(layer.weight.abs().max().item())
        optimizer.zero_grad()
        for share in (0.25, 1.0, 0.125):  # micro-batches: the step's amax is the largest
            x = constant((2, K), amax * share).requires_grad_()
            layer(x).backward(constant((2, N), amax * share / 256))
        optimizer.step()
    for role, seen in (("input", AMAX), ("grad_output", [a / 256 for a in AMAX]), ("weight", weight_amax)):
        fmt = get_format(layer.fp8.recipe.operand(role).format)
        past = [max(seen[max(0, i - 2) : i]) if i else None for i in range(len(seen))]
        got = [bias for cast_role, bias in casts if cast_role == role]
        if role == "weight":
            assert frozen or got == [reference.scale_bias(past[i] or seen[0], fmt) for i in range(len(seen))]
            continue
        # nothing in the history yet: each micro-batch of the first step is scaled by its own amax
        first = [reference.scale_bias(seen[0] * share, fmt) for share in (0.25, 1.0, 0.125)]
        assert got == first + [reference.scale_bias(amax, fmt) for amax in past[1:] for _ in range(3)], role


def test_delayed_saturates_what_the_history_did_not_foresee():
    layer = fp8(original("linear without bias"), Recipe.delayed())
    layer(constant((1, K), 1.0)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.0).step()
    y = layer(constant((1, K), 1e6))
    assert torch.equal(y, layer(constant((1, K), 448 / 256)))  # amax 1 -> scale_bias 8; the largest value is 448


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_recomputed_forward_uses_the_scale_of_the_first(casts, use_reentrant):
    layer = fp8(recipe=Recipe.delayed(history=1))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for amax in AMAX:
        x = constant((2, K), amax).requires_grad_()
        checkpoint(layer, x, use_reentrant=use_reentrant).sum().backward()
        optimizer.step()
    expected = [reference.scale_bias(amax, get_format("e4m3fn")) for amax in (AMAX[0], *AMAX[:-1]) for _ in range(2)]
    assert [bias for role, bias in casts if role == "input"] == expected


def test_layers_have_histories_of_their_own(casts):
    """The same input, shared by siblings: each layer's scale comes from what that layer saw."""
    first, second = fp8(recipe=Recipe.delayed()), fp8(recipe=Recipe.delayed())
    with torch.no_grad():
        for layer, amax in ((first, 1.0), (second, 64.0)):
            layer.eval()(constant((1, K), amax))
    casts.clear()
    x = constant((1, K), 1.0)
    with torch.no_grad():
        first(x), second(x)
    assert casts == [("input", reference.scale_bias(amax, get_format("e4m3fn"))) for amax in (1.0, 64.0)]


# What a model does with the output

IN_PLACE = {
    "clamp": lambda y: y.clamp_(-0.5, 0.5),
    "add": lambda y: y.add_(1).mul_(2),
    "augmented": lambda y: y.__iadd__(y.detach()),
    "a part": lambda y: y[..., :3].zero_(),
    "through a view": lambda y: y.view(-1).mul_(3),
    "relu": nn.functional.relu_,
}


@pytest.mark.parametrize("write", IN_PLACE.values(), ids=IN_PLACE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(K,), (6, K), (2, 3, K), (2, 1, 3, K), (0, K)], ids=str)
def test_a_model_may_write_to_the_output_in_place(shape, kind, write):
    """Oracle: the same writes to a copy of the output. OLMo clips, Llama 4 adds."""
    x = normal(*shape)
    results = []
    for copied in (True, False):
        layer, leaf = fp8(original(kind)), x.clone().requires_grad_()
        y = layer(leaf)
        y = y.clone() if copied else y
        write(y)
        y.square().sum().backward()
        results.append([y.detach(), leaf.grad, layer.weight.grad])
    assert_identical(*results)


@pytest.mark.parametrize("write", IN_PLACE.values(), ids=IN_PLACE)
def test_an_output_made_without_gradients_may_be_written_to_with_them(write):
    """As an output of nn.Linear may; autograd refuses such a write to a view. Oracle: nn.Linear itself."""
    factor = torch.ones(N, requires_grad=True)
    for layer in (original(), fp8()):
        with torch.no_grad():
            y = layer(normal(6, K))
        y *= factor
        write(y)
        y.sum().backward()
    assert factor.grad is not None


@pytest.mark.parametrize("checkpointed", [False, True])
def test_hooks_may_write_to_gradients_in_place(checkpointed):
    """Oracle: hooks that return another tensor."""
    grads = []
    for hook in (lambda grad: grad * 2, lambda grad: grad.mul_(2)):
        layer, leaf = fp8(), normal(2, 3, K).requires_grad_()
        x = leaf * 1
        x.register_hook(hook)
        (checkpoint(layer, x, use_reentrant=False) if checkpointed else layer(x)).square().sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)
