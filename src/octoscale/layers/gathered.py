"""A weight that arrives as FP8 codes: every rank cast its own part, and the codes were gathered.

    weight = Gathered(codes, scale_bias, format, torch.float32)
    weight.cast          what an Fp8Linear multiplies: it does not cast anew
    weight + 0           for all others, the values that the codes stand for, in the dtype of the weight

It stands in a layer as its parameter, so that autograd and FSDP find one there; its gradient is an ordinary tensor.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from octoscale.kernels.ops import Quantized
from octoscale.numerics.formats import Format

_aten = torch.ops.aten

#: What makes the same weight of a weight, where the shape stays: FSDP and nn.Parameter ask for these.
_SAME = (_aten.detach.default, _aten.alias.default, _aten.view.default, _aten.as_strided.default)


class Gathered(Tensor):
    """codes: FP8 in a weight's shape. scale_bias: int32, no dimensions. dtype: float32, bfloat16 or float16."""

    cast: Quantized

    def __new__(cls, codes: Tensor, scale_bias: Tensor, format: Format, dtype: torch.dtype) -> "Gathered":  # noqa: PYI034
        """The weight of these codes."""
        self: Gathered = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,unused-ignore]
            cls, codes.shape, strides=codes.stride(), dtype=dtype, device=codes.device
        )
        self.cast = Quantized(codes=codes, scale_bias=scale_bias, format=format)
        return self

    def rescale(self, scale_bias: Tensor) -> None:
        """New codes were gathered into the same memory: this is their scale."""
        self.cast = Quantized(codes=self.cast.codes, scale_bias=scale_bias, format=self.cast.format)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Which codes."""
        return f"Gathered({self.cast.codes.dtype} {list(self.shape)}, scale_bias={self.cast.scale_bias.tolist()})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """The same weight, or what the operation makes of its values."""
        if func in _SAME and _keeps_shape(func, args):
            first = args[0]
            return cls(first.cast.codes, first.cast.scale_bias, first.cast.format, first.dtype)
        if func in (_aten.zeros_like.default, _aten.empty_like.default, _aten.ones_like.default):
            codes = args[0].cast.codes
            words = {"dtype": args[0].dtype, **(kwargs or {})}
            return func(torch.empty_like(codes, dtype=args[0].dtype), **words)
        args, kwargs = pytree.tree_map_only(cls, _values, (list(args), dict(kwargs or {})))
        return func(*args, **kwargs)


def _values(weight: Gathered) -> Tensor:
    return weight.cast.dequantize(torch.float32).to(weight.dtype)


def _keeps_shape(func: Callable[..., Any], args: Sequence[Any]) -> bool:
    if func is _aten.as_strided.default:
        offset = args[3] if len(args) > 3 else 0
        return tuple(args[1]) == tuple(args[0].shape) and tuple(args[2]) == args[0].stride() and not offset
    return func is not _aten.view.default or tuple(args[1]) == tuple(args[0].shape)
