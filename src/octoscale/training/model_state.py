"""A model's tensors in a checkpoint to go on from, under the model's own names: each is found again, or it is an error.

save_pretrained changes names for other readers (experts of Mixtral, the head of GPT-NeoX), and Trainer, which reads
them back, passes over what it does not find. Tensors that share memory are written once (safetensors' `save_model`).
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from octoscale.system.errors import UserError

#: In a checkpoint of somebody's Trainer: the tensors that it holds under other names, by the model's own.
RENAMED = "octoscale_renamed.safetensors"


def save_state(model: nn.Module, folder: Path) -> None:
    """Write the state dict, and the config beside it, so that transformers knows the folder for a model."""
    config, generation = getattr(model, "config", None), getattr(model, "generation_config", None)
    if config is not None:
        config.save_pretrained(folder)
    if generation is not None:
        (folder / "generation_config.json").write_text(generation.to_json_string(), encoding="utf-8")
    save_model(model, str(folder / SAFE_WEIGHTS_NAME), metadata={"format": "pt"})


def load_state(model: nn.Module, folder: Path) -> None:
    """Read back what `save_state` wrote. ValueError that lists tensors which are missing, or which nothing takes."""
    path = folder / SAFE_WEIGHTS_NAME
    if not path.is_file():
        raise UserError(f"{folder} holds no {SAFE_WEIGHTS_NAME}: octoscale train did not write it")
    missing, unexpected = load_model(model, path, strict=False)
    if missing or unexpected:
        raise UserError(_explain(folder, model, sorted(missing), sorted(unexpected)))


def own_memory(model: nn.Module) -> None:
    """Give parameters that are parts of one larger tensor memory of their own, values unchanged.

    transformers splits a fused tensor of a file into views (q, k, v of GTE and Nomic's BERT), which no file can hold
    one by one. Parameters that share all of their memory stay one.
    """
    for parameter in model.parameters():
        if parameter.untyped_storage().nbytes() > parameter.numel() * parameter.element_size():
            parameter.data = parameter.data.clone()


def save_renamed(model: nn.Module, folder: Path) -> None:
    """Beside a checkpoint that save_pretrained wrote: the tensors that it holds under other names, if there are any."""
    state = model.state_dict()
    lost = _lost(state, folder)
    if lost:
        save_file({name: state[name].contiguous() for name in lost}, folder / RENAMED)


def load_renamed(model: nn.Module, folder: Path) -> None:
    """Put back what `save_renamed` wrote. ValueError if the checkpoint lacks a tensor: it has its old value."""
    state = model.state_dict()
    kept = load_file(folder / RENAMED) if (folder / RENAMED).is_file() else {}
    lost = [name for name in _lost(state, folder) if name not in kept]
    if lost:
        raise UserError(_explain(folder, model, lost, []))
    model.load_state_dict(kept, strict=False)


def _lost(state: dict[str, Any], folder: Path) -> list[str]:
    """The tensors that a checkpoint has not under their names, nor under that of another with the same memory.

    None of a model that is on many ranks: many_ranks.py looks for all of its own.
    """
    if any(isinstance(tensor, DTensor) for tensor in state.values()):
        return []
    if (folder / SAFE_WEIGHTS_INDEX_NAME).is_file() or not (folder / SAFE_WEIGHTS_NAME).is_file():
        return []
    with safe_open(folder / SAFE_WEIGHTS_NAME, framework="pt") as file:
        held = set(file.keys())
    places = {_place(state[name]) for name in held & set(state)}
    first_of = {_place(tensor): name for name, tensor in reversed(state.items()) if _place(tensor) not in places}
    return [name for name in state if first_of.get(_place(state[name])) == name]


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Where a tensor's values lie: equal for two names of one tensor."""
    return (tensor.device, tensor.data_ptr() or id(tensor), tensor.shape, tensor.stride(), tensor.dtype)


def _explain(folder: Path, model: nn.Module, missing: list[str], unexpected: list[str]) -> str:
    parts = [f"it lacks {', '.join(missing)}"] if missing else []
    parts += [f"it holds {', '.join(unexpected)}, which the model has not"] if unexpected else []
    return f"{folder} is no checkpoint of this {type(model).__name__}: {'; '.join(parts)}"
