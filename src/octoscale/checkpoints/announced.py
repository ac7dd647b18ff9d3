"""What a checkpoint folder says of the FP8 weights that it holds, before anything of it is loaded.

    announce(config, folder, shards)

Codes of FP8 that nothing announces would be read as weights of bfloat16, wrong by the scale of each tensor. NVIDIA's
ModelOpt announces them in a file of its own, hf_quant_config.json; with one scale a tensor they are read with it.
Other quantizations (rows, blocks, other methods) are named, with what can be done.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octoscale.checkpoints.headers import is_packed, read_entries
from octoscale.layers.layouts import get_layout, scheme_of
from octoscale.system.errors import UserError

MODELOPT_FILE = "hf_quant_config.json"


def announce(config: Any, folder: Path, shards: Sequence[Path]) -> None:
    """Complete a transformers config by what else the folder says of its FP8 weights.

    ValueError, in the user's words, for FP8 weights that nothing announces, and for a quantization that is not one
    scale a tensor.
    """
    content = getattr(config, "quantization_config", None)
    if content is None:  # of a composite model, it may stand with the text model's config, as transformers has it
        content = getattr(config.get_text_config(decoder=True), "quantization_config", None)
    modelopt = _modelopt(content, folder)
    if modelopt is not None:
        config.quantization_config = _understood(modelopt, shards)
        return
    if isinstance(content, dict):
        if scheme_of(content) is None:
            raise UserError(f"its weights are quantized {describe(content)}: {_REMEDY}")
        return
    for shard in shards:
        for name, entry in read_entries(shard).items():
            if is_packed(entry):
                raise UserError(
                    f"{name} in {shard.name} is {entry.dtype}, and config.json does not say how it is scaled: "
                    "it lacks the quantization_config that was written with these files"
                )


_REMEDY = (
    "here, weights have one FP8 scale a tensor: let vLLM or transformers run this folder, or quantize its original"
)


def describe(content: Mapping[str, Any]) -> str:
    """What a `quantization_config` that we do not read says, in words."""
    method = str(content.get("quant_method", "in an unknown way"))
    if method == "fp8" and content.get("weight_block_size"):
        return f"with one FP8 scale a block of {content['weight_block_size']} (fp8)"
    groups = content.get("config_groups")
    if method == "compressed-tensors" and isinstance(groups, dict):
        said = {_describe_group(group) for group in groups.values() if isinstance(group, dict)}
        return f"with {' and '.join(sorted(said)) or 'no weights'} (compressed-tensors)"
    return f"by {method}"


def _describe_group(group: Mapping[str, Any]) -> str:
    parts = (group.get("weights"), group.get("input_activations"))
    weights, inputs = (part if isinstance(part, dict) else {} for part in parts)
    kinds = {"channel": "one scale a row", "block": "one scale a block", "group": "one scale a group"}
    kinds |= {"tensor": "one scale a tensor", "tensor_group": "one scale a group"}
    words = f"{kinds.get(str(weights.get('strategy')), 'unknown scales')} of {weights.get('num_bits')}-bit weights"
    tokens = " and one a token of the inputs" if inputs.get("strategy") == "token" else ""
    return words + tokens


def _modelopt(content: Any, folder: Path) -> Mapping[str, Any] | None:
    """What ModelOpt says, in config.json or in its own file; None if it says nothing."""
    if isinstance(content, dict) and str(content.get("quant_method", "")).startswith("modelopt"):
        return content
    path = folder / MODELOPT_FILE
    if content is not None or not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["quantization"]
        if isinstance(said, dict):
            return said
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    raise UserError(f"{path}: quantization is {said!r}, not a table of words")


def _understood(said: Mapping[str, Any], shards: Sequence[Path]) -> dict[str, Any]:
    """The same in the words of a layout that we read: ModelOpt's names of scales are vLLM's."""
    algorithm = said.get("quant_algo")
    if algorithm != "FP8":
        raise UserError(f"its weights are quantized by ModelOpt's {algorithm}: {_REMEDY}")
    kept = said.get("exclude_modules") or said.get("ignore") or []
    layout = get_layout("vllm-fp8")
    has_input_scales = any(name.endswith(f".{layout.input_scale}") for shard in shards for name in read_entries(shard))
    return layout.config([str(name) for name in kept], "static" if has_input_scales else "dynamic")
