"""What the length of a sum does to its error, on operands that are made: no model has all lengths.

    curves_of("uniform", ways, "e4m3fn", [64, 128, 256], seed=0)

Two families are products of random matrices, two are attention's P V: a row of P is exp(s - max s) of L scores s, as
kernels cast it that divide by the sum of the row at the end; V has L rows. Both operands are cast with their amax. The
division, and the rescaling of kernels that read P in parts, change nothing of a sum's relative error, and are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from octoscale.kernels.ops import Quantized, quantize
from octoscale.numerics.scaling import Amax
from octoscale.parity.ways import Way, exact

#: Rows of a and columns of b: 4,096 sums of each length.
SIDE = 64

#: Both operands of sums of some length: [SIDE, K] and [K, SIDE], float32.
Make = Callable[[int, int, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Operands that are drawn. says: from which distribution."""

    says: str
    make: Make


def _normal(side: int, length: int, chance: Generator) -> tuple[Tensor, Tensor]:
    a, b = (torch.randn(side, length, generator=chance) for _ in range(2))
    return a, b.t()


def _uniform(side: int, length: int, chance: Generator) -> tuple[Tensor, Tensor]:
    a, b = (torch.rand(side, length, generator=chance) for _ in range(2))
    return a, b.t()


def _attention(side: int, length: int, chance: Generator, *, mean: float) -> tuple[Tensor, Tensor]:
    scores, values = (torch.randn(side, length, generator=chance) for _ in range(2))
    return (scores - scores.amax(1, keepdim=True)).exp(), (values + mean).t()


def _centered(side: int, length: int, chance: Generator) -> tuple[Tensor, Tensor]:
    return _attention(side, length, chance, mean=0.0)


def _shifted(side: int, length: int, chance: Generator) -> tuple[Tensor, Tensor]:
    return _attention(side, length, chance, mean=1.0)


FAMILIES = {
    "normal": Family(says="both operands N(0, 1)", make=_normal),
    "uniform": Family(says="both operands uniform in [0, 1)", make=_uniform),
    "attention": Family(says="P V, scores N(0, 1), V N(0, 1)", make=_centered),
    "attention, V of mean 1": Family(says="P V, scores N(0, 1), V N(1, 1)", make=_shifted),
}


def curves_of(
    family: str,
    ways: Sequence[Way],
    format: str,
    lengths: Sequence[int],
    *,
    seed: int,
    side: int = SIDE,
    on_length: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The errors of each way by length, of side x side sums in a format.

    error: the norm of what is wrong, over that of the exact sums. largest: the largest error of a sum over the root of
    the mean square of the exact sums. casts: the first, of the casts. on_length: called with how many lengths are done.
    """
    series = [{"sums": way.name, "error": [], "largest": []} for way in ways]
    found: dict[str, Any] = {"operands": family, "says": FAMILIES[family].says, "lengths": list(lengths)}
    found |= {"casts": [], "series": series}
    for done, length in enumerate(lengths, 1):
        high, a, b = _operands(FAMILIES[family], format, length, side, seed)
        right = exact(a, b)
        found["casts"].append(float((right - high).norm() / right.norm()))
        for way, row in zip(ways, series, strict=True):
            away = way.sums(a, b).double() - right
            row["error"].append(float(away.norm() / right.norm()))  # type: ignore[attr-defined]
            row["largest"].append(float(away.abs().max() * side / right.norm()))  # type: ignore[attr-defined]
        on_length(done)
    return found


def _operands(family: Family, format: str, length: int, side: int, seed: int) -> tuple[Tensor, Quantized, Quantized]:
    """The product of the values in float64, and both operands in FP8."""
    a, b = family.make(side, length, Generator().manual_seed(seed + length))
    return a.double() @ b.double(), quantize(a, format, Amax()), quantize(b, format, Amax())
