"""Layers with a scale for each row, block or 32 values: three products, what backward turns, and who refuses.

Oracle of the products: float64 on the values of the casts, which tests/kernels/test_groups.py holds to the reference.
"""

import re

import pytest
import torch
from grouped import values_of
from intervals import assert_within, interval
from models import TINY, tokens
from torch import nn
from transformers.pytorch_utils import Conv1D

from octoscale import Recipe, convert
from octoscale.checkpoints.calibrate import calibrate
from octoscale.distributed.shard import shard
from octoscale.distributed.tensor_parallel import split_layers
from octoscale.kernels.ops import quantize
from octoscale.layers.compiled import fp8_linear
from octoscale.layers.linear import Fp8Linear, to_fp8
from octoscale.layers.ranks import Ranks
from octoscale.layers.state import LayerState
from octoscale.numerics.granularity import along
from octoscale.numerics.recipe import parse_scaling
from octoscale.runs.scales import LayerName

K, N = 140, 150
NAME = LayerName(module="block.proj", layer=0, kind="other")
TEXTS = ("amax:row", "amax:block", "amax:mx,margin=1", "amax:mx,round=up", "weight=amax:block,input=amax:row")


def spread_out(*shape: int, seed: int) -> torch.Tensor:
    """Values over more binades than e4m3fn has with all digits, so that what is turned loses some."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 2.0 ** torch.randint(-16, 0, shape, generator=generator)


def fp8(kind: str, text: str) -> Fp8Linear:
    layer = Conv1D(N, K) if kind == "conv1d" else nn.Linear(K, N)
    with torch.no_grad():
        layer.weight.copy_(spread_out(*layer.weight.shape, seed=1))
        layer.bias.copy_(spread_out(N, seed=2))
    return to_fp8(layer, NAME, parse_scaling(text))


class Expected:
    """The operands of the three products, float64 [B, K], [K, N] and [B, N], as the table in linear.py has them."""

    def __init__(self, layer: Fp8Linear, x: torch.Tensor, g: torch.Tensor) -> None:
        recipe, conv = layer.fp8.recipe, layer.fp8.is_conv1d
        self.x = self.cast(x, recipe.input, "input")
        w = self.cast(layer.weight, recipe.weight, "weight", sum_first=conv)
        self.w = w if conv else w.t()
        self.g = self.cast(g, recipe.grad_output, "grad_output")
        turned_w = self.cast(self.w.float(), recipe.weight, "weight")  # of [K, N], the sum in dx runs along N
        self.w_for_dx = turned_w
        self.x_for_dw = self.cast(self.x.float(), recipe.input, "input", sum_first=True)
        self.g_for_dw = self.cast(g, recipe.grad_output, "grad_output", sum_first=True)

    @staticmethod
    def cast(x, operand, role, *, sum_first=False):
        rows = x.detach().flatten(0, -2)
        granularity = along(operand.rule.granularity, role, sum_first=sum_first)
        return values_of(quantize(rows, operand.format, operand.rule, granularity=granularity))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("text", TEXTS)
def test_three_products_and_gradients_equal_float64_on_the_same_codes(text, kind):
    layer = fp8(kind, text)
    x, g = spread_out(2, 70, K, seed=3).requires_grad_(), spread_out(2, 70, N, seed=4)
    g *= 2.0 ** -(torch.arange(N) % 24)  # e5m2 has twice the binades
    layer(x).backward(g)
    y, of = layer(x), Expected(layer, x, g)
    assert_within(y, interval(of.x, of.w, torch.float32, layer.bias))
    assert_within(x.grad, interval(of.g, of.w_for_dx.t(), torch.float32))
    dw_KN = layer.weight.grad if kind == "conv1d" else layer.weight.grad.t()
    assert_within(dw_KN, interval(of.x_for_dw.t(), of.g_for_dw, torch.float32))


@pytest.mark.parametrize(("text", "turned"), [("amax:row", True), ("amax:block", False)])
def test_turning_is_seen_where_it_costs_something(text, turned):
    """The oracle above would not tell a weight that was not turned from one that was, if both were the same."""
    layer = fp8("linear", text)
    of = Expected(layer, spread_out(3, K, seed=3), spread_out(3, N, seed=4))
    assert torch.equal(of.w_for_dx, of.w) != turned


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", ["amax:row", "amax:block", "amax:mx"])
def test_each_gradient_has_its_own_dtype(text, dtype):
    layer = fp8("linear", text).to(dtype)
    x = spread_out(2, 3, K, seed=3).to(dtype).requires_grad_()
    layer(x).sum().backward()
    assert [t.dtype for t in (x.grad, layer.weight.grad, layer.bias.grad)] == [dtype] * 3


def test_one_byte_a_value_is_kept_for_backward():
    layer = fp8("linear", "amax:row")
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        layer(spread_out(2, 70, K, seed=3).requires_grad_())
    assert sum(t.numel() for t in saved if t.dtype == torch.float8_e4m3fn) == 2 * 70 * K + K * N
    assert {t.dtype for t in saved} == {torch.float8_e4m3fn, torch.int32}


@pytest.mark.parametrize("text", ["amax:row", "amax:mx"])
def test_under_a_compiler_such_a_layer_stays_eager(text):
    assert not fp8("linear", text).fp8.is_stateless
    assert fp8("linear", "amax").fp8.is_stateless


# Who takes one scale a tensor


def refusals(tmp_path):
    """Name -> a call under `amax:row`; what each would do under `amax` is tested where it is made."""
    recipe, model = Recipe.amax(granularity="row"), TINY["llama"]()
    return {
        "static activations": lambda: calibrate(model, tokens(), recipe),
        "a sharded model": lambda: shard(converted(recipe), None),
        "a split model": lambda: split_layers(converted(recipe), None),
        "a part of a layer": lambda: LayerState(
            name=NAME, recipe=recipe, original_type=nn.Linear, ranks=Ranks(sum_output=lambda x: x)
        ),
        "an operator of torch.compile": lambda: fp8_linear(
            torch.ones(1, K), torch.ones(N, K), None, fp8("linear", "amax:row").fp8.terms, "none", False, torch.float32
        ),
    }


def converted(recipe: Recipe) -> nn.Module:
    model = TINY["llama"]()
    convert(model, recipe)
    return model


@pytest.mark.parametrize("what", refusals(None))
def test_what_takes_one_scale_a_tensor_says_so(what, tmp_path):
    remedy = re.escape("takes one scale a tensor: amax, cscale or delayed")
    with pytest.raises(ValueError, match=f"scaling amax:row: .* {remedy}"):
        refusals(tmp_path)[what]()
