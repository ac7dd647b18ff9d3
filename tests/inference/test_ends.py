"""The last norm and the head in the core. Oracles: transformers' own norm, and float64."""

import pytest
import torch
from implementations import BACKENDS, using
from torch import nn
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from octoscale.inference.ends import FusedHead, FusedNorm

pytestmark = pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ core is not built")

NATIVES = [name for name in BACKENDS if name != "portable"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 16, 17])
@pytest.mark.parametrize("name", NATIVES)
def test_the_norm_rounds_where_transformers_does(name, rows):
    norm = LlamaRMSNorm(96, eps=1e-5).bfloat16()
    norm.weight.copy_(normal(96, seed=1))
    x = normal(1, rows, 96, seed=2) * 3
    with using(name):
        found = FusedNorm(norm)(x)
    expected = norm(x)
    assert found.dtype == torch.bfloat16
    assert (found == expected).float().mean() > 0.98  # another order of one sum, a rounding now and then
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 16, 17])
@pytest.mark.parametrize("name", NATIVES)
def test_the_head_rounds_once(name, rows):
    """Float32 sums of 80 products of two bfloat16, then one rounding to bfloat16."""
    head = nn.Linear(80, 200, bias=False).bfloat16()
    x = normal(1, rows, 80, seed=3)
    with using(name):
        found = FusedHead(head)(x)
    exact = x.double() @ head.weight.double().t()
    bound = 2**-8 * exact.abs() + 81 * 2**-24 * (x.double().abs() @ head.weight.double().abs().t())
    assert found.shape == (1, rows, 200)
    assert ((found.double() - exact).abs() <= bound).all()


def test_what_the_core_does_not_take_goes_the_usual_way():
    head = nn.Linear(32, 8, bias=False)
    x = torch.randn(2, 3, 32)
    assert torch.equal(FusedHead(head)(x), functional.linear(x, head.weight))
    wide = head.bfloat16()
    y = normal(2, 64)[:, ::2]  # not contiguous
    assert torch.equal(FusedHead(wide)(y), functional.linear(y, wide.weight))
    z = normal(1, 32).requires_grad_()
    FusedHead(wide)(z).sum().backward()
    assert z.grad is not None
    assert wide.weight.grad is not None
