"""FSDP2 whose all-gather moves FP8 codes: each rank casts its part of a weight with the scale of the whole weight.

    convert(model, Recipe.amax())
    shard(model, mesh)            fully_shard for each decoder layer, then for the model
    model(...)                    as before

The scale of a weight comes from the amax of all its parts: before a forward pass, each rank looks at those of its parts
that changed, and one all-reduce tells all ranks the largest amax of each weight. So the codes that come together are
those of a weight that was cast in one piece, bit for bit; of a value one byte moves, where FSDP2 alone moves 4 or 2.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from octoscale.conversion.stacks import decoder_stacks
from octoscale.distributed.groups import Largest
from octoscale.distributed.part import Part, PartState
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.state import nonfinite_error
from octoscale.numerics.scaling import plain


def shard(model: nn.Module, mesh: DeviceMesh, **options: Any) -> None:
    """Shard a model over the ranks of `mesh`, in place; its parameters become other objects.

    mesh: of one dimension, or of two, of which the first holds replicas. options: fully_shard's. A model without FP8
    layers is sharded as FSDP2 does it. Make optimizers afterwards, as with FSDP2 alone.
    """
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    for layer in layers:
        layer.fp8.recipe.check_whole("a model on many ranks")
    _to_parts(layers)
    for stack in decoder_stacks(model) or []:
        for block in model.get_submodule(stack).children():
            fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    if not layers:
        return
    groups = [mesh.get_group(mesh.ndim - 1), *_tp_groups(layers)]
    scales = _Scales(layers, Largest(groups))
    model.register_forward_pre_hook(scales.choose, prepend=True)  # before FSDP2's own, which gathers


def _to_parts(layers: Sequence[Fp8Linear]) -> None:
    """Have FSDP2 find our hooks in the weights; those that are tied stay so."""
    made: dict[int, nn.Parameter] = {}
    for layer in layers:
        weight = layer.weight
        if id(weight) not in made:
            part = _with_part(weight.detach(), PartState(layer.fp8))
            made[id(weight)] = nn.Parameter(part, requires_grad=weight.requires_grad)
        layer.weight = made[id(weight)]


def _with_part(weight: Tensor, state: PartState) -> Tensor:
    """The weight as a part that FSDP2 will cut up; or what tensor parallel has left of it on this rank."""
    if not isinstance(weight, DTensor):
        return Part(weight, state)
    here = Part(weight.to_local(), state)
    mesh, placements = weight.device_mesh, weight.placements
    return DTensor.from_local(here, mesh, placements, run_check=False, shape=weight.shape, stride=weight.stride())


def _tp_groups(layers: Sequence[Fp8Linear]) -> list[dist.ProcessGroup]:
    """The groups over which tensor parallel has cut the weights up before."""
    amax = layers[0].fp8.ranks.amax.get("weight")
    return list(amax.groups) if isinstance(amax, Largest) else []


class _Scales:
    """The scales of all weights, chosen together before each forward pass."""

    def __init__(self, layers: Sequence[Fp8Linear], largest: Largest) -> None:
        self._layers, self._largest = layers, largest
        self._parameters = [layer.weight for layer in layers]

    def choose(self, model: nn.Module, _: Any) -> None:
        """Look at what changed, ask the other ranks, cast."""
        inference = not (model.training or torch.is_grad_enabled())
        parts = [self._part_of(i) for i in range(len(self._layers))]
        left_out = [part.state.layer.is_left_out(inference) for _, part in parts]
        for (parameter, part), out in zip(parts, left_out, strict=True):
            part.state.look(parameter, part, left_out=out)
        device = parts[0][1].rows.device
        amaxes = [torch.as_tensor(part.state.amax, dtype=torch.float32, device=device) for _, part in parts]
        together = self._largest.of(torch.stack(amaxes))
        largest = [plain(amax) for amax in together.unbind()]
        for (parameter, part), amax, out in zip(parts, largest, left_out, strict=True):
            part.state.settle(parameter, part, amax, left_out=out)
            if inference and amax == float("inf"):
                raise nonfinite_error(part.state.layer.name.module, "weight")

    def _part_of(self, number: int) -> tuple[Tensor, Part]:
        """The sharded weight of a layer, in which a gathered one may stand now."""
        weight = self._layers[number].weight
        if isinstance(weight, DTensor) and isinstance(weight._local_tensor, Part):
            self._parameters[number] = weight
        parameter: Any = self._parameters[number]
        return parameter, parameter._local_tensor  # to_local() would give another object each time
