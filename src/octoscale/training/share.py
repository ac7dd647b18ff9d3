"""What the ranks of a training do before it begins: meet, check that they are of one mind, share the model.

mesh = meet(settings)              None for one process alone
share(model, mesh, settings)       check that all have the same model, and put it on the mesh
put(model, mesh)                   tensor parallel, then FSDP2
"""

from dataclasses import asdict
from importlib.metadata import version

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from octoscale.distributed.groups import share_scales
from octoscale.distributed.mesh import Parallel, agree, join, make_mesh
from octoscale.distributed.shard import shard
from octoscale.distributed.tensor_parallel import split_layers
from octoscale.models.fingerprint import fingerprint
from octoscale.numerics.formats import PRECISIONS
from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks
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
    if parallel.tp > 1 and settings.scaling in PRECISIONS:
        raise UserError(f"tp={parallel.tp} splits FP8 layers, and {settings.scaling} has none: --parallel fsdp=N")
    return make_mesh(parallel)


def share(model: nn.Module, mesh: DeviceMesh, settings: Training) -> None:
    """Put the model on the mesh, in place. UserError on every rank if they have read different ones."""
    agree({"model (a fingerprint)": fingerprint(model)})
    put(model, mesh)
    if settings.amax_group == "world" and settings.scaling not in PRECISIONS:
        for name in ("replicate", "fsdp"):
            share_scales(model, mesh.get_group(name))


def put(model: nn.Module, mesh: DeviceMesh) -> None:
    """The layers in parts, and the parameters, over the ranks of a mesh of `DIMENSIONS`."""
    if mesh["tp"].size() > 1:
        split_layers(model, mesh["tp"])
    if mesh["replicate"].size() > 1:
        shard(model, mesh["replicate", "fsdp"])
    else:
        shard(model, mesh["fsdp"])
    _add_gradients(model)


def _add_gradients(model: nn.Module) -> None:
    """Have FSDP2 add the replicas' gradients where it would take their mean: each is of a part of the loss."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # else a factor asks for an operation that gloo lacks


def num_batches(mesh: DeviceMesh | None) -> int:
    """How many replicas take their share of a step's micro-batches."""
    return 1 if mesh is None else mesh["replicate"].size() * mesh["fsdp"].size()
