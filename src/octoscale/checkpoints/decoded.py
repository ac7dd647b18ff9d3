"""Codes of FP8 that have no layer of their own are handed to transformers as values: those of experts that it stacks.

    with decoding(None, files, {"model.layers.3.mlp.experts.0.up_proj.weight": stored}) as tensors:
        theirs(model, tensors, ...)

Files of DeepSeek-V3 or Qwen3-MoE hold each expert's weights by themselves; models of transformers 5 have all experts of
a layer in one parameter, which holds no scales. So such a weight is read as codes * scale, float32, rounded once where
the scale is no power of two, and then by transformers to the dtype of the model. The files' scales of it are left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from torch import Tensor

from octoscale.checkpoints.headers import Stored, name_of_scale
from octoscale.kernels.groups import spread
from octoscale.numerics.granularity import TENSOR, along
from octoscale.system.errors import UserError


@dataclass(frozen=True)
class Decoded:
    """What transformers takes for a tensor of a file: `[...]` reads its values."""

    codes: Any
    scales: Any
    stored: Stored

    def get_shape(self) -> list[int]:
        """That of the codes."""
        return list(self.codes.get_shape())

    def get_dtype(self) -> str:
        """In safetensors' words."""
        return "F32"

    def __getitem__(self, all_of_it: Any) -> Tensor:
        return values_of(self.codes[...], self.scales[...], self.stored)[all_of_it]


def values_of(codes: Tensor, scales: Tensor, stored: Stored) -> Tensor:
    """Codes * scale of a matrix [N, K], float32. UserError for NaN, and a scale that is no positive, finite number."""
    wide = scales.float()
    if not bool((wide.isfinite() & (wide > 0)).all()):
        raise UserError(f"{stored.scale} holds what is no positive, finite number: the checkpoint is damaged")
    reach = stored.scheme.weight
    wide = wide.reshape(stored.scheme.scale_shape(*codes.shape))
    values = codes.float() * (wide if reach == TENSOR.name else spread(wide, along(reach, "weight"), codes.shape))
    if values.numel() and not math.isfinite(float(values.abs().amax())):
        raise UserError(f"{stored.name} holds infinity or NaN: the checkpoint is damaged, fetch it again")
    return values


@contextmanager
def decoding(
    tensors: dict[str, Any] | None, files: Sequence[str], decoded: Mapping[str, Stored]
) -> Iterator[dict[str, Any] | None]:
    """The tensors for transformers, by name in the files, with values for these; what was given, if there are none.

    tensors: slices of files that are open; None for all of `files`.
    """
    if not decoded:
        yield tensors
        return
    with ExitStack() as stack:
        found = dict(tensors) if tensors is not None else _slices(stack, files)
        for name, stored in decoded.items():
            found[name] = Decoded(found[name], found[stored.scale], stored)
        for name, stored in decoded.items():
            for scale in (stored.layout.weight_scale, stored.layout.input_scale):
                found.pop(name_of_scale(name, scale), None)
        yield found


def _slices(stack: ExitStack, files: Sequence[str]) -> dict[str, Any]:
    """Name -> slice of the tensors of these files, as long as the stack is open."""
    found: dict[str, Any] = {}
    for path in files:
        file = stack.enter_context(safe_open(path, framework="pt"))
        found |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no dict
    return found
