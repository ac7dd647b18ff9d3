"""What the ranks of a training do before it begins: meet, check that they are of one mind, share the model.

mesh = meet(settings)                         None for one process alone
loaded = read_in_parts(settings, ..., mesh)   a checkpoint, of which each rank reads what it will hold; or, of whatever
share(model, mesh, settings)                  every rank has whole: check that all have the same, and put it on the mesh
put(model, mesh, "replica")                   tensor parallel, then FSDP2
"""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from octoscale.conversion.convert import convert, forget_casts, preview
from octoscale.distributed.groups import share_scales
from octoscale.distributed.mesh import Parallel, agree, join, make_mesh, together
from octoscale.distributed.read_parts import cuts_of, fill, take_out
from octoscale.distributed.shard import shard
from octoscale.distributed.tensor_parallel import split_layers
from octoscale.layers.linear import Fp8Linear
from octoscale.models import loading
from octoscale.models.fingerprint import fingerprint
from octoscale.models.loading import LoadedModel
from octoscale.models.meeting import files_of
from octoscale.numerics.recipe import Recipe
from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks
from octoscale.training.first_batch import check_first_batch
from octoscale.training.settings import Training


def meet(settings: Training) -> DeviceMesh | None:
    """The mesh of --parallel. UserError on every rank for words that do not fit, or ranks that say different ones."""
    join()
    if num_ranks() > 1:
        versions = {f"version of {name}": version(name) for name in ("octoscale", "transformers")}
        words = {name: str(value) for name, value in asdict(settings).items()}
        agree({**words, **versions, "version of torch": str(torch.__version__)})
    parallel = Parallel.parse(settings.parallel, num_ranks())  # all ranks say the same: what one refuses, all refuse
    if settings.accumulate % parallel.num_batches:
        raise UserError(
            f"--accumulate {settings.accumulate}: the micro-batches of a step are shared by {parallel.num_batches} "
            f"replicas, which does not divide it: --accumulate {parallel.num_batches}, or a multiple"
        )
    return make_mesh(parallel)


def can_read_in_parts(settings: Training, mesh: DeviceMesh | None) -> bool:
    """Whether each rank can read its part alone. A classifier begins with a head that all of them draw alike, whole."""
    return mesh is not None and settings.task is None and loading.is_read_in_parts(settings.model)


def read_in_parts(settings: Training, scaling: Recipe | str, mesh: DeviceMesh) -> LoadedModel:
    """The model in float32, in FP8 if the scaling says so, and on the mesh: no rank ever holds more than its part.

    UserError on every rank if they see other files. ModelError as `loading.load`.
    """
    agree(together(lambda: files_of(settings.model)))
    with torch.random.fork_rng(devices=[]):
        skeleton = loading.skeleton(settings.model)
        loading.check_causal(skeleton, settings.model)
        _place(skeleton, settings, scaling, mesh)
    cuts = cuts_of(skeleton)
    loaded = loading.load(settings.model, torch.float32, seed=settings.seed, cuts=cuts)
    values = take_out(loaded.model, cuts)
    _place(loaded.model, settings, scaling, mesh)
    fill(loaded.model, values)
    return loaded


def _place(model: nn.Module, settings: Training, scaling: Recipe | str, mesh: DeviceMesh) -> None:
    if isinstance(scaling, Recipe):
        preview(model, scaling)
        convert(model, scaling)
    put(model, mesh, settings.amax_group)


def check_shared_first_batch(settings: Training, model: Any, batch: Mapping[str, Tensor]) -> None:
    """As `check_first_batch`, on all ranks together; the model then knows nothing of it."""
    check_first_batch(settings.model, model, batch, settings.dtype)
    model.reshard()
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    for layer in layers:
        layer.fp8.runtime.load_histories({}, {}, layer.weight.device)
    if layers:
        forget_casts(model)


def share(model: nn.Module, mesh: DeviceMesh, settings: Training) -> None:
    """Put the model on the mesh, in place. UserError on every rank if they have read different ones."""
    agree({"model (a fingerprint)": fingerprint(model)})
    put(model, mesh, settings.amax_group)


def put(model: nn.Module, mesh: DeviceMesh, amax_group: str = "replica") -> None:
    """The layers in parts, and the parameters, over the ranks of a mesh of `DIMENSIONS`.

    amax_group: who shares the scale of an input or a gradient, one of AMAX_GROUPS.
    """
    if mesh["tp"].size() > 1:
        split_layers(model, mesh["tp"])
    if mesh["replicate"].size() > 1:
        shard(model, mesh["replicate", "fsdp"])
    else:
        shard(model, mesh["fsdp"])
    _add_gradients(model)
    if amax_group == "world" and any(isinstance(module, Fp8Linear) for module in model.modules()):
        for name in ("replicate", "fsdp"):
            if mesh[name].size() > 1:
                share_scales(model, mesh.get_group(name))


def _add_gradients(model: nn.Module) -> None:
    """Have FSDP2 add the replicas' gradients where it would take their mean: each is of a part of the loss."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # else a factor asks for an operation that gloo lacks


def num_batches(mesh: DeviceMesh | None) -> int:
    """How many replicas take their share of a step's micro-batches."""
    return 1 if mesh is None else mesh["replicate"].size() * mesh["fsdp"].size()
