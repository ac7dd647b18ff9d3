"""A checkpoint of random weights, written in FP8 at once: large models to try machines on, without downloading any.

    materialize("llama2-70b", Path("llama2-70b-8"), num_layers=8)         6.8 GB of layers, 1 GB of embeddings and head

Weights of linear layers are normal with standard deviation 0.02, as models begin, cast by one constant scale; all else
is bfloat16. A tensor is drawn in pieces, so that memory holds the codes of one. Texts are read as bytes.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from octoscale.checkpoints.headers import name_of_scale
from octoscale.checkpoints.quantize import Progress
from octoscale.checkpoints.shards import INDEX
from octoscale.checkpoints.writer import DTYPE_NAMES, Entry, writing
from octoscale.conversion.convert import preview
from octoscale.conversion.ignore import ignored
from octoscale.kernels import ops
from octoscale.layers.layouts import OWN_KEY, get_layout
from octoscale.layers.schemes import STORED_FORMAT, Scheme, all_linears
from octoscale.models.quiet import quietly
from octoscale.models.sizes import SIZES, config_of_size
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Constant
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive
from octoscale.system.manifest import write_manifest
from octoscale.system.settings import check_seed
from octoscale.system.whole_file import write_json
from octoscale.system.whole_folder import (
    BEGUN,
    CHECKPOINT,
    begin,
    check_free,
    end_exchange,
    hidden_beside,
    put_in_place,
    target,
)

#: The largest of 2**28 normal numbers is about 6 standard deviations: 448 / (6 * 0.02) lies above 2**11.
_STD, _SCALE_BIAS = 0.02, 11
_LAYOUT, _PIECE = "compressed-tensors", 1 << 22


@quietly()
def materialize(
    size: str,
    out: Path,
    *,
    num_layers: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the checkpoint to the folder `out`, one file for each decoder layer and one for the rest; say what it is.

    ValueError for an unknown size or more layers than it has; FileExistsError if `out` exists.
    """
    check_seed(seed)
    config = _config(size, num_layers)
    folder = target(out)
    with exclusive(folder):
        end_exchange(folder)
        check_free(folder, overwrite=overwrite)
        hidden = hidden_beside(folder)
        begin(hidden)
        write_json(hidden / BEGUN, {"size": size})
        num_bytes = _write(config, hidden, seed, progress)
        check_free(folder, overwrite=overwrite)  # once more: others than octoscale know nothing of the lock
        (hidden / BEGUN).unlink()
        put_in_place(hidden, folder)
    return {"model": size, "layers": config.num_hidden_layers, "bytes": num_bytes, "folder": str(out)}


def _write(config: Any, folder: Path, seed: int, progress: Progress | None) -> int:
    """Write the checkpoint to a folder; returns the bytes of its tensors."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    report = preview(model, Recipe.cscale(_SCALE_BIAS))
    quantized = {f"{row.module}.weight" for row in report.converted}
    shards = _shards(model, quantized)
    generator = torch.Generator().manual_seed(seed)
    total, done = sum(entry.num_bytes for entries in shards.values() for entry in entries.values()), 0
    for name, entries in shards.items():
        with writing(folder / name, entries) as add:
            for key, tensor in _tensors(entries, generator):
                add(key, tensor)
                done += tensor.numel() * tensor.element_size()
                if progress is not None:
                    progress(done, total)
    tensors = {key: entry.shape for entries in shards.values() for key, entry in entries.items()}
    _write_rest(folder, config, shards, ignored(report, tensors))
    return total


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte: as the byte-level tokenizers of GPT-2 begin."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _config(size: str, num_layers: int | None) -> Any:
    if size not in SIZES:
        raise UserError(f"unknown size {size!r}: one of {', '.join(SIZES)}")
    config = config_of_size(size)
    if num_layers is not None:
        if not 1 <= num_layers <= config.num_hidden_layers:
            raise UserError(f"{num_layers} layers: {size} has 1 to {config.num_hidden_layers}")
        config.num_hidden_layers = num_layers
    return config


def _shards(model: PreTrainedModel, quantized: set[str]) -> dict[str, dict[str, Entry]]:
    """File -> its tensors: what stands in the same decoder layer is in the same file."""
    layout = get_layout(_LAYOUT)
    groups: dict[str, dict[str, Entry]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        entries = groups.setdefault(next((part for part in name.split(".") if part.isdecimal()), "rest"), {})
        if name in quantized:
            entries[name] = Entry(dtype="F8_E4M3", shape=tuple(tensor.shape))
            entries[name_of_scale(name, layout.weight_scale)] = Entry(dtype="F32", shape=layout.scale_shape)
        else:
            entries[name] = Entry(dtype=DTYPE_NAMES[tensor.dtype], shape=tuple(tensor.shape))
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": part for i, part in enumerate(groups.values(), 1)}


def _tensors(entries: dict[str, Entry], generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """Codes, scales; in high precision, matrices are random, vectors are 1 for a norm's weight and 0 for a bias."""
    for name, entry in entries.items():
        if entry.dtype == "F8_E4M3":
            yield name, _filled(entry.shape, torch.float8_e4m3fn, generator, _cast)
        elif entry.dtype == "F32":
            yield name, torch.full(entry.shape, 2.0**-_SCALE_BIAS)
        elif len(entry.shape) > 1:
            yield name, _filled(entry.shape, torch.bfloat16, generator, Tensor.bfloat16)
        else:
            yield name, torch.full(entry.shape, float(name.endswith("weight")), dtype=torch.bfloat16)


def _cast(values: Tensor) -> Tensor:
    return ops.quantize(values, STORED_FORMAT, Constant(_SCALE_BIAS)).codes


def _filled(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, cast: Callable[[Tensor], Tensor]
) -> Tensor:
    """A tensor of normal numbers, drawn and cast piece by piece."""
    out = torch.empty(math.prod(shape), dtype=dtype)
    for first in range(0, out.numel(), _PIECE):
        piece = out[first : first + _PIECE]
        piece.copy_(cast(torch.randn(piece.numel(), generator=generator).mul_(_STD)))
    return out.view(shape)


def _write_rest(folder: Path, config: Any, shards: dict[str, dict[str, Entry]], kept: list[str]) -> None:
    """Config, index and tokenizer."""
    content = {**config.to_dict(), "architectures": [_architecture(config)], "dtype": "bfloat16"}
    content["quantization_config"] = get_layout(_LAYOUT).config(kept, all_linears(Scheme()))
    content[OWN_KEY] = {"scaling": f"cscale:{_SCALE_BIAS}", "activations": "dynamic", "layout": _LAYOUT}
    write_json(folder / "config.json", content)
    size = sum(entry.num_bytes for entries in shards.values() for entry in entries.values())
    names = {name: shard for shard, entries in shards.items() for name in entries}
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": names})
    byte_tokenizer().save_pretrained(folder)
    write_manifest(folder, CHECKPOINT, without=[BEGUN])


def _architecture(config: Any) -> str:
    return {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[config.model_type]
