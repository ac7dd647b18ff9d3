"""What a decoder layer runs through besides its modules: functions of libraries, modes of torch, the cache.

The fused step goes around all of it. So each function must be the one that its library wrote, whatever a wrapper calls
itself; no mode may want to see or change torch's calls; and a cache must be transformers' own dynamic one.
"""

import sys
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.utils._device import DeviceContext
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from octoscale.layers.stored import StoredLinear

_FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (functional, "scaled_dot_product_attention"),
    (functional, "linear"),
    (functional, "silu"),
    (nn.Module, "__call__"),
    (Cache, "update"),
    (DynamicLayer, "update"),
    (StoredLinear, "forward"),
    (StoredLinear, "_forward"),
)
#: The same, in the file of transformers that the layer's class comes from.
_OF_THE_FAMILY = ("apply_rotary_pos_emb", "rotate_half", "create_causal_mask")


def usual_functions(cls: type[nn.Module]) -> list[object]:
    """The functions that a layer of this class calls, as they are now."""
    family = sys.modules[cls.__module__]
    functions = [getattr(owner, name) for owner, name in _FUNCTIONS]
    functions += [getattr(family, name, None) for name in _OF_THE_FAMILY]
    return [*functions, ALL_MASK_ATTENTION_FUNCTIONS.get("sdpa")]


def why_unusual(cls: type[nn.Module]) -> str | None:
    """Which of these functions was replaced, in the user's words; None if none was."""
    names = [f"{owner.__name__}.{name}" for owner, name in _FUNCTIONS] + [*_OF_THE_FAMILY, "the mask for sdpa"]
    for name, function in zip(names, usual_functions(cls), strict=True):
        if not is_of_a_library(function):
            return f"{name} was replaced"
    return None


def is_of_a_library(function: object) -> bool:
    """Whether torch, transformers or octoscale wrote a function, and all that it wraps: a wrapper may copy a name."""
    while isinstance(function, FunctionType):
        if not Path(function.__code__.co_filename).is_relative_to(_home(function.__module__)):
            return False
        inner = getattr(function, "__wrapped__", None)
        if inner is None:
            return True
        function = inner
    return isinstance(function, BuiltinFunctionType) and str(function.__module__).startswith("torch")


def is_intercepted() -> bool:
    """Whether a mode of torch would see or change the calls of the usual path: autocast, tracing, vmap, ..."""
    if torch.is_autocast_enabled("cpu") or torch._C._len_torch_dispatch_stack():
        return True
    if torch._C._get_tracing_state() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if not torch._C._len_torch_function_stack():
        return False
    return not all(map(_only_says_cpu, function_modes()))  # type: ignore[no-untyped-call]


def is_usual_cache(past: Any) -> bool:
    """Whether a cache keeps keys and values as transformers' own one does, and does nothing else with them."""
    return type(past) is DynamicCache and "update" not in vars(past) and not past.offloading


def _only_says_cpu(mode: object) -> bool:
    """Whether this mode is what torch.set_default_device("cpu") leaves behind."""
    return type(mode) is DeviceContext and mode.device.type == "cpu"


def _home(module: str) -> Path:
    """The folder of the library that a module says it is from."""
    package = module.partition(".")[0]
    known = package in ("torch", "transformers", "octoscale")
    return Path(str(sys.modules[package].__file__)).parent if known else Path("/nowhere")
