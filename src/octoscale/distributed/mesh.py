"""How the ranks of a cluster share a model: the words of --parallel, and the mesh that they mean.

    Parallel.parse("fsdp=4,tp=2,replicate=2")     16 ranks: 2 replicas, each in 4 parts, of which 2 ranks compute each
    join(parallel)                                the process group of torchrun, and its mesh

torchrun, accelerate and SLURM say by environment variables who is who; without them there is one process and no mesh.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from octoscale.system.errors import UserError

#: The dimensions of a mesh, the slowest first: neighbours are on one machine, where tensor parallel needs them.
DIMENSIONS = ("replicate", "fsdp", "tp")

#: Whoever waits so long for another rank says so, and ends.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Over how many ranks: replicas of the model; parts of its parameters; parts of each product."""

    replicate: int = 1
    fsdp: int = 1
    tp: int = 1

    @classmethod
    def parse(cls, text: str | None, num_ranks: int) -> "Parallel":
        """The words of --parallel for so many ranks; without words all of them share the parameters. UserError."""
        sizes = {"fsdp": num_ranks} if text is None else _sizes(text)
        parallel = cls(**sizes)
        if parallel.num_ranks != num_ranks:
            how = f"torchrun --nproc-per-node {parallel.num_ranks}"
            raise UserError(
                f"--parallel {text} is for {parallel.num_ranks} ranks, and there {_are(num_ranks)}: start it with {how}"
            )
        return parallel

    @property
    def num_ranks(self) -> int:
        """All of them."""
        return self.replicate * self.fsdp * self.tp

    @property
    def num_batches(self) -> int:
        """How many ranks, or groups of them, read batches of their own."""
        return self.replicate * self.fsdp


def join(parallel: Parallel) -> DeviceMesh | None:
    """Meet the other ranks; the mesh of `DIMENSIONS`, or None if there is one process alone."""
    if parallel.num_ranks == 1:
        return None
    device = "cpu" if not torch.accelerator.is_available() else str(torch.accelerator.current_accelerator())
    if not dist.is_initialized():
        _meet("gloo" if device == "cpu" else None)
    return init_device_mesh(device, tuple(getattr(parallel, d) for d in DIMENSIONS), mesh_dim_names=DIMENSIONS)


def _meet(backend: str | None) -> None:
    """Make the process group. After a restart, the store of torchrun may still hold the addresses of dead ranks."""
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    fresh = torch._C._distributed_c10d.PrefixStore(
        f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store
    )
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=TIMEOUT)


def agree(what: Mapping[str, Any]) -> None:
    """UserError on every rank if the ranks do not say the same, with who says what."""
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, dict(what))
    for name in what:
        values = [of_rank.get(name) for of_rank in said]
        if any(value != values[0] for value in values):
            other = next(rank for rank, value in enumerate(values) if value != values[0])
            raise UserError(f"rank {other} has another {name} than rank 0: {values[other]}, not {values[0]}")


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line what a process group says where another rank has ended."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise UserError(
            f"rank {dist.get_rank()} lost another rank, which ended, or did not answer; what that one says tells why"
        ) from error


def of_first(value: Any) -> Any:
    """What rank 0 says; of one process alone, what it says."""
    if not dist.is_initialized():
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def _sizes(text: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for word in text.split(","):
        name, _, number = word.strip().partition("=")
        if name not in DIMENSIONS or name in sizes or not number.isdecimal() or int(number) < 1:
            raise UserError(f"--parallel {text}: numbers of ranks, as in fsdp=4,tp=2,replicate=2")
        sizes[name] = int(number)
    return sizes


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
