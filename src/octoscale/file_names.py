"""From the names in a checkpoint's files to those in the model, as transformers itself maps them when it loads.

    parameters_of(model, ["model.layers.0.block_sparse_moe.gate.weight"])

Many models of transformers 5 name or stack their weights otherwise than their files do (LLaVA, Gemma 3, Mixtral, ViT),
and a file of a base model leaves out the first part of each name. The rules are the model's own; none stands here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)


@dataclass(frozen=True)
class Target:
    """The parameter that a tensor of the files becomes; merged: together with others, or in another form."""

    parameter: str
    merged: bool


def parameters_of(model: Any, names: Iterable[str]) -> dict[str, Target]:
    """Name of a tensor -> what it becomes in this model of transformers; names of other parameters are left out.

    A scale beside a weight counts as a parameter that the model does not have: ask for the weight's name.
    """
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    own = model.state_dict(keep_vars=True)
    found: dict[str, Target] = {}
    for name in names:
        parameter, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if parameter not in own and name in own:
            parameter, pattern = name, None
        if parameter in own:
            found[name] = Target(parameter, merged=pattern is not None)
    return found


def shapes_in_files(model: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that `save_pretrained` would write of this model; no value is touched."""
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()}
