"""For tests of graphs, by torch.compile and torch.export: the CPU served by each backend, and how to train a graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from models import tiny_gpt2, tiny_llama
from torch import Tensor, nn

from octoscale.kernels import table
from octoscale.kernels.table import Choice

#: Those of the dispatch table, the tensor cores' in its form for CPUs.
BACKENDS = ("native", "portable", "scaled_mm")

#: Models of one layer: what compiling takes grows with their number. Without dropout, whose random numbers differ.
ONE_LAYER = {
    "gpt2": partial(tiny_gpt2, n_layer=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "llama": partial(tiny_llama, num_hidden_layers=1),
}


@contextmanager
def served_by(name: str) -> Iterator[None]:
    """Inside the block a backend serves the CPU; the test is skipped where it cannot."""
    (row,) = [row for row in table.TABLE if row.name == name]
    if (why := row.why_not("cpu")) is not None:
        pytest.skip(why)
    backend, reason = row.make("cpu")
    with table.instead("cpu", Choice(name=name, backend=backend, reason=reason)):
        yield


def outputs_and_gradients(
    model: nn.Module, call: Callable[[Tensor], Sequence[Tensor]], x: Tensor, autocast: torch.dtype | None = None
) -> list[Tensor]:
    """What a model gives for x, and the gradients of x and of its parameters, for a loss that weighs every value."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        ys = call(x)
    torch.stack([(y.float() * torch.arange(y.numel()).view_as(y).cos()).sum() for y in ys]).sum().backward()
    return [*(y.detach() for y in ys), x.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """The same tensors, to the bit and the dtype."""
    assert [y.dtype for y in ours] == [y.dtype for y in theirs]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
