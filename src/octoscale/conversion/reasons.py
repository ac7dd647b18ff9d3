"""Why a module stays out of FP8: each that stays gets the first reason that any of its names gives.

What goes to FP8 is, in a transformers model, what stands in the stack of decoder layers; in any other model, every
linear layer but the head. Of those, these stay: routers, whose small product chooses experts, so that a rounded logit
sends a token elsewhere; heads, however deep in a wrapper; adapters; layers that the model's code does not call.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from octoscale.conversion.kinds import WRAPPED
from octoscale.conversion.patterns import matches
from octoscale.conversion.plain import why_not_plain
from octoscale.conversion.stacks import is_below
from octoscale.conversion.weight_reads import why_kept
from octoscale.layers.origin import is_linear

#: The last part of the names under which models keep their head.
HEAD_NAMES = frozenset({"lm_head", "head", "score", "classifier", "embed_out", "qa_outputs", "output", "output_layer"})
#: Parts of the names of routers, and those that are routers where experts stand beside them.
_ROUTER = re.compile(r"\w*router\w*|shared_experts?_gate")
_GATE = re.compile(r"(\w+_)?gate|gating\w*|wg")


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


def why_skipped(name: str, patterns: Iterable[str]) -> str | None:
    """The reason to keep a module that a recipe's patterns give, if one matches."""
    pattern = next((pattern for pattern in patterns if matches(pattern, name)), None)
    return None if pattern is None else f"skip pattern {pattern!r}"


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
