"""How others want FP8 checkpoints: names, shapes and config of three layouts, as data.

    compressed-tensors   vLLM, SGLang and transformers read it; the default
    vllm-fp8             vLLM's own
    hf-fp8               transformers' own, per tensor

All hold weights in e4m3fn as they lie in the model, and beside each a scale that the values are multiplied with: ours
are powers of two, 2**-scale_bias. Static layouts also hold such a scale for the input of each layer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from octoscale.system.errors import UserError

#: Under this key of config.json stands what the layouts of others have no word for.
OWN_KEY = "octoscale"

#: How a layer's input is cast: each time by its own amax, always by one scale, or not at all (weights only).
ACTIVATIONS = ("dynamic", "static", "none")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of the scales beside `<module>.weight`, their shape, and what config.json says."""

    name: str
    weight_scale: str
    input_scale: str
    scale_shape: tuple[int, ...]
    config: Callable[[Sequence[str], str], dict[str, Any]]


def _compressed_tensors(kept: Sequence[str], activations: str) -> dict[str, Any]:
    # Linear means torch's nn.Linear there: a module that is none, as GPT-2's Conv1D in transformers, is not found.
    base = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "group_size": None}
    base |= {"block_structure": None, "actorder": None, "observer_kwargs": {}}
    weights = {**base, "dynamic": False, "observer": "minmax"}
    static = {**base, "dynamic": False, "observer": "static_minmax"}
    dynamic = {**base, "dynamic": True, "observer": None}
    inputs = {"dynamic": dynamic, "static": static, "none": None}[activations]
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": list(kept),
        "config_groups": {"group_0": group},
    }


def _vllm_fp8(kept: Sequence[str], activations: str) -> dict[str, Any]:
    scheme = _scheme("vllm-fp8", activations)
    return {"quant_method": "fp8", "activation_scheme": scheme, "ignored_layers": list(kept), "weight_block_size": None}


def _hf_fp8(kept: Sequence[str], activations: str) -> dict[str, Any]:
    return {
        "quant_method": "fp8",
        "activation_scheme": _scheme("hf-fp8", activations),
        "weight_block_size": None,
        "modules_to_not_convert": list(kept),
        "dequantize": False,
        "scale_fmt": "float",
    }


def _scheme(layout: str, activations: str) -> str:
    if activations == "none":
        raise UserError(f"the layout {layout} has no weight-only form: --activations dynamic or static")
    return activations


LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="compressed-tensors",
            weight_scale="weight_scale",
            input_scale="input_scale",
            scale_shape=(1,),
            config=_compressed_tensors,
        ),
        Layout(
            name="vllm-fp8", weight_scale="weight_scale", input_scale="input_scale", scale_shape=(), config=_vllm_fp8
        ),
        Layout(
            name="hf-fp8",
            weight_scale="weight_scale_inv",
            input_scale="activation_scale",
            scale_shape=(),
            config=_hf_fp8,
        ),
    )
}


def get_layout(name: str) -> Layout:
    """The layout of that name. ValueError for an unknown one."""
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}: one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def scheme_of(content: Mapping[str, Any]) -> str | None:
    """What a `quantization_config` says about activations; None if its weights have not one e4m3fn scale a tensor.

    Values of a kind that they should not have mean nothing: no guess is made.
    """
    if content.get("quant_method") == "compressed-tensors":
        groups = content.get("config_groups")
        if not isinstance(groups, dict) or content.get("format") not in _FLOAT_FORMATS:
            return None
        schemes = {_compressed_scheme(group) for group in groups.values()}
        return schemes.pop() if len(schemes) == 1 else None
    if content.get("quant_method") == "fp8" and content.get("weight_block_size") is None:
        scheme = content.get("activation_scheme")
        return str(scheme) if scheme in ("dynamic", "static") else None
    return None


#: `naive-quantized` files differ in nothing that concerns FP8.
_FLOAT_FORMATS = ("float-quantized", "naive-quantized")


def _compressed_scheme(group: Any) -> str | None:
    """The same of one group; `format` in the group, where it stands, overrides that of the whole."""
    if not isinstance(group, dict) or group.get("format") not in (None, *_FLOAT_FORMATS):
        return None
    weights, inputs = group.get("weights"), group.get("input_activations")
    if not _is_one_scale(weights) or weights.get("dynamic"):
        return None
    if inputs is None:
        return "none"
    if not _is_one_scale(inputs):
        return None
    return "dynamic" if inputs.get("dynamic") else "static"


def _is_one_scale(args: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether these arguments of a quantization mean one symmetric FP8 scale a tensor."""
    wanted = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    if not isinstance(args, dict) or any(args.get(key) != value for key, value in wanted.items()):
        return False
    return args.get("symmetric", True) is True and isinstance(args.get("dynamic", False), bool)
