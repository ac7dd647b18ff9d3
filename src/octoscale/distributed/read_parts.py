"""For training: a rank reads of each parameter only what it will hold of it.

    place(skeleton)                         a model without values (device meta): in FP8, and on the mesh
    cuts = cuts_of(skeleton)                parameter -> what of it is here
    ...                                     a reader fills such a model with those parts (checkpoints/part_reader.py)
    values = take_out(model, cuts)          the parts; the model is whole again, without values
    place(model); fill(model, values)       as the skeleton; now each parameter has its part

So FSDP2 and tensor parallel see whole parameters, which take no memory, and never cut up values.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from octoscale.distributed.cut import Cut, share_of
from octoscale.distributed.part import Part


def cuts_of(model: nn.Module) -> dict[str, Cut]:
    """Name -> what of it is on this rank, of all parameters of a model that `put` has placed (training/share.py).

    A parameter that has several names stands under each of them.
    """
    return {
        name: cut_of(parameter)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if isinstance(parameter, DTensor)
    }


def cut_of(parameter: DTensor) -> Cut:
    """What of it is on this rank. The mesh's last dimension, tensor parallel, has cut first; FSDP2, what that left."""
    start, stop, mesh = [0] * parameter.ndim, list(parameter.shape), parameter.device_mesh
    for number, placement in reversed(list(enumerate(parameter.placements))):
        if not placement.is_replicate():
            dim: int = placement.dim  # type: ignore[attr-defined]
            here = share_of(stop[dim] - start[dim], mesh.get_local_rank(number), mesh.size(number))
            start[dim], stop[dim] = start[dim] + here[0], start[dim] + here[1]
    cut = Cut(whole=tuple(parameter.shape), start=tuple(start), stop=tuple(stop))
    local = tuple(parameter._local_tensor.shape)
    assert cut.shape == local or (0 in cut.shape and 0 in local), (cut, local)  # of [4, 0] FSDP2 makes [0, 0]
    return cut


def leave(model: nn.Module, cuts: Mapping[str, Cut]) -> None:
    """Cut the parameters of a model without values down to these parts, in place."""
    _replace(model, lambda name, whole: _empty(cuts[name].shape, whole) if name in cuts else whole)


def take_out(model: nn.Module, cuts: Mapping[str, Cut]) -> dict[str, Tensor]:
    """The values of all parameters, by their first names, as far as they are this rank's; the model is left without.

    What a reader could only read as a whole is cut down here.
    """
    values = {}
    for name, parameter in model.named_parameters():
        there = parameter.detach()
        values[name] = there if tuple(there.shape) == cuts[name].shape else cuts[name].of(there)
    _replace(model, lambda name, part: _empty(cuts[name].whole, part))
    return values


def fill(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Give the parameters of a placed model their values, as `take_out` has them, which lets go of each."""
    _replace(model, lambda name, place: _filled(place, values.pop(name)))


def _filled(place: Any, values: Tensor) -> nn.Parameter:
    """The same part of a parameter, with values, in memory of their own."""
    meta = place._local_tensor
    here = torch.empty(meta.shape, dtype=place.dtype, device=place.device_mesh.device_type)
    here.copy_(values.reshape(meta.shape))
    part = DTensor.from_local(
        Part(here, meta.state) if isinstance(meta, Part) else here,
        place.device_mesh,
        place.placements,
        run_check=False,
        shape=place.shape,
        stride=place.stride(),
    )
    return nn.Parameter(part, requires_grad=place.requires_grad)


def _empty(shape: tuple[int, ...], like: nn.Parameter) -> nn.Parameter:
    """A parameter without values; what transformers notes there stays."""
    parameter = nn.Parameter(torch.empty(shape, dtype=like.dtype, device="meta"), requires_grad=like.requires_grad)
    parameter.__dict__.update(like.__dict__)
    return parameter


def _replace(model: nn.Module, make: Any) -> None:
    """Put another parameter, made of its first name and itself, in the place of each; those that are tied stay so."""
    made: dict[int, nn.Parameter] = {}
    old = []  # whose ids are not given to others meanwhile
    for name, module, key in _places(model):
        parameter = module._parameters[key]
        if id(parameter) not in made:
            old.append(parameter)
            made[id(parameter)] = make(name, parameter)
        module._parameters[key] = made[id(parameter)]


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Name of each parameter, the module that holds it, and its name there."""
    for prefix, module in model.named_modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is not None:
                yield f"{prefix}.{key}" if prefix else key, module, key
