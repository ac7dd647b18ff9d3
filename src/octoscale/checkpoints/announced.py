"""What a checkpoint folder says of the FP8 weights that it holds, before anything of it is loaded.

    announce(config, folder, shards)

Codes of FP8 that nothing announces would be read as weights of bfloat16, wrong by the scale of each tensor. NVIDIA's
ModelOpt announces them in a file of its own, hf_quant_config.json; it is read in the words of compressed-tensors
(said.py). Other quantizations (4 bits, integers, other methods) are named, with a layer that is so, and with what can
be done.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from octoscale.checkpoints.headers import is_packed, read_entries
from octoscale.checkpoints.said import UnreadableError, is_target, modelopt_in_our_words, read_config
from octoscale.layers.layouts import LAYOUTS
from octoscale.layers.schemes import EVERY_LINEAR
from octoscale.system.errors import UserError

MODELOPT_FILE = "hf_quant_config.json"

#: What stands beside the weight of a layer that is quantized, by anyone.
_SIGNS = ("weight_packed", *{name for layout in LAYOUTS.values() for name in (layout.weight_scale,)})


def announce(config: Any, folder: Path, shards: Sequence[Path]) -> None:
    """Complete a transformers config by what else the folder says of its FP8 weights.

    ValueError, in the user's words, for FP8 weights that nothing announces, and for a quantization that is not served.
    """
    content = getattr(config, "quantization_config", None)
    text = config.get_text_config(decoder=True)
    if content is None and getattr(text, "quantization_config", None) is not None:
        # Of a composite model, it may stand with the text model's config; here all look at the whole's.
        content = config.quantization_config = text.quantization_config
        del text.quantization_config
    try:
        modelopt = _modelopt(content, folder)
        if modelopt is not None:
            config.quantization_config = modelopt_in_our_words(modelopt, has_input_scales=_has_input_scales(shards))
            return
        if isinstance(content, dict):
            read_config(content)
            return
    except UnreadableError as error:
        raise error.of(_a_layer(error.targets, shards)) from None
    for shard in shards:
        for name, entry in read_entries(shard).items():
            if is_packed(entry):
                raise UserError(
                    f"{name} in {shard.name} is {entry.dtype}, and config.json does not say how it is scaled: "
                    "it lacks the quantization_config that was written with these files"
                )


def _a_layer(targets: Sequence[str], shards: Sequence[Path]) -> str | None:
    """The first layer of the files that is quantized and that these targets mean; None of no targets."""
    for shard in shards if targets else ():
        for name in read_entries(shard):
            module, _, leaf = name.rpartition(".")
            if leaf in _SIGNS and any(is_target(target, module, (EVERY_LINEAR,)) for target in targets):
                return module
    return None


def _has_input_scales(shards: Sequence[Path]) -> bool:
    return any(name.endswith(".input_scale") for shard in shards for name in read_entries(shard))


def _modelopt(content: Any, folder: Path) -> Mapping[str, Any] | None:
    """What ModelOpt says, in config.json or in its own file; None if it says nothing."""
    if isinstance(content, dict) and str(content.get("quant_method", "")).startswith("modelopt"):
        nested = content.get("quantization")
        return nested if isinstance(nested, dict) else content
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
