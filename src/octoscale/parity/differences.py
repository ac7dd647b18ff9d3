"""How far the sums of one way lie from exact ones, of many outputs, and beside the casts' error.

    found = compare(product, ways, torch.bfloat16)      Differences of each way, by its name
    found["hopper"].add(another["hopper"])              of more outputs

The unit is the distance of neighboring numbers of the output's dtype at the exact output: half of it is what rounding
may take. Outputs are counted by how far they are away, for a mean would say nothing: where terms cancel to zero, or
almost, the unit is as small as the dtype's numbers get.
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

#: Differences are counted that are above 2**e units, for each e of these.
EXPONENTS = range(-8, 9)


@dataclass(kw_only=True)
class Differences:
    """Of the outputs of one way.

    changed: outputs that are another number than with float32's sums, once they are rounded to their dtype. above:
    outputs that are farther from the exact ones than 2**e ulp, for each e of EXPONENTS. sums, casts: squares of errors,
    summed: of these sums, of the casts to FP8.
    """

    outputs: int = 0
    changed: int = 0
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
        self.above = [a + b for a, b in zip(self.above, other.above, strict=True)]
        self.sums += other.sums
        self.casts += other.casts

    def to_json(self) -> dict[str, Any]:
        """What is counted."""
        return {"outputs": self.outputs, "changed": self.changed, "above": self.above}


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
    away = (sums.double() - right).abs()
    return Differences(
        outputs=sums.numel(),
        changed=int((sums.to(dtype) != plain.to(dtype)).sum()),
        above=[int((away > 2.0**exponent * unit).sum()) for exponent in EXPONENTS],
        sums=float(away.square().sum()),
    )
