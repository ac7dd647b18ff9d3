"""Planted faults: a layer's weights times 2**12 and its input divided by as much, the same function in any precision.

    planted = plant_norm(model, "model.layers.2.input_layernorm", ["...q_proj", "...k_proj", "...v_proj"])

How the input is divided: through the norm before it, whose gain and bias shrink, with all that read it; through the
rows of another layer before it; or by a hook, where one reader of several is meant.
"""

import torch
from torch import nn

FACTOR = 2.0**12


@torch.no_grad()
def plant_norm(model: nn.Module, norm: str, readers: list[str]) -> None:
    """Divide what a norm gives, and multiply the weights of all that read it."""
    for parameter in model.get_submodule(norm).parameters():
        parameter /= FACTOR
    for reader in readers:
        model.get_submodule(reader).weight *= FACTOR


@torch.no_grad()
def plant_feeder(model: nn.Module, feeder: str, layer: str) -> None:
    """Divide the rows of the layer before, a bias too."""
    for parameter in model.get_submodule(feeder).parameters():
        parameter /= FACTOR
    model.get_submodule(layer).weight *= FACTOR


@torch.no_grad()
def plant_hook(model: nn.Module, layer: str) -> None:
    """Divide the input of one layer only; the hook stays."""
    model.get_submodule(layer).register_forward_pre_hook(lambda _, args: (args[0] / FACTOR, *args[1:]))
    model.get_submodule(layer).weight *= FACTOR
