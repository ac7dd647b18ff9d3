"""From the names in a checkpoint's files to those in the model, and back, as transformers itself maps them.

    parameters_of(model, ["model.layers.0.block_sparse_moe.gate.weight", ...])
    Saving(model).name_of("model.layers.0.mlp.gate.weight")

Many models of transformers 5 name or stack their weights otherwise than their files do (LLaVA, Gemma 3, Mixtral, ViT),
and a file of a base model leaves out the first part of each name. The rules are the model's own; none stands here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    PrefixChange,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from octoscale.conversion.convert import ConversionReport
from octoscale.conversion.ignore import ignored


@dataclass(frozen=True)
class Target:
    """The parameters that a tensor of the files becomes: one, or merged with other tensors, split, or in another form.

    parameter: the first of them.
    """

    parameter: str
    merged: bool = False
    others: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """All of them."""
        return (self.parameter, *self.others)


def parameters_of(model: Any, names: Iterable[str], rules: Iterable[Any] | None = None) -> dict[str, Target]:
    """Name of a tensor -> what it becomes in this model of transformers; names of other parameters are left out.

    names: all of the files, for some rules of transformers hold only where another name is there too. rules: those of
    the model, unless given.
    """
    rules = list(get_model_conversion_mapping(model) if rules is None else rules)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    converter_of = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    own = model.state_dict(keep_vars=True)
    found: dict[str, Target] = {}
    for name in sorted(names, key=dot_natural_key):
        parameter, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if parameter not in own and name in own:
            parameter, pattern = name, None
        if parameter not in own:
            continue
        first, *more = [parameter] if pattern is None else converter_of[pattern].target_patterns
        others = tuple(other for each in more if (other := parameter.replace(first, each)) in own)
        found[name] = Target(parameter, merged=pattern is not None, others=others)
    return found


def renamed(name: str, rules: Iterable[WeightRenaming]) -> str:
    """A name after all these rules."""
    return str(rename_source_key(name, list(rules), [])[0])


def shapes_in_files(model: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that `save_pretrained` would write of this model; no value is touched."""
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()}


def kept_in_files(report: ConversionReport, model: Any) -> list[str]:
    """What is to be left in high precision, by the model's names and those under which save_pretrained writes it."""
    shapes = shapes_in_files(model)
    weights = {f"{row.module}.weight" for row in report.converted}
    codes = [name for name, target in parameters_of(model, shapes).items() if target.parameter in weights]
    return ignored(report, shapes, codes)


class Saving:
    """The names under which save_pretrained writes a model's tensors: it turns around what was done to load them."""

    def __init__(self, model: Any) -> None:
        rules = getattr(model, "_weight_conversions", None)
        if rules is None:  # not read from files
            rules = get_model_conversion_mapping(model, add_legacy=False)
            rules = [rule for rule in rules if not isinstance(rule, PrefixChange)]
        reverse = [rule.reverse_transform() for rule in rules[::-1]]
        self._renamings = [rule for rule in reverse if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in reverse if isinstance(rule, WeightConverter)]

    @property
    def changes_names(self) -> bool:
        """Whether any rule may apply."""
        return bool(self._renamings or self._converters)

    def name_of(self, parameter: str) -> str:
        """The name in the file of a parameter that is written as it is."""
        return renamed(parameter, self._renamings)

    def is_whole(self, parameter: str) -> bool:
        """Whether a parameter is written as it is, not merged with others, split, or in another form."""
        return rename_source_key(parameter, [], self._converters)[1] is None
