"""OctoscaleConfig: what transformers is told when it loads a model and its weights are to be FP8, or are so already.

    AutoModelForCausalLM.from_pretrained("my-llama", quantization_config=OctoscaleConfig("amax"))

It says which scaling, what becomes of activations, and in which layout the model is saved again.
"""

import json
from collections.abc import Iterable
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from octoscale.layers.layouts import ACTIVATIONS, get_layout, scheme_of
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.system.errors import UserError

METHOD = "octoscale"


class OctoscaleConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What to quantize, or how a checkpoint was.

    scaling: `amax`, `amax:margin=1`, `cscale:-1`. activations: `dynamic`; `static`, with `cscale` or a checkpoint that
    holds scales; `none`, weights only. layout: of the files that save_pretrained writes. skip: patterns of layers that
    stay as they are.
    """

    def __init__(
        self,
        scaling: str = "amax",
        activations: str = "dynamic",
        layout: str = "compressed-tensors",
        skip: Iterable[str] = (),
        kept: Iterable[str] = (),
        **_: Any,
    ) -> None:
        self.quant_method = METHOD
        self.scaling, self.activations, self.layout = scaling, activations, layout
        self.skip, self.kept = list(skip), list(kept)
        if activations not in ACTIVATIONS:
            raise UserError(f"unknown activations {activations!r}: one of {', '.join(ACTIVATIONS)}")
        get_layout(layout).config([], activations)
        self.recipe()

    def recipe(self) -> Recipe:
        """The recipe that the words mean. ValueError for a scaling that is no FP8."""
        recipe = parse_scaling(self.scaling, skip=self.skip)
        if not isinstance(recipe, Recipe):
            raise UserError(f"scaling {self.scaling} is no FP8: there is nothing to quantize")
        check_storable(recipe)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """What config.json says under `quantization_config`: the layout's words, which others understand."""
        return get_layout(self.layout).config(self.kept, self.activations)

    def own(self) -> dict[str, Any]:
        """What config.json says under `octoscale`."""
        return {"scaling": self.scaling, "activations": self.activations, "layout": self.layout}

    def to_json_string(self, use_diff: bool = True) -> str:  # noqa: ARG002
        """What makes up this config, for people."""
        return json.dumps({**self.own(), "skip": self.skip}, indent=2) + "\n"


def understood(content: dict[str, Any]) -> OctoscaleConfig | None:
    """Our config for a `quantization_config` of others; None if it is not one scale a tensor."""
    activations = scheme_of(content)
    if activations is None:
        return None
    layout = {"fp8": "vllm-fp8"}.get(str(content["quant_method"]), "compressed-tensors")
    return OctoscaleConfig(activations=activations, layout=layout)


def check_storable(recipe: Recipe) -> None:
    """UserError for what a checkpoint cannot hold: more scales than one a tensor, or how products are summed."""
    recipe.check_whole("a checkpoint")
    if recipe.accumulate or recipe.fast != Recipe.fast:
        raise UserError(f"scaling {recipe.name}: a checkpoint does not hold how products are summed, leave that out")
