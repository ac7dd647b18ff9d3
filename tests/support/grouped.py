"""The oracle of casts with a scale for each group: numerics/reference.py on one group after the other."""

import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from octoscale.kernels.ops import Quantized
from octoscale.numerics import reference
from octoscale.numerics.formats import Format
from octoscale.numerics.granularity import Granularity
from octoscale.numerics.scaling import Amax


def groups_of(shape: tuple[int, int], granularity: Granularity) -> Iterator[tuple[slice, slice]]:
    """The groups of a matrix, row by row."""
    sizes = [
        length if of_group is None else of_group for of_group, length in zip(granularity.group, shape, strict=True)
    ]
    for row in range(0, shape[0], sizes[0]):
        for column in range(0, shape[1], sizes[1]):
            yield slice(row, row + sizes[0]), slice(column, column + sizes[1])


def cast_by_reference(
    x: Tensor, fmt: Format, rule: Amax, granularity: Granularity
) -> tuple[Tensor, list[int], reference.Counts]:
    """The codes of a matrix, uint8; the scale_bias of each group; amax and counts of all."""
    codes, biases = torch.empty(x.shape, dtype=torch.uint8), []
    amax, counts = 0.0, [0, 0, 0]
    for place in groups_of(tuple(x.shape), granularity):
        values = x[place].double().flatten().tolist()
        of_group = reference.quantize(values, fmt, 0)[1].amax
        biases.append(reference.scale_bias(of_group, fmt, rule.margin, down=rule.round == "down"))
        found, seen = reference.quantize(values, fmt, biases[-1])
        codes[place] = torch.tensor(found, dtype=torch.uint8).view(x[place].shape)
        amax = math.nan if math.isnan(of_group) or math.isnan(amax) else max(amax, of_group)
        counts = [a + b for a, b in zip(counts, (seen.saturated, seen.flushed, seen.nonfinite), strict=True)]
    saturated, flushed, nonfinite = counts
    return codes, biases, reference.Counts(amax=amax, saturated=saturated, flushed=flushed, nonfinite=nonfinite)


def values_by_reference(x: Tensor, fmt: Format, rule: Amax, granularity: Granularity) -> Tensor:
    """What the values of a matrix become, float64."""
    codes, biases, _ = cast_by_reference(x, fmt, rule, granularity)
    return _values(codes, torch.tensor(biases), fmt, granularity)


def values_of(q: Quantized) -> Tensor:
    """The values of a matrix of codes, float64, exact."""
    return _values(q.codes.view(torch.uint8), q.scale_bias.flatten(), q.format, q.granularity)


def _values(codes: Tensor, biases: Tensor, fmt: Format, granularity: Granularity) -> Tensor:
    values = torch.tensor(_decoded(fmt), dtype=torch.float64)[codes.long()]
    for place, bias in zip(groups_of(tuple(codes.shape), granularity), biases.tolist(), strict=True):
        values[place] *= 2.0**-bias
    return values


@cache
def _decoded(fmt: Format) -> tuple[float, ...]:
    return tuple(reference.decode(code, fmt) for code in range(256))
