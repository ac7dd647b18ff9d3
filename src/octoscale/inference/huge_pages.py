"""Weights in huge pages, for decoding: a token reads all of them, and pages of 4 KiB hold the reads up.

    print(gather_huge_pages(model))     # 1.4 GB of weights in huge pages

A file is mapped in pages of 4 KiB, whose translations a CPU has to look up for every 64 reads; from pages of 2 MiB the
same core reads a sixth more in a second. So the weights are copied, one after the other, into one block of memory that
asks the system for huge pages. Parameters stay the same objects and stay tied; the file is let go of. Where they cannot
be had or would not fit, nothing is changed, and the answer says why: a mapped file needs no memory of its own.
"""

import mmap
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

#: Smaller models gain nothing.
LEAST_BYTES = 64 << 20
#: The most of the memory that is available for the copies.
MOST_OF_AVAILABLE = 0.5

_HUGE = 2 << 20
_LINE = 64
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def gather_huge_pages(model: nn.Module, least_bytes: int = LEAST_BYTES) -> str:
    """Move the weights of a model on the CPU into huge pages, in place; says how many, or why not."""
    groups = _by_memory(model)
    num_bytes = sum(_room_for(group[0]) for group in groups)
    reason = _why_not(num_bytes, least_bytes)
    if reason is not None:
        return f"weights left in pages of 4 KiB: {reason}"
    before, block = _huge_bytes(), allocate(num_bytes)
    for group in groups:
        size = group[0].numel() * group[0].element_size()
        copy = block[:size].view(group[0].dtype).view(group[0].shape).copy_(group[0].detach())
        for parameter in group:
            parameter.data = copy
        block = block[_room_for(group[0]) :]
    got = _huge_bytes() - before
    said = f"{num_bytes / 1e9:.1f} GB of weights in huge pages"
    return said if got > 0.9 * num_bytes else f"{said}, of which the system gave {max(0, got) / 1e9:.1f}"


def allocate(num_bytes: int) -> Tensor:
    """At least so many bytes, in huge pages if the system has them, uint8."""
    room = mmap.mmap(-1, num_bytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _why_none() is None:
        room.madvise(mmap.MADV_HUGEPAGE)
    block = torch.frombuffer(room, dtype=torch.uint8)
    return block[-block.data_ptr() % _HUGE :]


def _by_memory(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a model, those that share their memory together."""
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.is_contiguous() and parameter.numel():
            groups.setdefault(parameter.data_ptr(), []).append(parameter)
    return [group for group in groups.values() if len({(parameter.shape, parameter.dtype) for parameter in group}) == 1]


def _room_for(x: Tensor) -> int:
    return -(-x.numel() * x.element_size() // _LINE) * _LINE


def _why_none() -> str | None:
    if not _SETTING.exists() or not hasattr(mmap, "MADV_HUGEPAGE"):
        return "this system has no others"
    return f"{_SETTING} says never" if "[never]" in _SETTING.read_text() else None


def _why_not(num_bytes: int, least_bytes: int) -> str | None:
    reason = _why_none()
    if reason is not None:
        return reason
    if num_bytes < least_bytes:
        return f"{num_bytes / 1e6:.0f} MB gain nothing"
    available = psutil.virtual_memory().available
    if num_bytes > MOST_OF_AVAILABLE * available:
        return f"{num_bytes / 1e9:.1f} GB are too much for the {available / 1e9:.1f} GB of memory that are available"
    return None


def _huge_bytes() -> int:
    """How many bytes of this process are in huge pages."""
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(row.split()[1]) for row in rows if row.startswith("AnonHugePages:"))
