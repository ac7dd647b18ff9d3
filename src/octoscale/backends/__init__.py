"""The dispatch table: which backend serves a device, and the reason, in words, that each run prints and records."""

import importlib
import importlib.util
from collections.abc import Callable
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


@dataclass(frozen=True, kw_only=True)
class Row:
    """A backend, the module octoscale.backends.`name`: why it cannot serve a device (None: it can), and how it does."""

    name: str
    why_not: Callable[[str], str | None]
    how: Callable[[str], str]


@cache
def choose(device_type: str) -> Choice:
    """The backend for tensors on this type of device (`cpu`, `cuda`, ...): the first row of the table that can."""
    reasons: list[str] = []
    for row in TABLE:
        why_not = row.why_not(device_type)
        if why_not is None:
            module = importlib.import_module(f"octoscale.backends.{row.name}")
            reason = "; ".join([*reasons, row.how(device_type)])
            return Choice(name=row.name, backend=cast(Backend, module), reason=reason)
        reasons.append(why_not)
    raise RuntimeError(f"no backend serves {device_type}: {'; '.join(reasons)}")


def _why_not_native(device_type: str) -> str | None:
    if device_type != "cpu":
        return f"the C++ core serves the CPU only, not {device_type}"
    built = importlib.util.find_spec("octoscale.backends.native") is not None
    return None if built else "the C++ core is not part of this version"


def _how_portable(device_type: str) -> str:
    if device_type != "cpu":
        return "plain torch, bf16 GEMM"
    capability = torch.backends.cpu.get_cpu_capability()
    gemm = "bf16" if portable.cpu_has_bf16_gemm() else "float32"
    return f"plain torch on {capability}, {gemm} GEMM on decoded codes, {torch.get_num_threads()} threads"


#: The fastest first. Plain torch serves every device, so the last row always can.
TABLE = (
    Row(name="native", why_not=_why_not_native, how=lambda _: "the C++ core"),
    Row(name="portable", why_not=lambda _: None, how=_how_portable),
)
