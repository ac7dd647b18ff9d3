"""Which decoder layers the fused step stands for: transformers' own, as they are, and nothing that looks like them.

The core computes what these classes compute. So every piece must be of its exact class, with the forward that
transformers gave it, attention must be torch's scaled dot product, causal, over all that went before; and whatever a
piece may be told otherwise (activation, groups of heads, window) must be what the core assumes. All that is not known
to be so is a reason to go the usual way.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from transformers import modeling_utils
from transformers.activations import SiLUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.utils import output_capturing

from octoscale.inference.usual_path import is_of_a_library, usual_functions, why_unusual
from octoscale.layers.stored import StoredLinear

#: Decoder layer -> its pieces by name, each of one of these classes.
_PIECES: dict[type[nn.Module], dict[str, tuple[type[nn.Module], ...]]] = {
    llama.LlamaDecoderLayer: {
        "self_attn": (llama.LlamaAttention,),
        "mlp": (llama.LlamaMLP,),
        "mlp.act_fn": (SiLUActivation, nn.SiLU),
        "input_layernorm": (llama.LlamaRMSNorm,),
        "post_attention_layernorm": (llama.LlamaRMSNorm,),
    },
    mistral.MistralDecoderLayer: {
        "self_attn": (mistral.MistralAttention,),
        "mlp": (mistral.MistralMLP,),
        "mlp.act_fn": (SiLUActivation, nn.SiLU),
        "input_layernorm": (mistral.MistralRMSNorm,),
        "post_attention_layernorm": (mistral.MistralRMSNorm,),
    },
}
BACKBONES: dict[type[nn.Module], type[nn.Module]] = {
    llama.LlamaModel: llama.LlamaRMSNorm,
    mistral.MistralModel: mistral.MistralRMSNorm,
}
_NAMES = tuple(cls.__name__ for cls in _PIECES)

#: Decoder layers of transformers before 5.21 are called by it: as any module in inference.
_CHECKPOINTING = vars(GradientCheckpointingLayer).get("__call__")

#: What attention must be; a name, so that a test can put exact arithmetic in both places.
USUAL_ATTENTION: Callable[..., Any] = sdpa_attention_forward


def why_unknown(layer: nn.Module) -> str | None:
    """Why this is no decoder layer that the core computes; None if it is one."""
    pieces = _PIECES.get(type(layer))
    if pieces is None:
        own = " of transformers" if type(layer).__name__ in _NAMES else ""
        return f"{type(layer).__name__} is not one of {', '.join(_NAMES)}{own}"
    for name, classes in pieces.items():
        reason = _why_another(name, layer.get_submodule(name), classes)
        if reason is not None:
            return reason
    again = _why_another("the layer", layer, (type(layer),))
    return again or why_unusual(type(layer)) or _why_attention(layer.self_attn)


def why_backbone_unknown(model: nn.Module) -> str | None:
    """The same of the decoder as a whole; its own `forward` may have been replaced by us only."""
    if type(model) not in BACKBONES:
        return f"{type(model).__name__} is not known"
    return why_patched(type(model), "the decoder") or why_unusual(type(model)) or why_norm_unknown(model)


def why_norm_unknown(model: nn.Module) -> str | None:
    """The same of the last norm of a known decoder."""
    norm: Any = model.norm
    return _why_another("norm", norm, (BACKBONES[type(model)],))


def globals_of(layer: nn.Module) -> list[object]:
    """What could be replaced without touching a module: forwards of classes, attention, words of config and recipe."""
    attention: Any = layer.self_attn
    config = attention.config
    mlp: Any = layer.mlp
    pieces: list[Any] = [layer, attention, mlp, mlp.act_fn, layer.input_layernorm]
    words = [getattr(config, name, None) for name in ("_attn_implementation", "sliding_window", "is_causal")]
    forwards: list[object] = [type(module).forward for module in pieces]
    recipes = [(m.fp8.recipe, m.fp8.activations) for m in layer.modules() if isinstance(m, StoredLinear)]
    return [*forwards, *usual_functions(type(layer)), _attention_of(config), *words, *recipes]


def is_watched(module: nn.Module) -> bool:
    """Whether a hook wants to see this module's input or output; transformers' own ones ask in the call."""
    return any(not _collects(hook) for hooks in _hooks_of(module) for hook in hooks.values())


def is_collecting() -> bool:
    """Whether transformers is gathering hidden states or attentions of the call that is running."""
    return bool(output_capturing._active_collector.get())  # names of what is wanted; empty in most calls


def are_all_modules_watched() -> bool:
    """Whether there is a hook on every module of the process."""
    module = nn.modules.module
    return bool(module._global_forward_hooks or module._global_forward_pre_hooks)


def _hooks_of(module: nn.Module) -> Iterator[dict[int, Any]]:
    yield module._forward_hooks
    yield module._forward_pre_hooks


def _collects(hook: Any) -> bool:
    return bool(getattr(hook, "__module__", "") == output_capturing.__name__)


def _why_another(name: str, module: nn.Module, classes: tuple[type[nn.Module], ...]) -> str | None:
    if type(module) not in classes:
        return f"{name} is a {type(module).__name__}, not a {classes[0].__name__}"
    if "forward" in module.__dict__ and type(module.forward).__module__.partition(".")[0] != "octoscale":
        return f"the forward of {name} was replaced"
    return why_patched(type(module), name)


def why_patched(cls: type[nn.Module], name: str) -> str | None:
    """Whether the class still has the forward that was written for it, and is called as every module is."""
    forward: Any = cls.forward
    is_own = (forward.__module__, forward.__qualname__) == (cls.__module__, f"{cls.__name__}.forward")
    if is_own and is_of_a_library(forward) and cls.__call__ in (nn.Module.__call__, _CHECKPOINTING):
        return None
    return f"the forward of {name}'s class {cls.__name__} was replaced"


def _why_attention(attention: Any) -> str | None:
    config = attention.config
    if _attention_of(config) is not USUAL_ATTENTION:
        return f"its attention is {config._attn_implementation}, not torch's sdpa as transformers calls it"
    if not (attention.is_causal and getattr(config, "is_causal", True)):
        return "its attention is not causal"
    if isinstance(attention, mistral.MistralAttention) and getattr(config, "sliding_window", None) is not None:
        return f"it has a sliding window of {config.sliding_window} tokens"
    if not isinstance(attention.scaling, float):
        return f"its attention's scaling is {attention.scaling}, no number"
    queries, keys = attention.q_proj, attention.k_proj
    if not (isinstance(queries, StoredLinear) and isinstance(keys, StoredLinear)):
        return None  # says so itself
    heads, kv_heads = queries.out_features // attention.head_dim, keys.out_features // attention.head_dim
    if heads != kv_heads * attention.num_key_value_groups:
        return f"{heads} heads are not {attention.num_key_value_groups} groups of {kv_heads}"
    return None


def _attention_of(config: Any) -> object:
    """The function that attention will call; None for eager attention and unknown names."""
    if config._attn_implementation != "sdpa":
        return None
    return modeling_utils.ALL_ATTENTION_FUNCTIONS.get("sdpa")
