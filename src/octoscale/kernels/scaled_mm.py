"""torch._scaled_mm: products of FP8 codes in the tensor cores of a GPU, NVIDIA's from SM 8.9 on or AMD's from MI300 on.

    y_MN = (a_MK @ b_KN) * 2**-(a's scale_bias + b's) + bias

What the hardware asks for is arranged here: a row by row, b column by column (else a copy is made: `in_columns` keeps
the one that several micro-batches need), K and N in multiples of 16 (zeros fill them up), two E4 or one of them E5.
`fast` lets an NVIDIA GPU keep its sums in fewer bits; without it they are promoted to float32 along the way.

Casts are Triton's where it is (triton_cast.py), else plain torch's, on the device; with more than one scale a tensor,
casts and products are plain torch's. Of those with one, no number is read back, so nothing waits; the one thing that
only a look could mend are two scales whose product leaves float32: products below 1e-26 may become zero, and above 1e26
infinity. torch has the operator for CPUs, too: thousands of times slower than the C++ core (`octoscale bench linear`),
it is for tests.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from octoscale.kernels import portable, triton_cast
from octoscale.kernels.base import Casts, Encoded, Scaled, Seen
from octoscale.kernels.groups import whole
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import Granularity
from octoscale.numerics.scaling import Amax, Amount, Bias, power_of_two
from octoscale.system.errors import UserError

NAME = "scaled_mm"

#: Plain torch's casts, for every device.
PLAIN = cast(Casts, portable)

#: Rows of 16 bytes are the least that tensor cores read.
_MULTIPLE = 16

_OCP = ("e4m3fn", "e5m2")
_FNUZ = ("e4m3fnuz", "e5m2fnuz")
#: AMD's architectures that multiply FP8, and in which formats: MI300, MI350, Radeon RX 9000.
_AMD = {"gfx942": _FNUZ, "gfx950": _OCP, "gfx1200": _OCP, "gfx1201": _OCP}
#: NVIDIA's compute capability from which on tensor cores multiply FP8: Ada, Hopper, Blackwell.
_NVIDIA = (8, 9)


@dataclass(frozen=True)
class ScaledMM:
    """The backend. formats: E4 and E5, as the hardware names them; of two operands at most one is E5. casts: whose."""

    formats: tuple[str, str]
    casts: Casts = PLAIN

    granularities: tuple[Granularity, ...] = portable.granularities

    def observe(self, x: Tensor, *, exponents: bool) -> Seen:
        """See `Backend.observe`."""
        return self.casts.observe(x, exponents=exponents)

    def encode(self, x: Tensor, fmt: Format, amax: Amount, scale_bias: Bias, *, counts: bool) -> Encoded:
        """See `Backend.encode`."""
        return self.casts.encode(x, fmt, amax, scale_bias, counts=counts)

    def cast(self, x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
        """See `Backend.cast`."""
        return self.casts.cast(x, fmt, scale_bias, counts=counts, exponents=exponents)

    def cast_groups(
        self, x: Tensor, fmt: Format, rule: Amax, granularity: Granularity, *, counts: bool, exponents: bool
    ) -> tuple[Seen, Tensor, Encoded]:
        """See `Backend.cast_groups`."""
        return self.casts.cast_groups(x, fmt, rule, granularity, counts=counts, exponents=exponents)

    def dequantize(self, q: Scaled, dtype: torch.dtype) -> Tensor:
        """See `Backend.dequantize`."""
        return portable.dequantize(q, dtype)

    def matmul(
        self, a: Scaled | Tensor, b: Scaled, bias_N: Tensor | None, dtype: torch.dtype, *, fast: bool = False
    ) -> Tensor:
        """See `Backend.matmul`; plain torch for formats that the hardware lacks, and for more than one scale a tensor.

        UserError for E5 by E5 of its own.
        """
        if isinstance(a, Tensor) or not whole(a, b):
            return portable.matmul(a, b, bias_N, dtype)
        num_rows, num_columns = a.codes.shape[0], b.codes.shape[1]
        if not self._takes(a.codes, b.codes) or 0 in (num_rows, num_columns, a.codes.shape[1]):
            return portable.matmul(a, b, bias_N, dtype)
        a_MK, b_KN = _by_rows(_filled(a.codes, 1)), in_columns(_filled(b.codes, 0, 1))
        fused = bias_N is None or (bias_N.dtype == dtype and dtype != torch.float32)  # the epilogue's own bias
        with torch.autocast(a_MK.device.type, enabled=False):  # torch's CPU kernel would round its sums to that dtype
            y_MN: Tensor = torch._scaled_mm(
                a_MK,
                b_KN,
                power_of_two(-a.scale_bias),
                power_of_two(-b.scale_bias),
                bias=_filled(bias_N, 0) if fused and bias_N is not None else None,
                out_dtype=dtype if fused else torch.float32,
                use_fast_accum=fast and a_MK.device.type == "cuda" and torch.version.hip is None,
            )
        y_MN = y_MN[:, :num_columns].contiguous()
        return y_MN if fused or bias_N is None else y_MN.add_(bias_N).to(dtype)

    def in_columns(self, codes_KN: Tensor) -> Tensor:
        """See `Backend.in_columns`."""
        return in_columns(codes_KN)

    def _takes(self, a_MK: Tensor, b_KN: Tensor) -> bool:
        """Whether the hardware has these formats. UserError, in words, for the pair that it lacks all the same."""
        names = [str(codes.dtype).removeprefix("torch.float8_") for codes in (a_MK, b_KN)]
        e4, e5 = self.formats
        if names == [e5, e5]:
            raise UserError(f"no tensor core multiplies {e5} by {e5}: one of the operands has to be {e4}")
        return set(names) <= {e4, e5}


def why_not(device_type: str) -> str | None:
    """Why torch._scaled_mm cannot serve the devices of this type; None if it can."""
    if device_type == "cpu":
        return None
    if device_type != "cuda":
        return f"torch._scaled_mm serves CUDA and ROCm, not {device_type}"
    return why_not_gpus(torch.version.hip is not None, [_model(i) for i in range(torch.cuda.device_count())])


def why_not_gpus(is_amd: bool, models: Collection[str | tuple[int, int]]) -> str | None:
    """The same of GPUs of these compute capabilities, or of these of AMD's architectures."""
    for model in models:
        if is_amd and model not in _AMD:
            return f"this GPU, {model}, has no FP8 products that torch._scaled_mm takes: {', '.join(_AMD)} have"
        if not is_amd and isinstance(model, tuple) and model < _NVIDIA:
            major, minor = model
            least = ".".join(map(str, _NVIDIA))
            return f"this GPU, of compute capability {major}.{minor}, has no FP8: it begins with {least}"
    if len({_AMD[str(model)] for model in models} if is_amd else ()) > 1:
        return f"these GPUs, {', '.join(map(str, models))}, take different formats"
    return None


def make(device_type: str) -> tuple[ScaledMM, str]:
    """The backend for devices that it can serve, and what it is."""
    formats, where = _OCP, "a CPU"
    if device_type == "cuda" and torch.version.hip is not None:
        where = str(_model(0))
        formats = _AMD[where]
    elif device_type == "cuda":
        where = f"compute capability {'.'.join(map(str, _model(0)))}"
    casts, how = _casts(device_type)
    products = f"torch._scaled_mm on {where} of {' and '.join(formats)}"
    others = "bf16 GEMM of other formats, and of scales by row, block or mx"
    return ScaledMM(formats, casts), f"{products}, {others}; {how}"


def _casts(device_type: str) -> tuple[Casts, str]:
    """Those for devices of this type, and why."""
    why_not_triton = triton_cast.why_not(device_type)
    if why_not_triton is None:
        return triton_cast.TritonCast(), triton_cast.describe()
    return PLAIN, f"casts by plain torch: {why_not_triton}"


def in_columns(codes_KN: Tensor) -> Tensor:
    """The codes column by column, as the second operand has to lie; the same ones if they do so already."""
    return codes_KN if _lies_by_rows(codes_KN.t()) else _by_rows(codes_KN.t()).t()


def _by_rows(codes: Tensor) -> Tensor:
    """Strides included: to torch, a row of one matrix may be a column of another, and is contiguous in any case."""
    dense = codes.view(torch.uint8).contiguous().view(codes.dtype)
    return dense if _lies_by_rows(dense) else dense.as_strided(dense.shape, (dense.shape[1], 1))


def _lies_by_rows(codes: Tensor) -> bool:
    return codes.stride() == (codes.shape[1], 1)


def _filled(x: Tensor, *dims: int) -> Tensor:
    """With zeros behind these dimensions, so that their sizes are multiples; codes are zero where their bits are."""
    more = [-size % _MULTIPLE if dim in dims else 0 for dim, size in enumerate(x.shape)]
    if not any(more):
        return x
    bits = x.view(torch.uint8) if x.itemsize == 1 else x
    return pad(bits, [size for more_of_dim in reversed(more) for size in (0, more_of_dim)]).view(x.dtype)


def _model(number: int) -> str | tuple[int, int]:
    """The compute capability of a GPU; of AMD's the architecture, without its features."""
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(number).gcnArchName).partition(":")[0]
    return torch.cuda.get_device_capability(number)
