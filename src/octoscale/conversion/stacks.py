"""Where a model keeps its decoder layers: the stacks that they stand in, and which layer a module is of.

    decoder_stacks(llama)                                               ["model.layers"]
    layer_of("model.layers.3.self_attn.q_proj", ["model.layers"])       3

As in the paper, linear layers in them go to FP8, and what stands beside them stays.
"""

import re
from collections.abc import Collection

from torch import nn

from octoscale.layers.origin import is_linear

#: Names of lists that hold heads or projections, no layers.
_NO_STACK = re.compile(r"\w*_(embed|mlps)|\w*(mergers?|merger_list|heads?)")


def decoder_stacks(model: nn.Module) -> list[str] | None:
    """The names of the stacks of layers in a transformers model, or around one; None for another model.

    A stack is an outermost list of layers: modules with linear layers in them. A list of bare linear layers (heads of
    several codebooks, projections of Gemma 3n) is none, nor is one of heads or mergers. A model of transformers itself
    may have its layers in a sequence, or none (ResNet); somebody's own without a list counts as another model.
    """
    models = [module for module in model.modules() if _is_transformers(module)]
    stacks = _outermost(model, nn.ModuleList) if models else []
    is_known = all(type(module).__module__.startswith("transformers.models.") for module in [model, *models])
    return stacks or (_outermost(model, nn.Sequential) if is_known else None)


def layer_of(name: str, stacks: list[str]) -> int | None:
    """The number of the layer in its stack that a module stands in."""
    stack = next((stack for stack in stacks if name.startswith(f"{stack}.")), None)
    number = "" if stack is None else name.removeprefix(f"{stack}.").partition(".")[0]
    return int(number) if number.isdigit() else None


def is_below(name: str, parents: Collection[str]) -> bool:
    """Whether a name is that of something inside of one of the parents."""
    return any(name.startswith(f"{parent}.") for parent in parents)


def _outermost(model: nn.Module, container: type[nn.Module]) -> list[str]:
    """The names of the outermost containers of layers."""
    found: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, container) and not is_below(name, found):
            layers = [layer for layer in module.children() if any(is_linear(m) for m in layer.modules())]
            is_bare = all(is_linear(layer) for layer in layers)
            if not is_bare and not _NO_STACK.fullmatch(name.rpartition(".")[2]):
                found.append(name)
    return found


def _is_transformers(module: nn.Module) -> bool:
    """Whether this is a model of transformers, or peft's around one."""
    return any(cls.__name__ in {"PreTrainedModel", "PeftModel"} for cls in type(module).__mro__)
