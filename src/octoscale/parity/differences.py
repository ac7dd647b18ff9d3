"""How far the sums of one way lie from float32's and from exact ones, of many outputs, and beside the casts' error.

    found = compare(product, ways, torch.bfloat16)      Differences of each way, by its name
    found["hopper"].add(another["hopper"])              of more outputs

The unit is the distance of neighboring numbers of the output's dtype at the exact output: half of it is what rounding
may take. An output that is almost zero by cancellation has a small unit, so means and maxima are those of few; shares
of outputs (`above`) say more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from octoscale.parity.products import Product
from octoscale.parity.ways import FLOAT32, Way, exact

#: What the sums are compared with.
AGAINST = ("float32", "exact")

#: Differences are counted that are above 2**e units, for each e of these.
EXPONENTS = range(-8, 9)


@dataclass(kw_only=True)
class Differences:
    """Of the outputs of one way, in ulp of their dtype.

    changed: outputs that are another number than with float32's sums, once they are rounded. total, largest: of the
    absolute differences, by AGAINST. above: outputs that are farther from the exact ones than 2**e ulp, e of EXPONENTS.
    sums, casts: squares of errors, summed: of these sums, of the casts to FP8.
    """

    outputs: int = 0
    changed: int = 0
    total: dict[str, float] = field(default_factory=lambda: dict.fromkeys(AGAINST, 0.0))
    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(AGAINST, 0.0))
    above: list[int] = field(default_factory=lambda: [0 for _ in EXPONENTS])
    sums: float = 0.0
    casts: float = 0.0

    @property
    def of_casts(self) -> float | None:
        """The error of these sums, as a share of the casts' error; None where these have none."""
        return math.sqrt(self.sums / self.casts) if self.casts else None

    def add(self, other: "Differences") -> None:
        """Take in those of other outputs."""
        self.outputs += other.outputs
        self.changed += other.changed
        self.total = {name: self.total[name] + other.total[name] for name in AGAINST}
        self.largest = {name: max(self.largest[name], other.largest[name]) for name in AGAINST}
        self.above = [a + b for a, b in zip(self.above, other.above, strict=True)]
        self.sums += other.sums
        self.casts += other.casts

    def to_json(self) -> dict[str, Any]:
        """As a reader wants it: means for totals."""
        count = max(1, self.outputs)
        return {
            "outputs": self.outputs,
            "changed": self.changed,
            "mean": {name: self.total[name] / count for name in AGAINST},
            "largest": self.largest,
            "above": self.above,
        }


def compare(product: Product, ways: Sequence[Way], dtype: torch.dtype) -> Mapping[str, Differences]:
    """The differences of one product, summed in each way; dtype: that of its outputs."""
    right = exact(product.a, product.b, product.bias)
    plain = FLOAT32.sums(product.a, product.b, product.bias)
    casts = float((right - product.high).square().sum())
    unit = ulp(right, dtype)
    found = {}
    for way in ways:
        sums = plain if way == FLOAT32 else way.sums(product.a, product.b, product.bias)
        found[way.name] = _differences(sums, plain, right, unit, dtype)
        found[way.name].casts = casts
    return found


def ulp(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from |x| to the next larger number of a dtype, float64; below its normal numbers that of subnormals.

    x: float64 and finite.
    """
    info = torch.finfo(dtype)
    _, exponents = np.frexp(np.maximum(x.abs().numpy(), info.smallest_normal))
    return torch.from_numpy(np.ldexp(info.eps, exponents - 1))


def _differences(sums: Tensor, plain: Tensor, right: Tensor, unit: Tensor, dtype: torch.dtype) -> Differences:
    found = Differences(outputs=sums.numel())
    if not found.outputs:
        return found
    found.changed = int((sums.to(dtype) != plain.to(dtype)).sum())
    for name, other in zip(AGAINST, (plain.double(), right), strict=True):
        away = (sums.double() - other).abs() / unit
        found.total[name], found.largest[name] = float(away.sum()), float(away.max())
    found.above = [int((away > 2.0**exponent).sum()) for exponent in EXPONENTS]
    found.sums = float((sums.double() - right).square().sum())
    return found
