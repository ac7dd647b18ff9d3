"""Casts on a GPU by Triton: one launch observes, one encodes, and where the scale is known, one does both.

Plain torch takes a launch for each step of a cast, and each reads and writes all values. Here a value is read once to
observe it and once to encode it (triton_kernel.py); one more launch fills the few numbers that are found with zeros.
They stay on the device: nothing waits for them.

A compiler, which makes one kernel of torch's steps by itself, gets those of portable.py, and so does a tensor without
memory of its own; more than one scale a tensor is portable's, too. The bits are the same.
"""

from dataclasses import dataclass
from subprocess import SubprocessError
from typing import NamedTuple

import torch
from torch import Tensor

from octoscale.kernels import portable
from octoscale.kernels.base import COUNTS, NUM_EXPONENT_BINS, Encoded, Seen, codes_dtype
from octoscale.kernels.eager import is_eager
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.granularity import Granularity
from octoscale.numerics.scaling import Amax, Amount, Bias
from octoscale.system.printable import first_line

#: Values that a program of the kernel visits, and the groups of threads that share them: 16 values a thread.
BLOCK, NUM_WARPS = 4096, 8


class _Found(NamedTuple):
    """What a launch fills in, all in one allocation; None: not asked for."""

    amax: Tensor | None
    counts: Tensor | None
    exponents: Tensor | None


@dataclass(frozen=True)
class TritonCast:
    """The casts of a backend. block: values that a program visits, a power of two."""

    block: int = BLOCK

    def observe(self, x: Tensor, *, exponents: bool) -> Seen:
        """See `Backend.observe`."""
        if not is_eager(x):
            return portable.observe(x, exponents=exponents)
        found = _found(x.device, amax=True, counts=False, exponents=exponents)
        self._launch(_dense(x), None, None, 0, found)
        return _seen(found)

    def encode(self, x: Tensor, fmt: Format, amax: Amount, scale_bias: Bias, *, counts: bool) -> Encoded:
        """See `Backend.encode`. It does not need the amax."""
        if not is_eager(x):
            return portable.encode(x, fmt, amax, scale_bias, counts=counts)
        found = _found(x.device, amax=False, counts=counts, exponents=False)
        return Encoded(self._codes(x, fmt, scale_bias, found), found.counts)

    def cast(self, x: Tensor, fmt: Format, scale_bias: int, *, counts: bool, exponents: bool) -> tuple[Seen, Encoded]:
        """See `Backend.cast`."""
        if not is_eager(x):
            return portable.cast(x, fmt, scale_bias, counts=counts, exponents=exponents)
        found = _found(x.device, amax=True, counts=counts, exponents=exponents)
        codes = self._codes(x, fmt, scale_bias, found)
        return _seen(found), Encoded(codes, found.counts)

    def cast_groups(
        self, x: Tensor, fmt: Format, rule: Amax, granularity: Granularity, *, counts: bool, exponents: bool
    ) -> tuple[Seen, Tensor, Encoded]:
        """See `Backend.cast_groups`: plain torch's."""
        return portable.cast_groups(x, fmt, rule, granularity, counts=counts, exponents=exponents)

    def _codes(self, x: Tensor, fmt: Format, scale_bias: Bias, found: _Found) -> Tensor:
        dense = _dense(x)
        codes = torch.empty_like(dense, dtype=codes_dtype(fmt))
        self._launch(dense, codes, fmt, scale_bias, found)
        return codes

    def _launch(self, x: Tensor, codes: Tensor | None, fmt: Format | None, scale_bias: Bias, found: _Found) -> None:
        """Visit the values of a dense tensor, in the order in which they lie in memory."""
        if x.numel() == 0:
            return
        from octoscale.kernels.triton_kernel import visit

        row = fmt or next(iter(FORMATS.values()))  # not looked at without codes
        with torch.cuda.device(x.device if x.is_cuda else -1):
            visit[(-(-x.numel() // self.block),)](
                x,
                x if codes is None else codes.view(torch.uint8),
                scale_bias,
                x if found.amax is None else found.amax.view(torch.int32),
                x if found.counts is None else found.counts,
                x if found.exponents is None else found.exponents,
                x.numel(),
                OBSERVE=found.amax is not None,
                EXPONENTS=found.exponents is not None,
                ENCODE=codes is not None,
                COUNT=found.counts is not None,
                BIAS_IS_LOADED=isinstance(scale_bias, Tensor),
                MANTISSA_BITS=row.mantissa_bits,
                MIN_EXPONENT=row.min_normal_exponent,
                MAX_CODE=row.max_code,
                NAN_CODE=row.nan_code,
                HAS_NEGATIVE_ZERO=row.has_negative_zero,
                NUM_BINS=NUM_EXPONENT_BINS,
                BLOCK=self.block,
                num_warps=NUM_WARPS,
            )


def why_not(device_type: str) -> str | None:
    """Why Triton cannot cast on devices of this type; None if it can."""
    if device_type != "cuda":
        return f"Triton serves CUDA and ROCm, not {device_type}"
    try:
        import triton

        _ = triton.runtime.driver.active  # builds what launches kernels, for which it needs a C compiler
    except (ImportError, AttributeError, OSError, RuntimeError, SubprocessError) as error:
        return f"Triton does not serve this machine ({first_line(error)})"
    return None


def describe() -> str:
    """Which one casts."""
    import triton

    return f"casts by Triton {triton.__version__}"


def _found(device: torch.device, *, amax: bool, counts: bool, exponents: bool) -> _Found:
    """Room for what is asked for, filled with zeros in one launch."""
    parts = [int(amax), len(COUNTS) * counts, NUM_EXPONENT_BINS * exponents]
    if not any(parts):
        return _Found(None, None, None)
    first, *rest = torch.zeros(sum(parts), dtype=torch.int64, device=device).split_with_sizes(parts)
    low = first.view(torch.int32)[0].view(torch.float32) if amax else None  # the low half, as all bytes are zero
    return _Found(low, *(part if part.numel() else None for part in rest))


def _seen(found: _Found) -> Seen:
    assert found.amax is not None
    return Seen(found.amax, found.exponents)


def _dense(x: Tensor) -> Tensor:
    """The same values without gaps or overlaps, in the order of x where it has none."""
    is_dense = x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride()
    return x if is_dense else x.contiguous()
