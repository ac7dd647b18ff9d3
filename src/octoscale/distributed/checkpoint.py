"""Parameters and optimizer on disk, written by so many ranks and read by any other number of them, through torch's DCP.

    save(model, optimizer, folder)              every rank writes its parts
    load_model(model, folder)                   every rank reads its parts, on whatever mesh it has now
    load_optimizer(model, optimizer, folder)

What one process wrote as ordinary files comes in by `take_model` and `take_optimizer`; `whole_state` is the way out.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from octoscale.conversion.convert import forget_casts
from octoscale.distributed.part import Part
from octoscale.distributed.read_parts import cut_of
from octoscale.layers.linear import Fp8Linear
from octoscale.system.errors import UserError
from octoscale.system.ranks import is_first


def save(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write what training goes on from; all ranks call it. OSError on all, if one of them cannot write."""
    state = {"model": _plain(model), "optimizer": _optimizer_state(model, optimizer)}
    with _explained():
        state_dict_saver.save(state, checkpoint_id=folder)


def load_model(model: nn.Module, folder: Path) -> None:
    """Put back the parameters that `save` wrote, in place. OSError if a part is missing, or cannot be read."""
    with _explained():
        state_dict_loader.load({"model": _plain(model)}, checkpoint_id=folder)
    _forget(model)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Put back the optimizer's state that `save` wrote. OSError if a part is missing, or cannot be read."""
    state = {"optimizer": _optimizer_state(model, optimizer)}
    with _explained():
        state_dict_loader.load(state, checkpoint_id=folder)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=_FLAT)


def take_model(model: nn.Module, whole: Mapping[str, Tensor]) -> None:
    """Fill the parameters and buffers, in place, from whole tensors by name; a tied one stands under any of its names.

    UserError for one that is missing.
    """
    names: dict[int, list[str]] = {}
    tensors = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    for of_one in names.values():
        found = next((name for name in of_one if name in whole), None)
        if found is None:
            raise UserError(f"the checkpoint lacks {of_one[0]}")
        place = _without_part(tensors[of_one[0]].detach())
        _here(place).copy_(_here(_like(whole[found], place)))
    _forget(model)


def take_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any], parameters: Sequence[nn.Parameter]
) -> None:
    """Fill an optimizer from the state dict of one process, whose parameters stood in this order.

    Groups stay as they are: with tensor parallel there are more of them. Their learning rate is the one of the state.
    """
    number = {id(parameter): place for place, parameter in enumerate(parameters)}
    here = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = [state["state"].get(number[id(parameter)]) for parameter in here]
    of_each = {
        place: {key: _like(value, here[place]) for key, value in values.items()}
        for place, values in enumerate(saved)
        if values is not None
    }
    rate = {"lr": state["param_groups"][0]["lr"]}
    groups = [{**group, **rate} for group in optimizer.state_dict()["param_groups"]]
    optimizer.load_state_dict({"state": of_each, "param_groups": groups})


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers under the model's own names, whole, on the CPU; all ranks call it.

    Those that are tied are one tensor, as in the model. The first rank alone keeps them: the others return nothing, and
    never have more than one at a time.
    """
    tensors = model.state_dict(keep_vars=True)
    whole: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in whole:
            plain = _without_part(tensor.detach())
            whole[id(tensor)] = (plain.full_tensor() if isinstance(plain, DTensor) else plain).cpu()
            if not is_first():
                whole[id(tensor)] = torch.empty(0)
    return {name: whole[id(tensor)] for name, tensor in tensors.items()} if is_first() else {}


@contextmanager
def _explained() -> Iterator[None]:
    """DCP's own exception, which no handler of exceptions catches, as the first one that it is about."""
    try:
        yield
    except CheckpointException as error:
        rank, (why, _) = min(error.failures.items())
        first = (str(why).strip().splitlines() or [type(why).__name__])[0]
        raise OSError(f"rank {rank}: {first}") from error


_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return dict(get_optimizer_state_dict(model, optimizer, options=_FLAT))


def _plain(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, in which a part of a weight is an ordinary tensor, in the same memory."""
    return {name: _without_part(tensor.detach()) for name, tensor in model.state_dict().items()}


def _without_part(tensor: Any) -> Any:
    """A tensor whose part here is an ordinary one, in the same memory.

    One without values gets the shape back that torch needs to put it together with others': FSDP2 has changed it.
    """
    here = tensor._local_tensor if isinstance(tensor, DTensor) else None
    if here is None or not (isinstance(here, Part) or 0 in here.shape):
        return tensor
    rows = here.rows if isinstance(here, Part) else here
    return DTensor.from_local(
        rows.reshape(cut_of(tensor).shape) if 0 in rows.shape else rows,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def _like(whole: Any, place: Tensor) -> Any:
    """A whole tensor, cut up as `place` is if it has its shape."""
    if not isinstance(place, DTensor) or not isinstance(whole, Tensor) or whole.shape != place.shape:
        return whole
    return distribute_tensor(whole.to(place.device), place.device_mesh, place.placements, src_data_rank=None)


def _here(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _forget(model: nn.Module) -> None:
    """Weights were written to behind autograd's back."""
    if any(isinstance(module, Fp8Linear) for module in model.modules()):
        forget_casts(model)
