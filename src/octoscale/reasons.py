"""Why a module stays out of FP8: each that stays gets the first reason that any of its names gives.

What goes to FP8 is, in a transformers model, what stands in the stack of decoder layers; in any other model, every
linear layer but the head. Of those, these stay: routers, whose small product chooses experts, so that a rounded logit
sends a token elsewhere; heads, however deep in a wrapper; adapters; layers that the model's code does not call.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from octoscale.kinds import WRAPPED
from octoscale.linear import is_conv1d, is_linear
from octoscale.weight_reads import why_kept

#: The last part of the names under which models keep their head.
HEAD_NAMES = frozenset({"lm_head", "head", "score", "classifier", "embed_out", "qa_outputs", "output", "output_layer"})
#: Parts of the names of routers; `gate` is one where experts stand beside it.
_ROUTER = re.compile(r"\w*router\w*|shared_expert_gate|gate")


def reasons_to_keep(model: nn.Module, stacks: list[str], *, stored: bool) -> dict[nn.Module, str]:
    """The modules that stay as they are, for reasons that no recipe names. stored: codes take the weights' places."""
    names = dict(model.named_modules(remove_duplicate=False))
    heads = _heads(model, has_stacks=bool(stacks))
    reads = why_kept(model, stored=stored)
    fused = [name for name, module in names.items() if isinstance(module, nn.TransformerEncoderLayer)]
    adapted = [name.removesuffix(WRAPPED) for name in names if name.endswith(WRAPPED)]
    reasons: dict[nn.Module, str] = {}
    for name, module in names.items():
        reason = _why_not_itself(module)
        if name in heads:
            reason = "head"
        elif stacks and not is_below(name, stacks):
            reason = reason or "outside the decoder layers"
        elif is_below(name, adapted) and not name.endswith(WRAPPED):
            reason = reason or "adapter"
        elif is_below(name, fused):
            reason = reason or "torch's TransformerEncoderLayer reads its weight without calling it"
        elif _routes(name, names):
            reason = reason or "router"
        reason = reason or reads.get(name)
        if reason is not None:
            reasons.setdefault(module, reason)
    return reasons


def decoder_stacks(model: nn.Module) -> list[str]:
    """The names of the outermost ModuleLists of layers in a transformers model, or around one; none for another model.

    A list of bare linear layers (heads of several codebooks, projections of Gemma 3n) is no stack of layers.
    """
    if not any(_is_transformers(module) for module in model.modules()):
        return []
    stacks: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not is_below(name, stacks):
            is_bare = all(is_linear(layer) for layer in module)
            if not is_bare and any(is_linear(m) for m in module.modules()):
                stacks.append(name)
    return stacks


def is_below(name: str, parents: list[str]) -> bool:
    """Whether a name is that of something inside of one of the parents."""
    return any(name.startswith(f"{parent}.") for parent in parents)


def is_plain(module: nn.Module) -> bool:
    """Whether this computes `x @ weight^T + bias` and nothing else: nn.Linear, or a subclass that a trial shows to.

    The trial runs the class's own forward on a small weight, with all other attributes as they are, against torch's.
    """
    if type(module) is nn.Linear or is_conv1d(module):
        return True
    own = {name for name, parameter in module._parameters.items() if parameter is not None}
    if not isinstance(module, nn.Linear) or not own <= {"weight", "bias"} or module._buffers or module._modules:
        return False
    trial = type(module).__new__(type(module))
    trial.__dict__.update({**module.__dict__, "in_features": 3, "out_features": 5})
    try:
        return all(_is_product(trial, has_bias, training) for has_bias in (False, True) for training in (False, True))
    except Exception:  # noqa: BLE001  whatever a stranger's forward raises: it is no plain product
        return False


def _is_product(trial: nn.Module, has_bias: bool, training: bool) -> bool:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    weight, bias = random(5, 3), random(5) if has_bias else None
    trial.__dict__.update(training=training)
    trial.__dict__["_parameters"] = {
        "weight": nn.Parameter(weight), "bias": None if bias is None else nn.Parameter(bias)
    }  # fmt: skip
    for shape in ((3,), (4, 3), (2, 4, 3)):
        x = 10 * random(*shape)
        expected = functional.linear(x, weight, bias)
        if not all(torch.allclose(trial(x), expected, rtol=1e-12, atol=1e-12) for _ in range(2)):
            return False
    return True


def _why_not_itself(module: nn.Module) -> str | None:
    """The reason to leave a module as it is that lies in the module; None if it can be converted."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    if "forward" in module.__dict__:
        return "its forward was replaced by another library: convert before that"
    return None if is_plain(module) else f"{type(module).__name__} has a forward of its own"


def _heads(model: nn.Module, *, has_stacks: bool) -> set[str]:
    """The names of the output layers: what models of transformers in it say, names that heads have, or the last."""
    linears: list[str] = [name for name, module in model.named_modules(remove_duplicate=False) if is_linear(module)]
    outputs = [output for module in model.modules() if (output := _output_of(module)) is not None]
    named = {name for name in linears if any(model.get_submodule(name) is output for output in outputs)}
    named |= {name for name in linears if name in HEAD_NAMES or "lm_heads" in name.split(".")}
    return named or ({linears[-1]} if len(linears) > 1 and not has_stacks else set())


def _output_of(module: nn.Module) -> Any:
    """What a module calls its output embeddings; None if it has none, or is not one of transformers'."""
    get_output = getattr(module, "get_output_embeddings", None)
    try:
        return get_output() if callable(get_output) else None
    except (NotImplementedError, AttributeError):
        return None


def _routes(name: str, names: dict[str, nn.Module]) -> bool:
    """Whether this is a router of a mixture of experts, or in one."""
    parts = name.split(".")
    for depth, part in enumerate(parts):
        if not _ROUTER.fullmatch(part):
            continue
        beside = ".".join(parts[:depth])
        if part != "gate" or f"{beside}.experts" in names:
            return True
    return False


def _is_transformers(module: nn.Module) -> bool:
    """Whether this is a model of transformers, or peft's around one."""
    return any(cls.__name__ in {"PreTrainedModel", "PeftModel"} for cls in type(module).__mro__)
