"""bfloat16 through float32. Oracle: float64, within the accumulation bound and one rounding; torch's own autocast."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from octoscale.layers import bf16_gemm
from octoscale.layers.bf16_gemm import bf16_through_float32


@pytest.fixture(autouse=True)
def cpu_without_bf16(monkeypatch):
    monkeypatch.setattr(bf16_gemm, "cpu_has_bf16_gemm", lambda: False)


@pytest.mark.parametrize("bias", [True, False])
def test_equals_float64_up_to_the_sum_and_one_rounding(bias):
    torch.manual_seed(0)
    layer = nn.Linear(300, 50, bias=bias).to(torch.bfloat16)
    x = torch.randn(2, 7, 300).to(torch.bfloat16)
    with bf16_through_float32(layer) as changed:
        y = layer(x)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    magnitude = nn.functional.linear(
        x.double().abs(), layer.weight.double().abs(), layer.bias.double().abs() if bias else None
    )
    # 301 terms in float32, each sum rounded by at most 2**-24 of the magnitudes; then bfloat16's half ulp, 2**-8.
    bound = 301 * 2.0**-24 * magnitude + 2.0**-8 * (exact.abs() + 301 * 2.0**-24 * magnitude)
    assert changed
    assert y.dtype == torch.bfloat16
    assert ((y.double() - exact).abs() <= bound).all()


def test_layers_are_as_before_when_the_block_ends():
    layer = nn.Linear(4, 4).to(torch.bfloat16)
    with bf16_through_float32(layer):
        assert "forward" in layer.__dict__
    assert "forward" not in layer.__dict__


def test_other_layers_are_left_alone(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 4).to(torch.float16), nn.Bilinear(2, 2, 2).to(torch.bfloat16))
    with bf16_through_float32(model) as changed:
        assert not changed
    monkeypatch.setattr(bf16_gemm, "cpu_has_bf16_gemm", lambda: True)
    with bf16_through_float32(nn.Linear(4, 4).to(torch.bfloat16)) as changed:
        assert not changed


def one_step(layer, x, through):
    """Output and gradients of a step under autocast, and the bytes that it keeps for its backward pass."""
    layer.zero_grad()
    x, kept = x.clone().requires_grad_(), {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, bf16_through_float32(layer) if through else nullcontext():
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype))
    found = {"y": y, "x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    return {name: tensor.detach() for name, tensor in found.items()}, sum(kept.values())


@pytest.mark.parametrize("rows", [(9,), (2, 5), (1, 2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_a_step_under_autocast_is_torchs_up_to_one_rounding(kind, bias, rows):
    torch.manual_seed(0)
    layer = nn.Linear(40, 24, bias=bias) if kind == "linear" else Conv1D(24, 40)
    x = torch.randn(*rows, 40)
    ours, kept = one_step(layer, x, through=True)
    theirs, kept_by_torch = one_step(layer, x, through=False)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        # Sums in another order may round to the neighbour, 2**-7 away, of what has not cancelled.
        bound = 2.0**-7 * theirs[name].abs().max() if tensor.numel() else 0
        assert ((tensor - theirs[name]).abs() <= bound).all(), name
    assert kept <= kept_by_torch


def test_without_autocast_float32_layers_compute_as_they_are():
    layer, x = nn.Linear(40, 24), torch.randn(3, 40)
    with bf16_through_float32(layer) as changed:
        assert changed
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_a_layer_is_called_as_ever():
    layer, x = nn.Linear(40, 24), torch.randn(3, 40)
    with bf16_through_float32(layer), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(input=x), layer(x))
        with pytest.raises(RuntimeError):  # as torch has it
            layer(x.long())
