"""How the ranks of a cluster share a model: the words of --parallel, and the mesh that they mean.

    Parallel.parse("fsdp=4,tp=2,replicate=2")     16 ranks: 2 replicas, each in 4 parts, of which 2 ranks compute each
    join(); make_mesh(parallel)                   the process group of torchrun, and its mesh

torchrun and accelerate say by environment variables who is who; without them there is one process and no mesh.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from octoscale.system.errors import UserError
from octoscale.system.ranks import is_first, num_ranks

T = TypeVar("T")

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
    def parse(cls, text: str | None, size: int) -> "Parallel":
        """The words of --parallel for so many ranks; without words all of them share the parameters. UserError."""
        sizes = {"fsdp": size} if text is None else sizes_of(text)
        parallel = cls(**sizes)
        if parallel.num_ranks != size:
            how = f"torchrun --nproc-per-node {parallel.num_ranks}"
            raise UserError(
                f"--parallel {text} is for {parallel.num_ranks} ranks, and there {_are(size)}: start it with {how}"
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


def tensor_parallel_ranks(text: str | None) -> int:
    """The number of tp in the words of --parallel; 1 without it."""
    return 1 if text is None else sizes_of(text).get("tp", 1)


def join() -> None:
    """Meet the other ranks, if there are any. After a restart, torchrun's store may still hold dead ones' addresses."""
    if num_ranks() == 1 or dist.is_initialized():
        return
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = torch._C._distributed_c10d.PrefixStore(f"attempt {attempt}", store)
    backend = "gloo" if _device() == "cpu" else None
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=TIMEOUT)


def make_mesh(parallel: Parallel) -> DeviceMesh | None:
    """The mesh of `DIMENSIONS`, of ranks that have met; None if there is one process alone."""
    if parallel.num_ranks == 1:
        return None
    return init_device_mesh(_device(), tuple(getattr(parallel, d) for d in DIMENSIONS), mesh_dim_names=DIMENSIONS)


def _device() -> str:
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


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


def of_first(value: T) -> T:
    """What rank 0 says; of one process alone, what it says."""
    if not dist.is_initialized():
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0)
    return said[0]


def by_first(do: Callable[[], T]) -> T:
    """What rank 0 gets when it does something for all; what it refuses is an error of all ranks."""
    done: T | None = None
    refused: Exception | None = None
    if is_first():
        try:
            done = do()
        except (UserError, OSError) as error:
            refused = error
    done, refused = of_first((done, refused))
    if refused is not None:
        raise refused
    return cast(T, done)


def sizes_of(text: str) -> dict[str, int]:
    """Dimension -> number of ranks, of the words of --parallel. UserError."""
    sizes: dict[str, int] = {}
    for word in text.split(","):
        name, _, number = word.strip().partition("=")
        if name not in DIMENSIONS or name in sizes or not number.isdecimal() or int(number) < 1:
            raise UserError(f"--parallel {text}: numbers of ranks, as in fsdp=4,tp=2,replicate=2")
        sizes[name] = int(number)
    return sizes


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
