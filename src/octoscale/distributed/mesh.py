"""How the ranks of a cluster share a model: the words of --parallel, and the mesh that they mean.

    Parallel.parse("fsdp=4,tp=2,replicate=2")     16 ranks: 2 replicas, each in 4 parts, of which 2 ranks compute each
    join(); make_mesh(parallel)                   the process group of torchrun, and its mesh

torchrun and accelerate say by environment variables who is who; without them there is one process and no mesh.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from octoscale.distributed.roll_call import RollCall
from octoscale.system.errors import UserError
from octoscale.system.ranks import is_first, num_ranks, rank

T = TypeVar("T")

#: The dimensions of a mesh, the slowest first: neighbours are on one machine, where tensor parallel needs them.
DIMENSIONS = ("replicate", "fsdp", "tp")

#: Of the ranks that this one has met by `join`.
_roll: list[RollCall] = []

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


def join() -> None:
    """Meet the other ranks, if there are any. After a restart, torchrun's store may still hold dead ones' addresses."""
    if num_ranks() == 1 or dist.is_initialized():
        return
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = torch._C._distributed_c10d.PrefixStore(f"attempt {attempt}", store)
    backend = "gloo" if _device() == "cpu" else None
    _wait_for_all_to_come(fresh, rank, size)
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=TIMEOUT)
    _roll.append(RollCall(fresh, rank, size))


def _wait_for_all_to_come(store: Any, rank: int, size: int) -> None:
    """UserError naming the ranks that do not."""
    keys = [f"rank {number} has come" for number in range(size)]
    store.set(keys[rank], "")
    try:
        store.wait(keys, TIMEOUT)
    except dist.DistStoreError as error:
        absent = [number for number, key in enumerate(keys) if not store.check([key])]
        raise UserError(f"rank {rank} waited {TIMEOUT} for {_ranks(absent)}: what that one says tells why") from error


def make_mesh(parallel: Parallel) -> DeviceMesh | None:
    """The mesh of `DIMENSIONS`, of ranks that have met; None if there is one process alone."""
    if parallel.num_ranks == 1:
        return None
    return init_device_mesh(_device(), tuple(getattr(parallel, d) for d in DIMENSIONS), mesh_dim_names=DIMENSIONS)


def sizes_on(mesh: DeviceMesh | None) -> dict[str, int]:
    """Dimension -> number of ranks; nothing of one process alone."""
    return {} if mesh is None else {name: mesh[name].size() for name in DIMENSIONS}


def _device() -> str:
    return str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"


def agree(what: Mapping[str, Any]) -> None:
    """UserError on every rank if the ranks do not say the same, with who says what."""
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, dict(what))
    for name in dict.fromkeys(name for of_rank in said for name in of_rank):
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
        lost, here = _ranks(_roll[-1].missing() if _roll else []), dist.get_rank() if dist.is_initialized() else rank()
        raise UserError(
            f"rank {here} lost {lost}, which ended, or did not answer; what that one says tells why"
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


def together(do: Callable[[], T]) -> T:
    """What each rank does by itself; what one of them refuses is an error of all, which says whose it is.

    `do` sends nothing to other ranks: they may be waiting here. Of one process alone, what it does.
    """
    if not dist.is_initialized():
        return do()
    done: T | None = None
    error: Exception | None = None
    try:
        done = do()
    except Exception as raised:  # noqa: BLE001  whatever it is, the others must not wait for this rank
        error = raised
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, None if error is None else str(error) or type(error).__name__)
    if error is not None:
        raise error
    failed = next((rank for rank, words in enumerate(said) if words is not None), None)
    if failed is not None:
        raise UserError(f"rank {failed}: {said[failed]}")
    return cast(T, done)


def wait_for_all() -> None:
    """Until all ranks are here; one process alone goes on."""
    if dist.is_initialized():
        dist.barrier()


def sizes_of(text: str) -> dict[str, int]:
    """Dimension -> number of ranks, of the words of --parallel. UserError."""
    sizes: dict[str, int] = {}
    for word in text.split(","):
        name, _, number = word.strip().partition("=")
        if name not in DIMENSIONS or name in sizes or not number.isdecimal() or int(number) < 1:
            raise UserError(f"--parallel {text}: numbers of ranks, as in fsdp=4,tp=2,replicate=2")
        sizes[name] = int(number)
    return sizes


def _ranks(numbers: Sequence[int]) -> str:
    """Which they are, if that is known."""
    if not numbers:
        return "another rank"
    return f"rank {numbers[0]}" if len(numbers) == 1 else f"ranks {', '.join(map(str, numbers))}"


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
