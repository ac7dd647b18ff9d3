"""What the weights take under a scaling: a code each, and the scales that they share.

    layers = layers_of(skeleton, Recipe.amax())
    cost_of(layers, parse_scaling("amax:mx"))       of 32 values each: 8 + 8 / 32 = 8.25 bits

A scale is a power of two, and its exponent takes a byte, as in E8M0 of the OCP Microscaling Formats v1.0; a constant is
the recipe's, and takes none. Only the layers count that go to FP8: all else is the same for everyone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octoscale.conversion.convert import preview
from octoscale.layers.origin import is_conv1d
from octoscale.numerics.formats import PRECISIONS
from octoscale.numerics.granularity import along
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Constant

#: Bits of a code, and of a scale.
CODE, SCALE = 8, 8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The weight of a linear layer that goes to FP8. is_conv1d: whether the sum runs along its first dimension."""

    shape: tuple[int, ...]
    is_conv1d: bool


@dataclass(frozen=True, kw_only=True)
class Cost:
    """values: how many weights there are. bits: of all of them together, with their scales."""

    values: int
    bits: int

    @property
    def bits_per_value(self) -> float:
        """Of a weight, with its share of the scales."""
        return self.bits / self.values

    @property
    def megabytes(self) -> float:
        """Of all, 10**6 bytes each."""
        return self.bits / 8e6


def layers_of(model: Any, recipe: Recipe) -> list[Layer]:
    """The layers of a model, with weights or without, that the recipe puts into FP8; a shared one once."""
    modules = {row.module: model.get_submodule(row.module) for row in preview(model, recipe).converted}
    return [
        Layer(shape=tuple(module.weight.shape), is_conv1d=is_conv1d(module))
        for module in dict.fromkeys(modules.values())
    ]


def cost_of(layers: Sequence[Layer], scaling: Recipe | str) -> Cost:
    """The cost of these layers under a recipe, or in a precision, a key of PRECISIONS."""
    values = sum(math.prod(layer.shape) for layer in layers)
    if isinstance(scaling, str):
        return Cost(values=values, bits=values * _BITS[PRECISIONS[scaling]])
    return Cost(values=values, bits=CODE * values + SCALE * sum(_num_scales(layer, scaling) for layer in layers))


def _num_scales(layer: Layer, recipe: Recipe) -> int:
    rule = recipe.weight.rule
    if isinstance(rule, Constant):
        return 0
    return math.prod(along(rule.granularity, "weight", sum_first=layer.is_conv1d).scale_shape(layer.shape))


#: Of the precisions, by torch's name.
_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}
