"""FP8 checkpoints as others write them, made from the facts of their layouts, and what they mean, by hand.

save_foreign(folder, "FP8_BLOCK")        a tiny Llama whose sizes are no multiples of a block, scales with factors
means(folder, "FP8_BLOCK")               the same model in float32, weights decoded, inputs cast: the oracle
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from checkpoints import save_tiny_llama
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

BITS = {"num_bits": 8, "type": "float", "symmetric": True}
TOKENS = {**BITS, "strategy": "token", "dynamic": True}
GROUPS = {**BITS, "strategy": "group", "group_size": 128, "dynamic": True}


def group(weights: dict, inputs: dict | None, targets: tuple[str, ...] = ("Linear",)) -> dict:
    """One of config_groups."""
    weights = {**BITS, "dynamic": False, **weights}
    return {"targets": list(targets), "weights": weights, "input_activations": inputs, "output_activations": None}


def compressed(*groups: dict, ignore: tuple[str, ...] = ("lm_head",), **more) -> dict:
    """A quantization_config of compressed-tensors."""
    numbered = {f"group_{number}": each for number, each in enumerate(groups)}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "kv_cache_scheme": None,
        "sparsity_config": {},
        "transform_config": {},
        "ignore": list(ignore),
        "config_groups": numbered,
        **more,
    }


CHANNEL, BLOCKS = {"strategy": "channel"}, {"strategy": "block", "block_structure": [128, 128]}
TENSOR = {"strategy": "tensor"}
STATIC = {**BITS, "strategy": "tensor", "dynamic": False}

#: Of a static input: no power of two, and a bfloat16.
STATIC_SCALE = 0.01220703125


@dataclass(frozen=True)
class Kind:
    """How a kind of file is: what it says, and of each layer how its weight is scaled, and how its input is cast."""

    content: dict
    reach: Callable[[str], str]
    input: Callable[[str], str]
    scale: str = "weight_scale"
    dtype: torch.dtype = torch.float32
    form: Callable[[torch.Tensor], torch.Tensor] = lambda scale: scale


def _always(word: str) -> Callable[[str], str]:
    return lambda name: word


def _mixed(down: str, other: str) -> Callable[[str], str]:
    return lambda name: down if name.endswith("down_proj") else "kept" if "layers.1.self_attn.o" in name else other


_HF = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
_MIXED = compressed(
    group(CHANNEL, TOKENS),
    group(BLOCKS, GROUPS, (r"re:.*down_proj$",)),
    group(TENSOR, None, ("model.layers.0.mlp.up_proj",)),
    ignore=("lm_head", r"re:.*layers\.1\.self_attn\.o_proj"),
)


def _of_mixed(by: Callable[[str], str], up: str) -> Callable[[str], str]:
    return lambda name: up if name == "model.layers.0.mlp.up_proj" else by(name)


KINDS = {
    "FP8_DYNAMIC": Kind(compressed(group(CHANNEL, TOKENS)), _always("row"), _always("row"), dtype=torch.bfloat16),
    "FP8_BLOCK": Kind(compressed(group(BLOCKS, GROUPS)), _always("block"), _always("block"), dtype=torch.bfloat16),
    "static": Kind(compressed(group(TENSOR, STATIC)), _always("tensor"), _always("static"), dtype=torch.bfloat16),
    "weights only": Kind(compressed(group(CHANNEL, None)), _always("row"), _always("none")),
    "several groups": Kind(
        _MIXED, _of_mixed(_mixed("block", "row"), "tensor"), _of_mixed(_mixed("block", "row"), "none")
    ),
    "blocks of fp8": Kind(
        {**_HF, "modules_to_not_convert": ["lm_head"]}, _always("block"), _always("block"), "weight_scale_inv"
    ),
    "channels of ModelOpt": Kind(
        {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "exclude_modules": ["lm*"]},
        _always("row"),
        _always("row"),
        form=lambda scale: scale[:, 0],
    ),
    "blocks of ModelOpt": Kind(
        {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO", "exclude_modules": ["lm_head"]},
        _always("block"),
        _always("none"),
        form=lambda scale: scale[:, None, :, None],
    ),
}


def save_foreign(folder: Path, kind: str, **sizes: int) -> Path:
    """A tiny Llama in FP8, with scales of amax / 448, as these writers choose them: no powers of two."""
    row = KINDS[kind]
    save_tiny_llama(folder, **{"hidden_size": 160, "intermediate_size": 288, **sizes})
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        module = name.removesuffix(".weight")
        if row.reach(module) == "kept":
            continue
        values = tensors[name].float()
        scale = (amax_of(values, row.reach(module)) / 448).to(row.dtype)
        spread = at_values(scale.float(), row.reach(module), values.shape)
        tensors[name] = (values / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[f"{module}.{row.scale}"] = row.form(scale).contiguous()
        if row.input(module) == "static":
            tensors[f"{module}.input_scale"] = torch.tensor([STATIC_SCALE], dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "quantization_config": row.content}))
    return folder


def means(folder: Path, kind: str, kept: str = " ") -> nn.Module:
    """The model in float32 by the layout's definition: codes * scale, and hooks that cast each layer's input.

    kept: the end of the names of layers that stay in high precision, beside those of the kind.
    """
    row = KINDS[kind]
    tensors = load_file(folder / "model.safetensors")
    content = json.loads((folder / "config.json").read_text())
    del content["quantization_config"]
    plain = folder.parent / f"{folder.name}-plain"
    plain.mkdir(exist_ok=True)
    (plain / "config.json").write_text(json.dumps(content))
    values = {}
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if tensor.dtype == torch.float8_e4m3fn:
            scale = tensors[f"{module}.{row.scale}"].double()
            if row.reach(module) != "tensor":
                scale = scale.reshape(amax_of(tensor.float(), row.reach(module)).shape)
            tensor = (tensor.double() * at_values(scale, row.reach(module), tensor.shape)).float()
        if "scale" not in name:
            values[name] = tensor
    save_file(values, plain / "model.safetensors", {"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()
    for name, module in model.named_modules():
        if name.endswith("_proj") and not name.endswith(kept) and row.input(name) not in ("none", "kept"):
            module.register_forward_pre_hook(_casting(row.input(name)))
    return model


def _casting(how: str):
    return lambda _, args: (cast(args[0], how), *args[1:])


def cast(x: torch.Tensor, how: str) -> torch.Tensor:
    """An input with values of e4m3fn times its scale: a power of two, the largest amax allows, or the file's."""
    scale = (
        torch.tensor(STATIC_SCALE)
        if how == "static"
        else _power_of_two(amax_of(x, "columns" if how == "block" else how))
    )
    spread = at_values(scale, "columns" if how == "block" else how, x.shape)
    return (x / spread).clamp(-448, 448).to(torch.float8_e4m3fn).float() * spread


def _power_of_two(amax: torch.Tensor) -> torch.Tensor:
    """The smallest power of two with amax / it <= 448, in float64; 1 for a group of zeros."""
    exponent = torch.ceil(torch.log2(amax.double() / 448))
    exponent = exponent - (amax.double() <= 448 * 2 ** (exponent - 1)).double()
    return torch.where(amax > 0, 2**exponent, torch.ones_like(exponent)).float()


def amax_of(x: torch.Tensor, reach: str) -> torch.Tensor:
    """The largest magnitude of a tensor, of each row, of 128 x 128 values, or of 128 values of a row (columns)."""
    if reach in ("tensor", "static"):
        return x.abs().amax().reshape(1)
    if reach == "row":
        return x.abs().amax(-1, keepdim=True)
    columns = torch.stack([part.abs().amax(-1) for part in x.split(128, -1)], -1)
    return columns if reach == "columns" else torch.stack([part.amax(0) for part in columns.split(128, 0)])


def at_values(scale: torch.Tensor, reach: str, shape: torch.Size) -> torch.Tensor:
    """Each scale at its values."""
    if reach in ("block", "columns"):
        scale = scale.repeat_interleave(128, -1)[..., : shape[-1]]
    if reach == "block":
        scale = scale.repeat_interleave(128, 0)[: shape[0]]
    return scale


def facts_of(folder: Path) -> dict:
    """What a checkpoint says and holds: its quantization_config; name -> dtype and shape, of linear layers."""
    content = json.loads((folder / "config.json").read_text())["quantization_config"]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys()) if "_proj" in name}
        held = {name: [part.get_dtype(), *part.get_shape()] for name, part in slices.items()}
    return {"quantization_config": content, "tensors": held}
