"""bfloat16 through float32. Oracle: float64, within the accumulation bound and one rounding."""

import pytest
import torch
from torch import nn

from octoscale.kernels import bf16_gemm
from octoscale.kernels.bf16_gemm import bf16_through_float32


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
    model = nn.Sequential(nn.Linear(4, 4), nn.Bilinear(2, 2, 2).to(torch.bfloat16))
    with bf16_through_float32(model) as changed:
        assert not changed
    monkeypatch.setattr(bf16_gemm, "cpu_has_bf16_gemm", lambda: True)
    with bf16_through_float32(nn.Linear(4, 4).to(torch.bfloat16)) as changed:
        assert not changed
