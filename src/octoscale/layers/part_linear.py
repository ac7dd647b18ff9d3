"""A rank's columns or rows of a linear layer in high precision, for inference.

    ranks_of(layer)             what it asks other ranks for; a layer that is whole asks for nothing
    RowPart, RowPartConv1D      a layer whose sum is in parts: y = add(x_here @ w_here) + bias

A layer with parts of its outputs needs no class of its own: it is torch's, with a smaller weight. Where the sum is in
parts, partial sums are float32, so that they are rounded once, after the last one was added. `convert` makes FP8 layers
of both, which ask the other ranks for the same.
"""

from torch import Tensor, nn
from torch.nn import functional

from octoscale.layers.ranks import Ranks


class RowPart(nn.Linear):
    """An nn.Linear of which this rank has some inputs: weight [N, K here], bias [N] whole, input [..., K here]."""

    ranks: Ranks

    def forward(self, x: Tensor) -> Tensor:
        """The whole sum, in the dtype of x."""
        return _added(functional.linear(x.float(), self.weight.float()), self.bias, self.ranks, x)


class RowPartConv1D(nn.Module):
    """The same of GPT-2's Conv1D: weight [K here, N]."""

    is_part_of_conv1d = True  # for origin.py
    ranks: Ranks
    weight: nn.Parameter
    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """The whole sum, in the dtype of x."""
        return _added(x.float() @ self.weight.float(), self.bias, self.ranks, x)


def ranks_of(layer: nn.Module) -> Ranks:
    """What a layer in high precision asks other ranks for."""
    ranks = layer.__dict__.get("ranks")
    return ranks if isinstance(ranks, Ranks) else Ranks()


def _added(partial: Tensor, bias: Tensor | None, ranks: Ranks, x: Tensor) -> Tensor:
    assert ranks.sum_output is not None
    whole = ranks.sum_output(partial)
    return (whole if bias is None else whole + bias.float()).to(x.dtype)
