"""Quantize, dequantize, multiply: check what the caller passed, then dispatch to the backend of the device.

q = quantize(x, "e4m3fn", Amax())        q.codes, q.scale_bias, q.format, q.observed
q.dequantize(torch.float32)              codes * 2**-scale_bias
matmul(a, b)                             (a.codes @ b.codes) * 2**-(a.scale_bias + b.scale_bias)
linear(x, w)                             x @ w^T, where x may stay in bfloat16
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from octoscale.kernels import table
from octoscale.kernels.base import Observed
from octoscale.numerics.formats import Format, get_format
from octoscale.numerics.scaling import History, Rule

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

    def __post_init__(self) -> None:
        expected = getattr(torch, self.format.torch_name)
        if self.codes.dtype != expected:
            raise TypeError(f"codes of {self.format.name} are {_name(expected)}, not {_name(self.codes.dtype)}")
        if self.scale_bias.dtype != torch.int32 or self.scale_bias.ndim:
            what = f"{_name(self.scale_bias.dtype)} {list(self.scale_bias.shape)}"
            raise TypeError(f"scale_bias is an int32 tensor without dimensions, not {what}")

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values, `codes * 2**-scale_bias`: exact in float32 and bfloat16 unless they leave the dtype's range."""
        _check_dtype(dtype, "dequantize")
        return table.choose(self.codes.device.type).backend.dequantize(self.codes, self.scale_bias, dtype)

    def t(self) -> "Quantized":
        """The transpose of a matrix, as a view of the same codes."""
        return replace(self, codes=self.codes.t(), observed=None)

    def flatten_rows(self) -> "Quantized":
        """The same values as a matrix: all leading dimensions become rows."""
        return replace(self, codes=_rows(self.codes), observed=None)


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
    values beyond the format's largest saturate; infinity and NaN become NaN (golden table: numerics/reference.py).
    `counts` and `exponents` fill those parts of `observed`; `history` serves the rule `Delayed`.
    Raises TypeError for another dtype, ValueError for an unknown format.
    """
    _check_dtype(x.dtype, "quantize")
    if x.layout != torch.strided:
        raise TypeError(f"quantize takes a dense tensor, not one of layout {_name(x.layout)}: x.to_dense()")
    fmt = get_format(format) if isinstance(format, str) else format
    backend = table.choose(x.device.type).backend
    cast = backend.quantize(
        x.detach() if x.requires_grad else x, fmt, rule, history, counts=counts, exponents=exponents
    )
    return Quantized(codes=cast.codes, scale_bias=cast.scale_bias, format=fmt, observed=cast.observed)


def matmul(a: Quantized, b: Quantized, *, dtype: torch.dtype = torch.float32, bias: Tensor | None = None) -> Tensor:
    """`a @ b + bias` of two matrices, [M, K] and [K, N] -> [M, N]: accumulated in float32, unscaled, rounded once.

    bias: [N] or None, added before the rounding. Raises ValueError for shapes or devices that do not fit, TypeError
    for a dtype other than float32, bfloat16 and float16.
    """
    if a.codes.ndim != 2 or b.codes.ndim != 2 or a.codes.shape[1] != b.codes.shape[0]:
        raise ValueError(f"matmul takes [M, K] and [K, N], not {list(a.codes.shape)} and {list(b.codes.shape)}")
    return _product(a.codes, b.codes, a.scale_bias + b.scale_bias, bias, dtype, "matmul")


def linear(
    x: Quantized | Tensor, weight: Quantized, bias: Tensor | None = None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """`x @ weight^T + bias`, [..., K] and [N, K] -> [..., N]: accumulated in float32, unscaled, rounded once.

    x: codes (W8A8, the paper's method), or bfloat16 values that stay as they are (W8A16). bias: [N] or None. dtype:
    that of the result; bfloat16 unless given. No gradient flows: `Fp8Linear` has the backward products. Raises
    TypeError for other dtypes, ValueError for shapes or devices that do not fit.
    """
    values = x.codes if isinstance(x, Quantized) else x
    if not isinstance(x, Quantized) and x.dtype != torch.bfloat16:
        raise TypeError(f"linear takes codes or bfloat16 values, not {_name(x.dtype)}: quantize x, or x.bfloat16()")
    if weight.codes.ndim != 2 or values.ndim == 0 or values.shape[-1] != weight.codes.shape[1]:
        raise ValueError(f"linear takes [..., K] and [N, K], not {list(values.shape)} and {list(weight.codes.shape)}")
    scale_bias = x.scale_bias + weight.scale_bias if isinstance(x, Quantized) else weight.scale_bias
    dtype = torch.bfloat16 if dtype is None else dtype
    out = _product(_rows(values), weight.codes.t(), scale_bias, bias, dtype, "linear")
    return reshaped(out, (*values.shape[:-1], weight.codes.shape[0]))


def reshaped(fresh: Tensor, shape: Sequence[int]) -> Tensor:
    """Another shape for a result that nobody else holds yet.

    No view of it, for what a model gets it may write to in place (OLMo clips, Llama 4 adds), and autograd refuses such
    a write to a view that was made inside of a Function, or without gradients. torch.compile makes its own of a view.
    """
    if fresh.requires_grad or torch.compiler.is_compiling():
        return fresh.view(shape)
    return fresh.contiguous().resize_(shape)


def _product(
    a_MK: Tensor, b_KN: Tensor, scale_bias: Tensor, bias_N: Tensor | None, dtype: torch.dtype, what: str
) -> Tensor:
    """Check what `matmul` and `linear` both need, then dispatch."""
    device = a_MK.device
    _check_dtype(dtype, what)
    if b_KN.device != device:
        raise ValueError(f"{what} takes two operands on one device, not {device} and {b_KN.device}")
    if bias_N is not None:
        if bias_N.shape != b_KN.shape[1:]:
            raise ValueError(f"{what} takes a bias [{b_KN.shape[1]}], not {list(bias_N.shape)}")
        if bias_N.device != device:
            raise ValueError(f"{what} takes a bias on {device}, as its operands, not on {bias_N.device}")
        _check_dtype(bias_N.dtype, f"the bias of {what}")
    return table.choose(device.type).backend.matmul(a_MK, b_KN, scale_bias, bias_N, dtype)


def _rows(x: Tensor) -> Tensor:
    """All leading dimensions as rows of a matrix; no copy unless the strides need one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _check_dtype(dtype: torch.dtype, what: str) -> None:
    if dtype not in DTYPES:
        raise TypeError(f"{what} takes float32, bfloat16 or float16, not {_name(dtype)}")


def _name(dtype: torch.dtype | torch.layout) -> str:
    return str(dtype).removeprefix("torch.")
