"""Layers whose weight is codes, of every kind that there is: what becomes of their input, and their scales."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from octoscale.layers.layouts import get_layout
from octoscale.layers.stored import StoredLinear, scale_parameter, to_stored
from octoscale.numerics.recipe import Operand, Recipe
from octoscale.numerics.scaling import Amax
from octoscale.runs.scales import LayerName

#: What becomes of the input; the factors of the scales of weight and input: 1 is a power of two.
KINDS = [
    ("dynamic", 1.0, 1.0),
    ("dynamic", 1.3, 1.0),
    ("static", 1.0, 1.0),
    ("static", 1.3, 1.0),
    ("static", 1.0, 1.7),
    ("static", 1.3, 1.7),
    ("none", 1.0, 1.0),
    ("none", 1.3, 1.0),
]


class AllKinds(nn.Module):
    """A stored layer of each kind, for nn.Linear and Conv1D, with a bias and without, in one graph."""

    def __init__(self, dtype: torch.dtype, kinds=KINDS) -> None:
        super().__init__()
        both = [
            stored(*kind, is_conv1d=is_conv1d, bias=(number + is_conv1d) % 2 == 0, dtype=dtype)
            for is_conv1d in (False, True)
            for number, kind in enumerate(kinds)
        ]
        self.layers = nn.ModuleList(both)

    def forward(self, x):
        """What each gives for the same input."""
        return [layer(x) for layer in self.layers]


def stored(
    activations: str,
    weight_factor: float,
    input_factor: float,
    *,
    is_conv1d: bool = False,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
) -> StoredLinear:
    """One of them; a Conv1D has a bias always."""
    torch.manual_seed(3)
    module = Conv1D(24, 40) if is_conv1d else nn.Linear(40, 24, bias=bias)
    if module.bias is not None:
        nn.init.normal_(module.bias)
    module = module.to(dtype).eval()
    layout = get_layout("compressed-tensors")
    name = LayerName(module="up_proj", layer=0, kind="ffn_in")
    layer = to_stored(module, name, Recipe.amax(), layout, activations, (1,))
    layer.set_weight(module.weight.detach(), Operand(format="e4m3fn", rule=Amax()))
    layer.weight_scale = scale_parameter(float(layer.weight_scale) * weight_factor, layout)
    if activations == "static":
        layer.input_scale = scale_parameter(2.0**-7 * input_factor, layout)
    return layer
