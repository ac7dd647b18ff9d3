"""Stored layers with a scale a row or a block, nn.Linear and Conv1D. Oracle: float64 on values of codes and scales."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import octoscale
from octoscale.layers.factor import split_scales
from octoscale.layers.layouts import get_layout
from octoscale.layers.linear import to_fp8
from octoscale.layers.schemes import Scheme
from octoscale.layers.stored import StoredLinear, shape_in, to_stored
from octoscale.runs.scales import LayerName, read_scales
from octoscale.system.errors import UserError

K, N = 300, 150
NAME = LayerName(module="up_proj", layer=0, kind="ffn_in")


def linear(kind: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    module = Conv1D(N, K) if kind == "conv1d" else nn.Linear(K, N)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    return module.to(dtype).eval()


def stored(kind: str, scheme: Scheme, *, factors: bool = True, dtype: torch.dtype = torch.float32) -> StoredLinear:
    """Codes of a normal weight; with factors, scales between 2**-12 and 2**-6, of 24 bits."""
    module, layout, recipe = linear(kind, dtype), get_layout("compressed-tensors"), scheme.recipe()
    layer = to_stored(module, NAME, recipe, layout, scheme.activations, shape_in(layout, scheme, module))
    layer.set_weight(module.weight.detach(), recipe.weight)
    if factors:
        shape = layer.weight_scale.shape
        values = 2.0 ** -(6 + 6 * torch.rand(shape, generator=torch.Generator().manual_seed(1)))
        layer.weight_scale = nn.Parameter(values, requires_grad=False)
    return layer


def values_of(layer: StoredLinear) -> torch.Tensor:
    """[N, K], float64, by the layout's definition."""
    codes, scales = layer.weight.double(), layer.weight_scale.double()
    codes = codes.t() if layer.fp8.is_conv1d else codes
    if scales.shape != (N, 1):
        scales = scales.repeat_interleave(128, 0)[:N].repeat_interleave(128, 1)[:, :K]
    return codes * scales


SCHEMES = [
    Scheme(weight=weight, activations=activations, input=input)
    for weight in ("row", "block")
    for activations, input in (("dynamic", "row"), ("dynamic", "block"), ("dynamic", "tensor"), ("none", "tensor"))
]


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_with_factors_are_computed_with_as_they_are(dtype, scheme, kind):
    """Inputs that e4m3fn holds exactly under every scale.

    300 terms in float32, each run's sum rounded once more by its factor: within 302 * 2**-24 of the sum of magnitudes.
    """
    layer = stored(kind, scheme, dtype=dtype)
    x = torch.randint(-8, 9, (2, 5, K), generator=torch.Generator().manual_seed(2)).to(dtype)
    weight = values_of(layer)
    exact = x.double() @ weight.t() + layer.bias.double()
    magnitudes = x.double().abs() @ weight.abs().t() + layer.bias.double().abs()
    with torch.no_grad():
        y = layer(x)
    assert y.dtype == dtype
    rounding = 2.0**-24 if dtype == torch.float32 else 2.0**-8
    assert ((y.double() - exact).abs() <= 302 * 2.0**-24 * magnitudes + rounding * exact.abs()).all()


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("reach", ["row", "block"])
def test_powers_of_two_give_the_bits_of_fp8_linear(reach, kind):
    scheme = Scheme(weight=reach, input=reach)
    x = torch.randn(4, K, generator=torch.Generator().manual_seed(3))
    layer, other = stored(kind, scheme, factors=False), to_fp8(linear(kind), NAME, scheme.recipe())
    with torch.no_grad():
        assert torch.equal(layer(x), other(x))
        assert torch.equal(copy.deepcopy(layer)(x), other(x))
    other.weight.requires_grad_(False)
    grad = torch.randn(4, N, generator=torch.Generator().manual_seed(4))
    for each in (layer, other):
        each.train()
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    layer(one).backward(grad)
    other(two).backward(grad)
    assert torch.equal(one.grad, two.grad)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("reach", ["row", "block"])
def test_gradients_flow_through_factors(reach, kind):
    """e5m2 rounds each factor of the sum to 2**-3 of it at most; in the whole far less. The bias is not frozen."""
    layer = stored(kind, Scheme(weight=reach, input=reach)).train()
    x = torch.randn(6, K, generator=torch.Generator().manual_seed(5)).requires_grad_()
    grad = torch.randn(6, N, generator=torch.Generator().manual_seed(6))
    layer(x).backward(grad)
    expected = grad.double() @ values_of(layer)
    assert (x.grad - expected).norm() < 2**-4 * expected.norm()
    assert torch.equal(layer.bias.grad, grad.sum(0))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("reach", ["row", "block"])
def test_the_original_has_the_values(reach, kind):
    """Oracle: float64; e4m3fn times 24 bits is rounded once to float32."""
    layer = stored(kind, Scheme(weight=reach, input=reach))
    weight = layer.original().weight.detach()
    expected = values_of(layer)
    assert torch.equal(weight, (expected.t() if kind == "conv1d" else expected).float())


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-45])
def test_a_scale_that_cannot_be_is_named_by_its_place(value):
    layer = stored("linear", Scheme(weight="block", input="block"))
    with torch.no_grad():
        layer.weight_scale[1, 2] = value
        with pytest.raises(UserError, match=r"up_proj\.weight_scale\[1, 2\] is "):
            layer(torch.randn(2, K))


def test_scales_split_exactly():
    """Oracle: factor * 2**-bias in float64."""
    scales = torch.rand(40, 3, generator=torch.Generator().manual_seed(7)) * 2.0 ** torch.arange(-60, 60, 3)[:, None]
    bias, factor = split_scales(scales, "s")
    assert torch.equal(factor.double() * 2.0 ** -bias.double(), scales.double())
    assert ((factor >= 1) & (factor < 2)).all()
    assert split_scales(2.0 ** torch.arange(-9.0, 9.0), "s")[1] == 1.0


def test_a_new_scale_is_noticed():
    layer = stored("linear", Scheme(weight="row", input="row"))
    layer.bias = None
    x = torch.randn(3, K)
    with torch.no_grad():
        before = layer(x)
        layer.weight_scale[7] *= 2
        after = layer(x)
    assert torch.equal(after[:, 7], 2 * before[:, 7])
    assert torch.equal(after[:, :7], before[:, :7])


@pytest.mark.parametrize("reach", ["row", "block"])
def test_what_is_recorded_of_a_weight(reach, tmp_path):
    """Oracle: the largest value of the codes times the powers of two of their scales."""
    model = nn.Sequential(stored("linear", Scheme(weight=reach, input=reach), factors=False))
    with torch.no_grad(), octoscale.record(model, tmp_path, every=0):
        model(torch.randn(3, K))
    rows = read_scales(tmp_path)
    assert rows["role"].to_list() == ["weight", "input"]
    assert rows["amax"].to_list()[0] == values_of(model[0]).abs().max().item()
    assert rows["saturated"].sum() == rows["nonfinite"].sum() == 0


def test_it_is_computed_out_of_a_graph():
    layer = stored("linear", Scheme(weight="block", input="block"))
    x = torch.randn(3, K)
    with torch.no_grad():
        expected = layer(x)
        assert torch.equal(torch.compile(layer, backend="eager")(x), expected)
