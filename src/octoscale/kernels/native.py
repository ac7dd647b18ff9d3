"""The C++ core (csrc/): every operation of a backend, for tensors on the CPU, by instruction set.

    Native("avx512").observe(x, ...)         one object for each instruction set that this CPU runs: `available()`

Tensors cross the border as addresses, strides and numbers. So everything that could make the core read out of bounds
is settled here: a tensor that is dense in memory passes as it is, whatever the order of its dimensions; rows that are
contiguous pass with their stride; the rest is copied. ops.py has checked dtypes, shapes and devices before.

Threads are those of torch: the core has none of its own, it is handed the OpenMP pool that torch has loaded.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from octoscale.kernels import _core, groups
from octoscale.kernels.base import NUM_EXPONENT_BINS, Encoded, Scaled, Seen, codes_dtype, held_formats
from octoscale.kernels.groups import unscale, whole
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import GRANULARITIES, TENSOR, Granularity
from octoscale.numerics.scaling import Amax, Amount, Bias
from octoscale.system.errors import UserError

#: From the slowest to the fastest; the position is the number by which the core knows an instruction set.
ISAS = ("scalar", "avx2", "avx512", "amx")
#: Names one of them, to be used whatever the CPU would run.
ISA_VARIABLE = "OCTOSCALE_ISA"

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_FORMATS = {dtype: number for number, dtype in enumerate(held_formats())}


@dataclass(frozen=True)
class Native:
    """The backend of one instruction set. The methods are those of `Backend`, which says what they compute."""

    isa: str
    granularities = tuple(GRANULARITIES.values())

    def observe(self, x: Tensor, *, exponents: bool) -> Seen:
        """See `Backend.observe`."""
        return self.observe_rows(Rows(x), exponents)

    def encode(self, x: Tensor, fmt: Format, amax: Amount, scale_bias: Bias, *, counts: bool) -> Encoded:
        """See `Backend.encode`."""
        source = Source(x, codes_dtype(fmt))
        return Encoded(source.result, self.encode_rows(source, float(amax), int(scale_bias), counts))

    def cast(self, x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
        """See `Backend.cast`: one visit to memory, where observe and encode take two."""
        source = Source(x, codes_dtype(fmt))
        count, histogram = _new_counts(counts), _new_histogram(exponents)
        to = (scale_bias, source.result.data_ptr(), 0, _address(count), _address(histogram))
        amax = _core.cast(self.number, *source.where, source.result_number, *to, torch.get_num_threads())
        return Seen(amax, histogram), Encoded(source.result, count)

    def cast_groups(
        self, x: Tensor, fmt: Format, rule: Amax, granularity: Granularity, *, counts: bool, exponents: bool
    ) -> tuple[Seen, Tensor, Encoded]:
        """See `Backend.cast_groups`: one visit to memory; the histogram takes another."""
        source = Groups(x, granularity, codes_dtype(fmt))
        count = torch.zeros(3, dtype=torch.int64) if counts else None
        amaxes = torch.zeros(source.num_groups, dtype=torch.float32)
        bias = torch.zeros(source.num_groups, dtype=torch.int32)
        if x.numel():
            how = (source.result_number, rule.margin, rule.round == "down")
            to = (amaxes.data_ptr(), bias.data_ptr(), source.result.data_ptr(), _address(count))
            _core.cast_groups(self.number, *source.where, *how, *to, torch.get_num_threads())
        histogram = self.observe_rows(Rows(x), True).exponents if exponents else None
        encoded = Encoded(source.shaped(source.result, x.shape), count)
        scales = granularity.scale_shape(x.shape)
        return Seen(source.shaped(amaxes, scales), histogram), source.shaped(bias, scales), encoded

    def dequantize(self, q: Scaled, dtype: torch.dtype) -> Tensor:
        """See `Backend.dequantize`."""
        if q.granularity is TENSOR:
            return self.decode(q.codes, int(q.scale_bias.item()), dtype)
        return self._decode_groups(q.codes, q.scale_bias, q.granularity, dtype)

    def _decode_groups(self, codes: Tensor, scale_bias: Tensor, granularity: Granularity, dtype: torch.dtype) -> Tensor:
        source = Groups(codes, granularity, dtype)
        if codes.numel():
            biases = source.lying(scale_bias)
            to = (biases.data_ptr(), source.result.data_ptr(), source.result_number)
            _core.decode_groups(self.number, *source.where, *to, torch.get_num_threads())
        return source.shaped(source.result, codes.shape)

    def matmul(self, a: Scaled | Tensor, b: Scaled, bias_N: Tensor | None, dtype: torch.dtype) -> Tensor:
        """See `Backend.matmul`. AVX2 leaves products of many rows to torch's float32 GEMM on decoded codes."""
        if not whole(a, b):
            return groups.matmul(a, b, bias_N, dtype, self._decoded, self._multiply_by_rows)
        a_MK, a_bias = (a, 0) if isinstance(a, Tensor) else (a.codes, int(a.scale_bias.item()))
        return self._product(a_MK, b.codes, a_bias + int(b.scale_bias.item()), bias_N, dtype)

    def _product(
        self, a_MK: Tensor, b_KN: Tensor, scale_bias: int, bias_N: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        a_MK, b_KN = _with_a_unit_stride(a_MK), _with_a_unit_stride(b_KN)
        bias_N = None if bias_N is None else bias_N.detach().resolve_neg().contiguous()
        out_MN = torch.empty(a_MK.shape[0], b_KN.shape[1], dtype=dtype)
        done = _core.matmul(
            self.number,
            *_where(a_MK),
            *_where(b_KN),
            a_MK.shape[0],
            a_MK.shape[1],
            b_KN.shape[1],
            scale_bias,
            _address(bias_N),
            0 if bias_N is None else _DTYPES[bias_N.dtype],
            out_MN.data_ptr(),
            _DTYPES[dtype],
            torch.get_num_threads(),
        )
        return out_MN if done else self._matmul_by_torch(a_MK, b_KN, scale_bias, bias_N, dtype)

    def _matmul_by_torch(
        self, a_MK: Tensor, b_KN: Tensor, scale_bias: int, bias_N: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        sums = groups.mm(self._wide(a_MK), self._wide(b_KN))
        return unscale(sums, torch.tensor(scale_bias, dtype=torch.int32), bias_N, dtype)

    def _multiply_by_rows(
        self, a: "groups.Relative", b: "groups.Relative", bias_N: Tensor | None, dtype: torch.dtype
    ) -> Tensor | None:
        """See `groups.matmul`. Each sum has an order that does not depend on how many rows of a there are.

        So a sequence has the bits that it has alone, whoever stands beside it.
        """
        if not (_fits(a, 1) and _fits(b, 0)) or (self.isa == "avx2" and a.reach + b.reach):
            return None
        a_MK, b_KN = _with_a_unit_stride(a.codes), _with_a_unit_stride(b.codes)
        if self.isa == "avx2":
            a_MK = a_MK if a_MK.stride(1) == 1 else a_MK.contiguous()
            b_KN = b_KN if b_KN.stride(0) == 1 else b_KN.t().contiguous().t()
        (m, k), n = a_MK.shape, b_KN.shape[1]
        bias_N = None if bias_N is None else _values(bias_N).contiguous()
        of_rows, of_columns = a.base.expand(m, 1).contiguous(), b.base.expand(1, n).contiguous()
        out_MN = torch.empty(m, n, dtype=dtype)
        scales = (of_rows.data_ptr(), of_columns.data_ptr())
        bias = (_address(bias_N), 0 if bias_N is None else _DTYPES[bias_N.dtype])
        to = (out_MN.data_ptr(), _DTYPES[dtype], torch.get_num_threads())
        operands, inner = (*_where(a_MK), *_where(b_KN)), (_inner(a), _inner(b))
        done = _core.matmul_by_rows(self.number, *operands, m, k, n, *inner, *scales, *bias, *to)
        return out_MN if done else None

    def _decoded(self, codes: Tensor, beyond: Tensor | None, granularity: Granularity) -> Tensor:
        """See `groups.matmul`."""
        return self._wide(codes) if beyond is None else self._decode_groups(codes, beyond, granularity, torch.float32)

    def _wide(self, codes: Tensor) -> Tensor:
        """The values of codes, or of bfloat16, in float32."""
        return codes.float() if codes.dtype == torch.bfloat16 else self.decode(codes, 0, torch.float32)

    def accumulate(self, a_MK: Tensor, b_KN: Tensor, rule: tuple[int, int, int, int, int, int]) -> Tensor:
        """Sums of codes as a tensor core makes them, float32, unscaled; rule: `Accumulator.rule`."""
        a_MK, b_KN = _with_a_unit_stride(a_MK), _with_a_unit_stride(b_KN)
        shape = (a_MK.shape[0], a_MK.shape[1], b_KN.shape[1])
        out_MN = torch.empty(shape[0], shape[2], dtype=torch.float32)
        where = (*_where(a_MK), *_where(b_KN), *shape, out_MN.data_ptr(), torch.get_num_threads())
        _core.accumulate(self.number, *rule, *where)
        return out_MN

    def observe_rows(self, rows: "Rows", exponents: bool) -> Seen:
        """The same of rows in memory."""
        histogram = _new_histogram(exponents)
        return Seen(_core.observe(self.number, *rows.where, _address(histogram), torch.get_num_threads()), histogram)

    def encode_rows(
        self, source: "Source", amax: float, scale_bias: int, counts: bool, values: Tensor | None = None
    ) -> Tensor | None:
        """Fill `source.result` with codes, and `values`, bfloat16, with theirs; the counts, if asked for."""
        count = _new_counts(counts)
        to = (scale_bias, source.result.data_ptr(), _address(values), _address(count))
        _core.encode(self.number, *source.where, amax, source.result_number, *to, torch.get_num_threads())
        return count

    def decode(self, codes: Tensor, scale_bias: int, dtype: torch.dtype) -> Tensor:
        """`codes * 2**-scale_bias` in `dtype`."""
        source = Source(codes, dtype)
        self.decode_rows(source, scale_bias)
        return source.result

    def decode_rows(self, source: "Source", scale_bias: int) -> None:
        """Fill `source.result` with the values of codes."""
        to = (scale_bias, source.result.data_ptr(), source.result_number)
        _core.decode(self.number, *source.where, *to, torch.get_num_threads())

    @property
    def number(self) -> int:
        """By which the core knows the instruction set."""
        return ISAS.index(self.isa)


class Rows:
    """A tensor as the core reads it. where: address, number of the dtype, number of rows, columns, stride of rows."""

    def __init__(self, x: Tensor) -> None:
        x = _values(x)
        if _is_dense(x):
            self.read(x)
        else:
            self.read(*_rows(x))

    def read(self, x: Tensor, rows: tuple[int, int, int] | None = None) -> None:
        """Note where the rows are; x is held, as its address is used, whatever becomes of a parameter."""
        self._kept = x
        num = x.numel()
        self.where = (x.data_ptr(), _number_of(x.dtype), *((1, num, num) if rows is None else rows))


class Source(Rows):
    """A tensor as the core reads it, and a new one of the same shape for what the core writes."""

    def __init__(self, x: Tensor, result_dtype: torch.dtype) -> None:
        x = _values(x)
        self.result = torch.empty_like(x, dtype=result_dtype)
        self.result_number = _number_of(result_dtype)
        if self.result.stride() == x.stride():  # x is dense: empty_like gave its strides to the result
            self.read(x)
        else:
            self.result = torch.empty(x.shape, dtype=result_dtype)
            self.read(*_rows(x))


class Groups:
    """A tensor as rows in memory that the core cuts into groups, and a new one for what it writes, as these rows lie.

    where: as of `Rows`, and how many rows and columns share a scale. num_groups: along the rows and the columns. A
    matrix whose columns are contiguous is read as its transpose, whose groups are transposed as well.
    """

    def __init__(self, x: Tensor, granularity: Granularity, result_dtype: torch.dtype) -> None:
        x = _values(x if x.ndim else x[None])
        self._turned = x.ndim == 2 and x.stride(1) != 1 and x.stride(0) == 1
        self._kept, rows = _rows(x.t() if self._turned else x)
        lying = granularity.t() if self._turned else granularity
        height, width = (
            min(of_group or length, length) for of_group, length in zip(lying.group, rows[:2], strict=True)
        )
        self.where = (self._kept.data_ptr(), _number_of(x.dtype), *rows, height, width)
        self.num_groups = lying.scale_shape(rows[:2])
        self.result, self.result_number = torch.empty(rows[:2], dtype=result_dtype), _number_of(result_dtype)

    def shaped(self, written: Tensor, shape: Sequence[int]) -> Tensor:
        """What was written, result or scales, as its reader has it, in this shape."""
        return written.t() if self._turned else written.view(tuple(shape))

    def lying(self, scales: Tensor) -> Tensor:
        """The scales of a reader as the core reads them."""
        return (scales.t() if self._turned else scales).contiguous()


def available() -> list[str]:
    """The instruction sets that this build and this CPU run, from the slowest to the fastest."""
    return _core.isas()


def why_not() -> str | None:
    """Why the core should not serve this CPU, or None. Without vector instructions, plain torch is faster."""
    if available() == ["scalar"] and ISA_VARIABLE not in os.environ:
        return f"the C++ core has no vector instructions for this CPU ({ISA_VARIABLE}=scalar runs it all the same)"
    return None


def chosen() -> str:
    """The instruction set to use: the one that $OCTOSCALE_ISA names, or the fastest. ValueError if there is no such."""
    forced = os.environ.get(ISA_VARIABLE)
    if forced is None:
        return available()[-1]
    if forced not in ISAS:
        raise UserError(f"{ISA_VARIABLE}={forced}: the instruction sets are {', '.join(ISAS)}")
    if forced not in available():
        raise UserError(f"{ISA_VARIABLE}={forced}: this CPU, or this build, runs only {', '.join(available())}")
    return forced


def describe() -> str:
    """The instruction set and the threads in words, for the header of a run."""
    isa = chosen()
    forced = f", forced by {ISA_VARIABLE}" if ISA_VARIABLE in os.environ else ""
    threads = f"{torch.get_num_threads()} threads of torch's pool" if has_pool else "1 thread: torch has no OpenMP pool"
    return f"the C++ core with {isa}{forced}, {threads}"


def _values(x: Tensor) -> Tensor:
    """The tensor itself, without a gradient; a view such as z.conj().imag holds its values with the other sign."""
    return x.detach().resolve_neg() if x.requires_grad or x.is_neg() else x


def _is_dense(x: Tensor) -> bool:
    """Whether the values fill their memory, in any order of the dimensions."""
    if x.is_contiguous() or (x.ndim == 2 and x.t().is_contiguous()):
        return True
    return torch.empty_like(x, device="meta").stride() == x.stride()


def _rows(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """Rows that are contiguous, with any stride between them; a copy of what has none."""
    x = x.flatten(0, -2) if x.ndim > 1 else x[None]
    x = x if x.stride(1) == 1 else x.contiguous()
    return x, (x.shape[0], x.shape[1], x.stride(0))


def _with_a_unit_stride(x: Tensor) -> Tensor:
    x = _values(x)
    return x if 1 in x.stride() else x.contiguous()


def _where(x: Tensor) -> tuple[int, int, int, int]:
    """A matrix as the core reads it: address, format or -1 for bfloat16, strides, of which one is 1."""
    row_stride, col_stride = x.stride()
    return (x.data_ptr(), _FORMATS.get(x.dtype, -1), row_stride, col_stride)


def _fits(operand: "groups.Relative", along: int) -> bool:
    """Whether the core reads its scales along the sum: one for 32 values, or for a multiple of them."""
    group = operand.granularity.group[along]
    return operand.beyond is None or (group is not None and group % 32 == 0)


def _inner(operand: "groups.Relative") -> tuple[int, int, int, int, int]:
    """`Inner` of csrc/product/matmul.h."""
    if operand.beyond is None:
        return (0, 1, 1, 0, 0)
    rows, columns = (2**62 if size is None else size for size in operand.granularity.group)
    row_stride, column_stride = operand.beyond.stride()
    return (operand.beyond.data_ptr(), rows, columns, row_stride, column_stride)


def _number_of(dtype: torch.dtype) -> int:
    return _DTYPES[dtype] if dtype in _DTYPES else _FORMATS[dtype]


def _new_counts(wanted: bool) -> Tensor | None:
    return torch.empty(3, dtype=torch.int64) if wanted else None


def _new_histogram(wanted: bool) -> Tensor | None:
    return torch.empty(NUM_EXPONENT_BINS, dtype=torch.int64) if wanted else None


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _use_torchs_pool() -> bool:
    """Hand the core the OpenMP runtime that torch was linked to, whatever its name: whether there is one.

    A look-up in torch's own library finds the functions of the runtime that this library depends on.
    """
    libraries = sorted(Path(torch.__file__).parent.glob("lib/libtorch_cpu.*"))
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    try:
        library = ctypes.CDLL(str(libraries[0]))
        addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names]
    except (IndexError, OSError, AttributeError):
        return False
    _core.use_pool(*addresses)
    return True


has_pool = _use_torchs_pool()
