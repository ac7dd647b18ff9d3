"""Tensors that the tests of the numerics share, and how float64 becomes a smaller dtype in one rounding."""

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from octoscale.kernels.ops import Quantized
from octoscale.numerics.formats import FORMATS, Format

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OTHER_DTYPES = (torch.float64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn)
FORMAT_PAIRS = [(a, b) for a in FORMATS for b in FORMATS]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantized(values: Tensor, fmt: Format, scale_bias: int = 0) -> Quantized:
    """The codes of values that the format holds exactly, as if they had been cast with `scale_bias`."""
    codes = values.to(getattr(torch, fmt.torch_name))
    assert torch.equal(codes.double(), values.double())
    return Quantized(codes=codes, scale_bias=torch.tensor(scale_bias, dtype=torch.int32), format=fmt)


def rounded(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """float64 to `dtype` in one rounding, by numpy and ml_dtypes."""
    narrow = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}[dtype]
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(narrow).astype(np.float64)).to(dtype)
