"""The dispatch table: which backend serves a device, and the reason, in words, that each run prints and records."""

import importlib.util
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch

from octoscale.backends import portable
from octoscale.backends.base import Backend


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A backend and why it was chosen: `name` and `reason` stand in the header of every run."""

    name: str
    backend: Backend
    reason: str


@cache
def choose(device_type: str) -> Choice:
    """The backend for tensors on this type of device (`cpu`, `cuda`, ...), the first row of the table that can."""
    reason = _why_not_native(device_type)
    return Choice(name="portable", backend=cast(Backend, portable), reason=f"{reason}; {_portable_gemm(device_type)}")


def _why_not_native(device_type: str) -> str:
    if device_type != "cpu":
        return f"the C++ core serves the CPU only, not {device_type}"
    if importlib.util.find_spec("octoscale._native") is None:
        return "the C++ core is not part of this version"
    return "the C++ core has no binding yet"


def _portable_gemm(device_type: str) -> str:
    if device_type != "cpu":
        return "plain torch, bf16 GEMM"
    capability = torch.backends.cpu.get_cpu_capability()
    gemm = "bf16" if portable.cpu_has_bf16_gemm() else "float32"
    return f"plain torch on {capability}, {gemm} GEMM on decoded codes, {torch.get_num_threads()} threads"
