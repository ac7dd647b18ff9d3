"""What a checkpoint says of a layer: how far a scale of its weight reaches, and what becomes of its input. As data.

    Scheme(weight="row", input="row")           a scale an output channel; each token of the input by its own amax
    Scheme(weight="block", input="block")       a scale for 128 x 128 values; 128 values of a token by their own amax
    Scheme(activations="static")                one scale a tensor, for weight and input, both in the file

Weights and inputs have the granularities of numerics/granularity.py: tensor, row, block. Files hold the scales of a
weight by its output channels [N] and input features [K], whichever way the weight lies: [N, 1] for rows, and
[ceil(N / 128), ceil(K / 128)] for blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octoscale.numerics.granularity import BLOCK, ROW, TENSOR, along
from octoscale.system.errors import UserError

if TYPE_CHECKING:  # the command line reads the words above, and does not wait for torch
    from octoscale.numerics.recipe import Recipe

#: How a layer's input is cast: each time by its own amax, always by one scale, or not at all (weights only).
ACTIVATIONS = ("dynamic", "static", "none")

#: Over how much of a weight a scale of a file may reach.
REACHES = (TENSOR.name, ROW.name, BLOCK.name)

#: The only format that serving systems load weights in, and the one in which they cast inputs.
STORED_FORMAT = "e4m3fn"

#: A target that means every linear layer.
EVERY_LINEAR = "Linear"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """weight: how far each of its scales reaches, of `REACHES`. activations: of `ACTIVATIONS`. input: of dynamic ones.

    UserError for another word.
    """

    weight: str = TENSOR.name
    activations: str = "dynamic"
    input: str = TENSOR.name

    def __post_init__(self) -> None:
        for what, word in (("a weight", self.weight), ("an input", self.input)):
            if word not in REACHES:
                raise UserError(f"no checkpoint has scales of granularity {word} for {what}: {', '.join(REACHES)}")
        if self.activations not in ACTIVATIONS:
            raise UserError(f"unknown activations {self.activations!r}: one of {', '.join(ACTIVATIONS)}")
        if self.activations != "dynamic":  # a word that would mean nothing
            object.__setattr__(self, "input", TENSOR.name)

    @classmethod
    def of(cls, recipe: "Recipe", activations: str) -> "Scheme":
        """That of weights and inputs which a recipe casts."""
        weight, input = recipe.weight.rule.granularity, recipe.input.rule.granularity
        return cls(weight=weight, activations=activations, input=input)

    def recipe(self) -> "Recipe":
        """The recipe of a layer that is so in a file: its scales are the file's, those of dynamic inputs powers of two.

        Gradients are scaled as inputs are.
        """
        from octoscale.numerics.recipe import Recipe
        from octoscale.numerics.scaling import Amax

        return Recipe.by_role(weight=Amax(granularity=self.weight), input=Amax(granularity=self.input))

    def scale_shape(self, num_outputs: int, num_inputs: int) -> tuple[int, ...]:
        """The shape of a weight's scales in a file; of one scale a tensor each layout has its own."""
        return along(self.weight, "weight").scale_shape((num_outputs, num_inputs))


@dataclass(frozen=True, kw_only=True)
class Group:
    """The layers that have a scheme: targets are names, regular expressions behind `re:`, or names of classes."""

    targets: tuple[str, ...] = (EVERY_LINEAR,)
    scheme: Scheme


def all_linears(scheme: Scheme) -> Sequence[Group]:
    """The one group of a checkpoint whose layers are all alike."""
    return (Group(scheme=scheme),)


def check_storable(recipe: "Recipe") -> None:
    """UserError for what a checkpoint cannot say: scales that none has, or how products are summed."""
    Scheme.of(recipe, "dynamic")
    if recipe.accumulate or recipe.fast != type(recipe).fast:
        raise UserError(f"scaling {recipe.name}: a checkpoint does not hold how products are summed, leave that out")


def check_stored_formats(recipe: "Recipe") -> None:
    """UserError for formats that no checkpoint holds; a model that is not saved may be in any."""
    for what, operand in (("weights", recipe.weight), ("inputs", recipe.input)):
        if operand.format != STORED_FORMAT:
            raise UserError(f"{what} in {operand.format}: checkpoints hold {STORED_FORMAT}, leave formats= out")


def check_written(scheme: Scheme) -> None:
    """UserError for what no system serves, though a file could say it."""
    if scheme.weight == BLOCK.name and scheme.activations == "static":
        raise UserError("weights by block go with dynamic inputs, or none: no reader takes static ones with them")
