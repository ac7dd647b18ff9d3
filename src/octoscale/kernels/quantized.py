"""A tensor in FP8: codes, and the scales that they came with. ops.py makes them, and multiplies them.

q.dequantize(torch.float32)              codes * 2**-scale_bias
q.t()                                    a view of the same codes, with groups that are transposed as well
q.flatten_rows()                         all leading dimensions as rows of a matrix
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from octoscale.kernels import table
from octoscale.kernels.base import Backend, codes_dtype
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import TENSOR, Granularity
from octoscale.system.errors import UserError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What a cast saw: each a tensor on the operand's device, so that nothing waits for it.

    amax: float32, no dimensions; not finite if any value is not; 0 for an empty tensor.
    amaxes: of each group, where there is more than one scale, in the shape of scale_bias; else None.
    saturated, flushed, nonfinite: int64, no dimensions; None unless counts were asked for.
    exponents: int64 [NUM_EXPONENT_BINS], how many values have each exponent before scaling; None unless asked for.
    """

    amax: Tensor
    amaxes: Tensor | None = None
    saturated: Tensor | None = None
    flushed: Tensor | None = None
    nonfinite: Tensor | None = None
    exponents: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A tensor in FP8: `x ~ codes * 2**-scale_bias`.

    codes: torch's float8 dtype of `format`, the shape of x. scale_bias: int32, on the same device, in the shape that
    the granularity says: no dimensions for `tensor`.
    observed: what the cast saw; None where the codes were not cast just now (a view of saved codes).
    """

    codes: Tensor
    scale_bias: Tensor
    format: Format
    granularity: Granularity = TENSOR
    observed: Observed | None = None

    def __post_init__(self) -> None:
        expected = codes_dtype(self.format)
        if self.codes.dtype != expected:
            raise TypeError(f"codes of {self.format.name} are {name_of(expected)}, not {name_of(self.codes.dtype)}")
        shape = self.granularity.scale_shape(self.codes.shape)
        if self.scale_bias.dtype != torch.int32 or tuple(self.scale_bias.shape) != shape:
            what = f"{name_of(self.scale_bias.dtype)} {list(self.scale_bias.shape)}"
            form = f"of shape {list(shape)}, by {self.granularity}" if shape else "without dimensions"
            raise TypeError(f"scale_bias is an int32 tensor {form}, not {what}")

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values, `codes * 2**-scale_bias`: exact in float32 and bfloat16 unless they leave the dtype's range."""
        check_dtype(dtype, "dequantize")
        return backend_of(self, "dequantize").dequantize(self, dtype)

    def t(self) -> "Quantized":
        """The transpose of a matrix, as a view of the same codes; groups are transposed with it."""
        if self.granularity is TENSOR:
            return self.view(self.codes.t())
        return replace(
            self,
            codes=self.codes.t(),
            scale_bias=self.scale_bias.t(),
            granularity=self.granularity.t(),
            observed=None,
        )

    def flatten_rows(self) -> "Quantized":
        """The same values as a matrix: all leading dimensions become rows."""
        if self.granularity is TENSOR:
            return self.view(rows_of(self.codes))
        return replace(self, codes=rows_of(self.codes), scale_bias=rows_of(self.scale_bias), observed=None)

    def view(self, codes: Tensor) -> "Quantized":
        """The same with a view of the codes; unchecked where one scale fits any, for each product makes two."""
        if self.granularity is not TENSOR:
            return replace(self, codes=codes, observed=None)
        view = object.__new__(Quantized)
        view.__dict__.update(self.__dict__, codes=codes, observed=None)
        return view


def backend_of(q: Quantized, what: str) -> Backend:
    """The backend of an operand's device. UserError if it does not take such scales."""
    choice = table.choose(q.codes.device.type)
    if q.granularity is not TENSOR:
        check_granularity(choice, q.granularity, what)
    return choice.backend


def check_granularity(choice: table.Choice, granularity: Granularity, what: str) -> None:
    """UserError if a backend does not take scales of this granularity."""
    known = [each.name for each in choice.backend.granularities]
    if granularity.name not in known:
        raise UserError(
            f"{what}: the backend {choice.name} takes scales of granularity {', '.join(known)}, not {granularity}; "
            f"{table.BACKEND_VARIABLE}=portable takes all"
        )


def rows_of(x: Tensor) -> Tensor:
    """All leading dimensions as rows of a matrix; no copy unless the strides need one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def check_dtype(dtype: torch.dtype, what: str) -> None:
    """TypeError for a dtype that is none of `DTYPES`."""
    if dtype not in DTYPES:
        raise TypeError(f"{what} takes float32, bfloat16 or float16, not {name_of(dtype)}")


def name_of(dtype: torch.dtype | torch.layout) -> str:
    """How torch calls it, without `torch.`."""
    return str(dtype).removeprefix("torch.")
