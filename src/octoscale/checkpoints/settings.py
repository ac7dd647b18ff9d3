"""What to quantize: one place for the words, and the defaults, of the command quantize."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from octoscale.conversion.settings import SKIP, FromFile, said_by_recipe
from octoscale.layers.layouts import get_layout
from octoscale.layers.schemes import REACHES, Scheme, all_linears, check_storable, check_written
from octoscale.numerics.granularity import TENSOR
from octoscale.system.errors import UserError
from octoscale.system.settings import argument, setting

if TYPE_CHECKING:
    from octoscale.numerics.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Quantization(FromFile):
    """What to quantize. Texts as on the command line; see `octoscale quantize --help`."""

    model: str = argument("A checkpoint folder of safetensors, or a hub id.")
    scaling: str = setting("amax", "amax, amax:margin=1, cscale:-1.", in_vain=said_by_recipe("--scaling"))
    granularity: str = setting(
        "tensor",
        "How far a scale reaches: tensor, row (an output channel; a token), block (128 x 128; 128 of a token).",
    )
    activations: str = setting("dynamic", "dynamic (scaled by their own amax), static (by one scale a layer), or none.")
    calibrate: str = setting("pydoc", "The text that static scales are taken from, as --text of validate.")
    tokens: int = setting(8192, "Tokens of that text.")
    window: int = setting(512, "Tokens in a window of it.")
    layout: str = setting("compressed-tensors", "compressed-tensors, vllm-fp8 or hf-fp8.")
    skip: Sequence[str] = setting((), SKIP, in_vain=said_by_recipe("--skip"))
    tie_fused: bool = setting(False, "One scale for q, k, v and one for gate, up: vLLM fuses them.")

    def __post_init__(self) -> None:
        self.take_recipe("scaling")
        scheme = Scheme.of(self.parsed(), self.activations)
        check_written(scheme)
        get_layout(self.layout).config([], all_linears(scheme))

    def parsed(self) -> "Recipe":
        """The recipe, with scales that reach as far as they shall. UserError for one that has none, or one scale only.

        A scaling that names its own granularity, as `amax:row` does, stands as it is.
        """
        from octoscale.numerics.recipe import Recipe, parse_scaling
        from octoscale.numerics.scaling import Amax

        recipe = parse_scaling(self.scaling, skip=self.skip)
        if not isinstance(recipe, Recipe):
            raise UserError(f"scaling {self.scaling} is no FP8: there is nothing to quantize")
        check_storable(recipe)
        if self.granularity not in REACHES:
            raise UserError(f"unknown granularity {self.granularity!r}: one of {', '.join(REACHES)}")
        if self.granularity == TENSOR.name or Scheme.of(recipe, "dynamic") == Scheme(
            weight=self.granularity, input=self.granularity
        ):
            return recipe
        weight, input = recipe.weight.rule, recipe.input.rule
        if not (recipe.is_whole and isinstance(weight, Amax) and isinstance(input, Amax)):
            raise UserError(
                f"--granularity {self.granularity} is of scales by amax, and the scaling is {self.scaling}: amax, or "
                "--granularity tensor"
            )
        weight = replace(weight, granularity=self.granularity)
        if self.activations != "static":  # a file's own scale of an input is a tensor's
            input = replace(input, granularity=self.granularity)
        return Recipe.by_role(weight=weight, input=input, formats=recipe.formats, skip=self.skip)
