"""The dispatch table: which backend serves a device, and the reason, in words, that each run prints and records."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch

from octoscale.kernels import portable, scaled_mm
from octoscale.kernels.base import Backend
from octoscale.system.errors import UserError

#: Names a row of the table, to be used whatever is faster.
BACKEND_VARIABLE = "OCTOSCALE_BACKEND"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A backend and why it was chosen: `name` and `reason` stand in the header of every run."""

    name: str
    backend: Backend
    reason: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A backend: why it cannot serve a type of device (None: it can), and how to make it, with its reason.

    slow_on: types of devices that it serves only where $OCTOSCALE_BACKEND names it.
    """

    name: str
    why_not: Callable[[str], str | None]
    make: Callable[[str], tuple[Backend, str]]
    slow_on: tuple[str, ...] = ()


def choose(device_type: str) -> Choice:
    """The backend for tensors on this type of device (`cpu`, `cuda`, ...): the first row of the table that can.

    $OCTOSCALE_BACKEND names a row to be used instead: ValueError if there is none, or if it cannot serve the device.
    """
    if device_type not in _choices:
        _choices[device_type] = _choose(device_type)
    return _choices[device_type]


@contextmanager
def instead(device_type: str, choice: Choice) -> Iterator[None]:
    """Have another backend serve a type of device while the block runs, for all threads."""
    before = choose(device_type)
    _choices[device_type] = choice
    try:
        yield
    finally:
        _choices[device_type] = before


def _choose(device_type: str) -> Choice:
    forced = os.environ.get(BACKEND_VARIABLE)
    if forced is not None and forced not in [row.name for row in TABLE]:
        raise UserError(f"{BACKEND_VARIABLE}={forced}: the backends are {', '.join(row.name for row in TABLE)}")
    reasons: list[str] = [] if forced is None else [f"{BACKEND_VARIABLE}={forced}"]
    for row in TABLE:
        if forced not in (None, row.name) or (forced is None and device_type in row.slow_on):
            continue
        why_not = row.why_not(device_type)
        if why_not is None:
            backend, how = row.make(device_type)
            return Choice(name=row.name, backend=backend, reason="; ".join([*reasons, how]))
        reasons.append(why_not)
    raise UserError(f"no backend serves {device_type}: {'; '.join(reasons)}")


def _why_not_native(device_type: str) -> str | None:
    if device_type != "cpu":
        return f"the C++ core serves the CPU only, not {device_type}"
    if importlib.util.find_spec("octoscale.kernels._core") is None:
        return "the C++ core was not built when octoscale was installed (it needs a C++17 compiler)"
    try:
        from octoscale.kernels import native
    except ImportError as error:
        return f"the C++ core does not load ({error})"
    return native.why_not()


def _make_native(_: str) -> tuple[Backend, str]:
    from octoscale.kernels import native, operators

    return operators.Operators(native.Native(native.chosen())), native.describe()


def _make_portable(device_type: str) -> tuple[Backend, str]:
    backend = cast(Backend, portable)
    if device_type != "cpu":
        return backend, "plain torch, bf16 GEMM"
    capability = torch.backends.cpu.get_cpu_capability()
    gemm = "bf16" if portable.cpu_has_bf16_gemm() else "float32"
    return backend, f"plain torch on {capability}, {gemm} GEMM on decoded codes, {torch.get_num_threads()} threads"


#: The fastest first. Plain torch serves every device, so the last row always can.
TABLE = (
    Row(name="native", why_not=_why_not_native, make=_make_native),
    Row(name=scaled_mm.NAME, why_not=scaled_mm.why_not, make=scaled_mm.make, slow_on=("cpu",)),
    Row(name="portable", why_not=lambda _: None, make=_make_portable),
)

#: What was chosen. A plain dictionary: torch.compile follows it, functools.cache it does not. The CPU's
#: choice is there from the start, for a compiler cannot trace the search.
_choices: dict[str, Choice] = {}
_choices["cpu"] = _choose("cpu")
