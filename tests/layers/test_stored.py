"""Layers whose weight is codes from a file. Oracles: Fp8Linear on the same weight; float64 on the values of codes."""

import copy
import io

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import octoscale
from octoscale import Recipe
from octoscale.layers.layouts import LAYOUTS, get_layout
from octoscale.layers.linear import to_fp8
from octoscale.layers.stored import scale_parameter, split_scale, to_stored
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Amax
from octoscale.runs.scales import LayerName, read_scales

NAME = LayerName(module="up_proj", layer=0, kind="ffn_in")


def linear(kind: str = "linear", *, bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(48, 64, bias=bias) if kind == "linear" else Conv1D(64, 48)
    if bias:
        nn.init.normal_(module.bias)
    return module.to(dtype).eval()


def stored(module: nn.Module, activations: str = "dynamic", layout: str = "compressed-tensors", shape=(1,)):
    layer = to_stored(module, NAME, Recipe.amax(), get_layout(layout), activations, shape)
    layer.set_weight(module.weight.detach(), Operand(format="e4m3fn", rule=Amax()))
    if activations == "static":
        set_scale(layer, 1.0, "input_scale")
    return layer


def set_scale(layer, value: float, which: str = "weight_scale") -> None:
    name = getattr(layer.fp8.layout, which)
    layer._parameters[name] = scale_parameter(value, layer.fp8.layout)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("rows", [(1,), (2, 7)])
def test_it_computes_what_fp8_linear_does(kind, dtype, rows):
    module = linear(kind, dtype=dtype)
    x = inputs(*rows, 48, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(stored(module)(x), to_fp8(module, NAME, Recipe.amax())(x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_state_dict_has_the_names_of_the_layout(layout):
    layer = stored(linear(), "static", layout, get_layout(layout).scale_shape)
    row = get_layout(layout)
    assert set(layer.state_dict()) == {"weight", "bias", row.weight_scale, row.input_scale}
    assert layer.state_dict()[row.weight_scale].shape == row.scale_shape
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert not any(p.requires_grad for name, p in layer.named_parameters() if name != "bias")


@pytest.mark.parametrize(("kind", "bias"), [("linear", True), ("linear", False), ("conv1d", True)])
@pytest.mark.parametrize("activations", ["dynamic", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_that_are_no_powers_of_two_are_computed_exactly(kind, bias, activations, dtype):
    """Oracle: float64 sums of the values that codes and scale have; inputs that the format holds exactly."""
    layer = stored(linear(kind, bias=bias, dtype=dtype), activations)
    set_scale(layer, 0.0123)
    x = torch.randint(-8, 9, (5, 48), generator=torch.Generator().manual_seed(2)).to(dtype)
    weight = layer.weight.double() * torch.tensor(0.0123).double()
    exact = x.double() @ (weight if kind == "conv1d" else weight.t())
    exact = exact if layer.bias is None else exact + layer.bias.double()
    with torch.no_grad():
        y = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), exact, rtol={torch.float32: 1e-5, torch.bfloat16: 2**-8}[dtype], atol=1e-5)


@pytest.mark.parametrize("scale", [2.0**-5, 0.03])
def test_static_inputs_are_cast_with_the_scale_of_the_file(scale):
    """Oracle: by hand: x / scale, clamped and cast, times scale."""
    layer = stored(linear(bias=False), "static")
    set_scale(layer, scale, "input_scale")
    x = inputs(6, 48) * 8
    s = torch.tensor(scale)
    assert (x.abs() / s > 448).any()  # some are clamped
    values = (x / s).clamp(-448, 448).to(torch.float8_e4m3fn).double() * s.double()
    weight = layer.weight.double() * layer.weight_scale.double()
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), values @ weight.t(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-45])
@pytest.mark.parametrize("which", ["weight_scale", "input_scale"])
def test_a_scale_that_cannot_be_is_refused_with_the_layers_name(value, which):
    layer = stored(linear(), "static")
    set_scale(layer, value, which)
    with pytest.raises(ValueError, match=rf"up_proj\.{which} is "):
        layer(inputs(2, 48))


def test_scales_split_into_a_power_of_two_and_a_factor():
    """Oracle: the identity scale = factor * 2**-bias in float64, 1 <= factor < 2."""
    for value in (1.0, 0.5, 3.0, 0.0123, 2.0**-100, 1.999):
        scale = torch.tensor([value], dtype=torch.float32)
        bias, factor = split_scale(scale, "s")
        assert 1 <= factor < 2
        assert factor * 2.0**-bias == scale.item()
    with pytest.raises(ValueError, match="no rows or blocks"):
        split_scale(torch.ones(4, 1), "s")


def test_a_new_scale_is_noticed():
    """Oracle: twice the scale is twice the product."""
    layer = stored(linear(bias=False))
    x = inputs(3, 48)
    with torch.no_grad():
        before = layer(x)
        layer.weight_scale.mul_(2)
        assert torch.equal(layer(x), 2 * before)
        layer.load_state_dict({**layer.state_dict(), "weight_scale": layer.weight_scale / 4})
        assert torch.equal(layer(x), before / 2)


def test_a_new_weight_is_noticed():
    """Oracle: the rows of a weight turned around are the columns of the product turned around."""
    layer = stored(linear(bias=False))
    x = inputs(3, 48)
    with torch.no_grad():
        before = layer(x)
        layer.weight = nn.Parameter(
            layer.weight.view(torch.uint8).flip(0).view(layer.weight.dtype), requires_grad=False
        )
        assert torch.equal(layer(x), before.flip(1))


def saved_and_loaded(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_copies_compute_the_same(copied):
    layer = stored(linear(), "static")
    set_scale(layer, 0.25, "input_scale")
    x = inputs(3, 48)
    with torch.no_grad():
        assert torch.equal(copied(layer)(x), layer(x))


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_the_original_has_the_values_of_the_codes(kind):
    module = linear(kind, dtype=torch.bfloat16)
    layer = stored(module)
    back = layer.original()
    assert type(back) is type(module)
    assert set(back.state_dict()) == {"weight", "bias"}
    assert back.weight.dtype == torch.bfloat16
    expected = layer.weight.float() * layer.weight_scale
    assert torch.equal(back.weight.float(), expected.bfloat16().float())
    assert torch.equal(module.weight, linear(kind, dtype=torch.bfloat16).weight)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_gradients_flow_through_to_the_input(factor):
    """Oracle: Fp8Linear on the same weight, frozen, for a power of two; that times the factor else."""
    module = linear(bias=False)
    x = inputs(4, 48).requires_grad_()
    layer, other = stored(module).train(), to_fp8(module, NAME, Recipe.amax()).train()
    other.weight.requires_grad_(False)
    set_scale(layer, factor * layer.weight_scale.item())
    grad = torch.randint(-3, 4, (4, 64)).float()
    layer(x).backward(grad)
    found, x.grad = x.grad, None
    other(x).backward(grad * factor)
    assert torch.equal(found, x.grad)


def test_every_cast_is_recorded(tmp_path):
    """Oracle: the rows of Fp8Linear for the input; the values of the codes for the weight."""
    model = nn.Sequential(stored(linear()))
    with torch.no_grad(), octoscale.record(model, tmp_path, every=0):
        model(inputs(3, 48))
        model(inputs(3, 48) * 4)
    rows = read_scales(tmp_path)
    assert rows["role"].to_list() == ["weight", "input", "input"]
    assert rows["scale_bias"].to_list()[1] == rows["scale_bias"].to_list()[2] + 2
    weight = model[0].weight.float() * model[0].weight_scale
    assert rows["amax"].to_list()[0] == weight.abs().max().item()
    assert rows["saturated"].sum() == rows["nonfinite"].sum() == 0


def test_infinity_in_an_input_names_the_layer():
    with torch.no_grad(), pytest.raises(octoscale.NonFiniteError, match="up_proj"):
        stored(linear())(torch.full((2, 48), float("inf")))


@pytest.mark.parametrize("activations", ["dynamic", "static", "none"])
@pytest.mark.parametrize("factor", [1.0, 1.5])
@pytest.mark.parametrize(("kind", "dtype"), [("linear", torch.bfloat16), ("conv1d", torch.float32)])
@pytest.mark.parametrize("rows", [(4,), (2, 2)])
def test_a_model_may_write_to_the_output_in_place(rows, kind, dtype, factor, activations):
    """Oracle: the same write to a copy; with gradients, and to an output that was made without."""
    layer = stored(linear(kind, dtype=dtype), activations)
    set_scale(layer, factor * layer.weight_scale.item())
    results = []
    for copied in (True, False):
        x = inputs(*rows, 48, dtype=dtype).requires_grad_()
        y = layer(x)
        y = y.clone() if copied else y
        y.clamp_(-1, 1).add_(x.sum())
        with torch.no_grad():
            z = layer(x.flatten(0, -2))
        z = z.clone() if copied else z
        z *= y.flatten(0, -2)
        (y.square().sum() + z.sum()).backward()
        results.append((y.detach(), z.detach(), x.grad))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_a_compiled_layer_computes_the_same():
    layer = stored(linear())
    x = inputs(3, 48)
    with torch.no_grad():
        assert torch.equal(torch.compile(layer)(x), layer(x))


CASTS = {
    "to": lambda m, dtype: m.to(dtype),
    "to like": lambda m, dtype: m.to(torch.empty(0, dtype=dtype)),
    "method": lambda m, dtype: {torch.float32: m.float, torch.float16: m.half, torch.bfloat16: m.bfloat16}[dtype](),
}


@pytest.mark.parametrize("how", CASTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activations", ["dynamic", "static", "none"])
def test_another_dtype_is_for_all_but_codes_and_scales(activations, dtype, how):
    """Oracle: a layer made in that dtype from the start."""
    layer = stored(linear(dtype=torch.bfloat16), activations)
    codes, memory = layer.weight.detach().clone(), layer.weight.data_ptr()
    model = CASTS[how](nn.Sequential(layer, nn.LayerNorm(64)), dtype)
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(layer.weight.view(torch.uint8), codes.view(torch.uint8))
    assert layer.weight.data_ptr() == memory
    assert all(layer.get_parameter(name).dtype == torch.float32 for name in layer.scale_names)
    assert {layer.bias.dtype, model[1].weight.dtype, layer.original().weight.dtype} == {dtype}
    x = inputs(3, 48, dtype=dtype)
    expected = stored(linear(dtype=torch.bfloat16).to(dtype), activations)
    expected.weight = layer.weight
    with torch.no_grad():
        assert torch.equal(layer(x), expected(x))


def test_to_another_device_moves_codes_and_scales():
    layer = stored(linear(), "static").to("meta")
    assert {p.device.type for p in layer.parameters()} == {"meta"}
    assert {p.dtype for p in layer.parameters()} == {torch.float8_e4m3fn, torch.float32}
    empty = layer.to_empty(device="cpu")
    assert {p.device.type for p in empty.parameters()} == {"cpu"}


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_that_is_not_finite_is_refused(dtype, value):
    module = linear(dtype=dtype)
    module.weight.data[3, 5] = value
    with pytest.raises(ValueError, match=r"up_proj.weight holds infinity or NaN"):
        stored(module)
