"""Why a module stays out of FP8: each that stays gets the first reason that any of its names gives.

What goes to FP8 is, in a transformers model, what stands in the stack of decoder layers; in any other model, every
linear layer but the head. Of those, these stay: routers, whose small product chooses experts, so that a rounded logit
sends a token elsewhere; heads, however deep in a wrapper; adapters; layers that the model's code does not call.
"""

import re
from collections.abc import Collection
from typing import Any

from torch import nn

from octoscale.conversion.kinds import WRAPPED
from octoscale.conversion.plain import why_not_plain
from octoscale.conversion.weight_reads import why_kept
from octoscale.layers.origin import is_linear

#: The last part of the names under which models keep their head.
HEAD_NAMES = frozenset({"lm_head", "head", "score", "classifier", "embed_out", "qa_outputs", "output", "output_layer"})
#: Parts of the names of routers, and those that are routers where experts stand beside them.
_ROUTER = re.compile(r"\w*router\w*|shared_experts?_gate")
_GATE = re.compile(r"(\w+_)?gate|gating\w*|wg")
#: Names of lists that hold heads or projections, no layers.
_NO_STACK = re.compile(r"\w*_(embed|mlps)|\w*(mergers?|merger_list|heads?)")


def reasons_to_keep(model: nn.Module, stacks: list[str] | None) -> dict[nn.Module, str]:
    """The modules that stay as they are, for reasons that no recipe names."""
    names = dict(model.named_modules(remove_duplicate=False))
    heads = _heads(model, has_stacks=stacks is not None)
    beside_experts = {name.rpartition(".")[0] for name in names if "expert" in name.rpartition(".")[2].lower()}
    reads = why_kept(model)
    fused = [name for name, module in names.items() if isinstance(module, nn.TransformerEncoderLayer)]
    adapted = [name.removesuffix(WRAPPED) for name in names if name.endswith(WRAPPED)]
    reasons: dict[nn.Module, str] = {}
    for name, module in names.items():
        reason: str | None = None
        if name in heads:
            reason = "head"
        elif _routes(name, beside_experts):
            reason = "router"
        elif isinstance(module, nn.Embedding):
            reason = "embedding"
        reason = reason or why_not_plain(module)
        if stacks is not None and not is_below(name, stacks):
            reason = reason or "outside the decoder layers"
        elif is_below(name, adapted) and not name.endswith(WRAPPED):
            reason = reason or "adapter"
        elif is_below(name, fused):
            reason = reason or "torch's TransformerEncoderLayer reads its weight without calling it"
        reason = reason or reads.get(name)
        if reason is not None:
            reasons.setdefault(module, reason)
    return reasons


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


def _heads(model: nn.Module, *, has_stacks: bool) -> set[str]:
    """The names of the output layers: what models of transformers in it say, names that heads have, or the last."""
    linears = {name: module for name, module in model.named_modules(remove_duplicate=False) if is_linear(module)}
    outputs = [output for module in model.modules() if (output := _output_of(module)) is not None]
    named = {name for name, module in linears.items() if any(module is output for output in outputs)}
    named |= {name for name in linears if name in HEAD_NAMES or {"lm_head", "lm_heads"} & set(name.split("."))}
    return named or ({list(linears)[-1]} if len(linears) > 1 and not has_stacks else set())


def _output_of(module: nn.Module) -> Any:
    """What a module calls its output embeddings; None if it has none, or is not one of transformers'."""
    get_output = getattr(module, "get_output_embeddings", None)
    try:
        return get_output() if callable(get_output) else None
    except (NotImplementedError, AttributeError):
        return None


def _routes(name: str, beside_experts: Collection[str]) -> bool:
    """Whether this is a router of a mixture of experts, or in one."""
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if _ROUTER.fullmatch(part) or (_GATE.fullmatch(part) and ".".join(parts[:depth]) in beside_experts):
            return True
    return False


def _is_transformers(module: nn.Module) -> bool:
    """Whether this is a model of transformers, or peft's around one."""
    return any(cls.__name__ in {"PreTrainedModel", "PeftModel"} for cls in type(module).__mro__)
