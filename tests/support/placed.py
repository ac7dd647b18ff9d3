"""A training's model, of which each rank reads its part: what the ranks run, and what tests compare."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from many import batches, prepared
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import octoscale
from octoscale.checkpoints import part_reader
from octoscale.distributed.checkpoint import _without_part
from octoscale.distributed.mesh import DIMENSIONS
from octoscale.distributed.read_parts import cuts_of
from octoscale.layers.linear import Fp8Linear
from octoscale.system.errors import UserError
from octoscale.training.settings import Training
from octoscale.training.share import check_shared_first_batch, put, read_in_parts


def placed(spec, sizes, scaling="amax"):
    """The model on a mesh of `DIMENSIONS` of these sizes."""
    dtype = {"dtype": "fp32"} if scaling == "fp32" else {}
    settings = Training(model=str(spec), scaling=scaling, **dtype)
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=DIMENSIONS)
    return settings, read_in_parts(settings, octoscale.parse_scaling(scaling), mesh).model


def read(spec, sizes, scaling="amax"):
    """Bytes that the reader gave out, and those of the parameters; all values, put together, by each of their names."""
    seen, read = [], part_reader.read

    def count(stored, cut):
        part = read(stored, cut)
        seen.append(part.nbytes)
        return part

    part_reader.read = count
    try:
        _, model = placed(spec, sizes, scaling)
    finally:
        part_reader.read = read
    tensors = dict(model.named_parameters(remove_duplicate=False))
    plain = {name: _without_part(tensor.detach()) for name, tensor in tensors.items()}
    return {
        "read": sum(seen),
        "held": sum(_local(tensor).nbytes for tensor in {id(p): p for p in tensors.values()}.values()),
        "values": {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in plain.items()},
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
        "tied": sorted(name for name, p in tensors.items() if sum(p is other for other in tensors.values()) > 1),
    }


def _local(tensor):
    here = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
    return getattr(here, "rows", here)


def losses(spec, sizes, scaling, checks):
    """Of two passes in training, and the histories before and after. checks: how often the first batch is looked at."""
    settings, model = placed(spec, sizes, scaling)
    ids = batches(1, 1)[0, 0]
    for _ in range(checks):
        check_shared_first_batch(settings, model, {"input_ids": ids, "labels": ids})
    layers = [layer for layer in model.modules() if isinstance(layer, Fp8Linear)]
    known = [layer.fp8.runtime.save_histories() for layer in layers]
    model.train()
    found = []
    for _ in range(2):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        found.append(loss.item())
    return known, found, [layer.fp8.runtime.save_histories() for layer in layers]


def cut_otherwise(name, sizes):
    """The parameters of which torch leaves on this rank other values than `cuts_of` says."""
    model = prepared(name, "amax")
    whole = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    put(model, init_device_mesh("cpu", sizes, mesh_dim_names=DIMENSIONS))
    cuts = cuts_of(model)
    assert cuts.keys() >= whole.keys()
    here = {key: _local(parameter) for key, parameter in model.named_parameters()}
    said = {key: cuts[key].of(values) for key, values in whole.items()}
    return [key for key, part in said.items() if not _are_same(part, here[key])]


def _are_same(part, other):
    """Of what is empty FSDP2 changes the shape."""
    return part.numel() == other.numel() and torch.equal(part.reshape(other.shape), other)


def refused(specs, sizes):
    """What is said where each rank is told of a folder of its own."""
    before = Path.cwd()
    os.chdir(specs[dist.get_rank()])
    try:
        placed("model", sizes)
    except UserError as error:
        return str(error)
    finally:
        os.chdir(before)
    return None


def whole(spec):
    """The same, read by one process: bytes of its tensors in float32, and its values."""
    model = octoscale.load(str(spec), torch.float32).model
    return {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}, dict(model.named_buffers())
