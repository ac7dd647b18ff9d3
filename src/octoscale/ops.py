"""Quantize, dequantize, multiply: check what the caller passed, then dispatch to the backend of the device.

q = quantize(x, "e4m3fn", Amax())        q.codes, q.scale_bias, q.format, q.observed
q.dequantize(torch.float32)              codes * 2**-scale_bias
matmul(a, b)                             (a.codes @ b.codes) * 2**-(a.scale_bias + b.scale_bias)
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from octoscale import backends
from octoscale.backends.base import Observed
from octoscale.formats import Format, get_format
from octoscale.scaling import History, Rule

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A tensor in FP8: `x ~ codes * 2**-scale_bias`.

    codes: torch's float8 dtype of `format`, the shape of x. scale_bias: int32, no dimensions, on the same device.
    observed: what the cast saw; None where the codes were not cast just now (a view of saved codes).
    """

    codes: Tensor
    scale_bias: Tensor
    format: Format
    observed: Observed | None = None

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values, `codes * 2**-scale_bias`: exact in float32 and bfloat16 unless they leave the dtype's range."""
        _check_dtype(dtype, "dequantize")
        return backends.choose(self.codes.device.type).backend.dequantize(self.codes, self.scale_bias, dtype)

    def t(self) -> "Quantized":
        """The transpose of a matrix, as a view of the same codes."""
        return replace(self, codes=self.codes.t(), observed=None)

    def flatten_rows(self) -> "Quantized":
        """The same values as a matrix: all leading dimensions become rows."""
        rows = math.prod(self.codes.shape[:-1])
        return replace(self, codes=self.codes.reshape(rows, self.codes.shape[-1]), observed=None)


def quantize(
    x: Tensor,
    format: str | Format,
    rule: Rule,
    *,
    history: History | None = None,
    counts: bool = False,
    exponents: bool = False,
) -> Quantized:
    """Cast `x` to FP8 with the scale_bias that `rule` chooses.

    x: float32, bfloat16 or float16 of any shape and strides, empty included. Round to nearest, ties to even; finite
    values beyond the format's largest saturate; infinity and NaN become NaN (reference.py has the golden table).
    `counts` and `exponents` fill those parts of `observed`; `history` serves the rule `Delayed`.
    Raises TypeError for another dtype, ValueError for an unknown format.
    """
    _check_dtype(x.dtype, "quantize")
    fmt = get_format(format) if isinstance(format, str) else format
    backend = backends.choose(x.device.type).backend
    cast = backend.quantize(x.detach(), fmt, rule, history, counts=counts, exponents=exponents)
    return Quantized(codes=cast.codes, scale_bias=cast.scale_bias, format=fmt, observed=cast.observed)


def matmul(a: Quantized, b: Quantized, *, dtype: torch.dtype = torch.float32, bias: Tensor | None = None) -> Tensor:
    """`a @ b + bias` of two matrices, [M, K] and [K, N] -> [M, N]: accumulated in float32, unscaled, rounded once.

    bias: [N] or None, added before the rounding. Raises ValueError for shapes or devices that do not fit, TypeError
    for a dtype other than float32, bfloat16 and float16.
    """
    _check_dtype(dtype, "matmul")
    if a.codes.ndim != 2 or b.codes.ndim != 2 or a.codes.shape[1] != b.codes.shape[0]:
        raise ValueError(f"matmul takes [M, K] and [K, N], not {list(a.codes.shape)} and {list(b.codes.shape)}")
    if bias is not None and bias.shape != b.codes.shape[1:]:
        raise ValueError(f"matmul takes a bias [{b.codes.shape[1]}], not {list(bias.shape)}")
    if a.codes.device != b.codes.device:
        raise ValueError(f"matmul takes two operands on one device, not {a.codes.device} and {b.codes.device}")
    if bias is not None and bias.device != a.codes.device:
        raise ValueError(f"matmul takes a bias on {a.codes.device}, as its operands, not on {bias.device}")
    backend = backends.choose(a.codes.device.type).backend
    return backend.matmul(a.codes, b.codes, a.scale_bias + b.scale_bias, bias, dtype)


def _check_dtype(dtype: torch.dtype, what: str) -> None:
    if dtype not in DTYPES:
        raise TypeError(f"{what} takes float32, bfloat16 or float16, not {str(dtype).removeprefix('torch.')}")
