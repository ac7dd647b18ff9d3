"""Layers whose weight is codes, of every kind that there is: what becomes of their input, and their scales."""

import torch
from tensors import normal
from torch import nn
from transformers.pytorch_utils import Conv1D

from octoscale.conversion.convert import replace_module
from octoscale.layers.layouts import get_layout
from octoscale.layers.linear import Fp8Linear
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
    """A stored layer of each kind, for nn.Linear and Conv1D, with a bias and without, in one graph.

    Each has a part of the input to itself: where gradients meet, a compiler adds them up in an order of its own.
    """

    def __init__(self, dtype: torch.dtype, kinds=KINDS) -> None:
        super().__init__()
        both = [
            stored(*kind, is_conv1d=is_conv1d, bias=(number + is_conv1d) % 2 == 0, dtype=dtype)
            for is_conv1d in (False, True)
            for number, kind in enumerate(kinds)
        ]
        self.layers, self.dtype = nn.ModuleList(both), dtype

    def forward(self, x):
        """What each gives for its part of the input."""
        return [layer(part) for layer, part in zip(self.layers, x.split(40, dim=-1), strict=True)]

    def inputs(self, *shape: int) -> torch.Tensor:
        """Normal numbers [*shape, 40 for each layer]."""
        return normal(*shape, 40 * len(self.layers)).to(self.dtype)


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


def as_stored(model: nn.Module, activations: str) -> None:
    """Put the linear layers of a converted model into the state in which they would come from a checkpoint."""
    layout = get_layout("compressed-tensors")
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Fp8Linear):
            original, fp8 = layer.original(), layer.fp8
            new = to_stored(original, fp8.name, fp8.recipe, layout, activations, layout.scale_shape)
            new.set_weight(original.weight.detach(), fp8.recipe.weight)
            if activations == "static":
                new.input_scale = scale_parameter(0.03, layout)
            replace_module(model, name, new)
