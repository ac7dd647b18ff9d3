"""OctoscaleConfig: what transformers is told when it loads a model and its weights are to be FP8, or are so already.

    AutoModelForCausalLM.from_pretrained("my-llama", quantization_config=OctoscaleConfig("amax"))

It says which scaling, what becomes of activations, and in which layout the model is saved again.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from octoscale.checkpoints import said
from octoscale.layers.layouts import get_layout
from octoscale.layers.schemes import Group, Scheme, all_linears, check_storable
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.system.errors import UserError

METHOD = "octoscale"


class OctoscaleConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What to quantize, or how a checkpoint was.

    scaling: `amax`, `amax:margin=1`, `amax:row`, `amax:block`, `cscale:-1`. activations: `dynamic`; `static`, with
    `cscale` or a checkpoint that holds scales; `none`, weights only. layout: of the files that save_pretrained writes.
    skip: patterns of layers that stay as they are. groups: of a checkpoint whose layers are not all alike.
    """

    def __init__(
        self,
        scaling: str = "amax",
        activations: str = "dynamic",
        layout: str = "compressed-tensors",
        skip: Iterable[str] = (),
        kept: Iterable[str] = (),
        groups: Sequence[Group] = (),
        **_: Any,
    ) -> None:
        self.quant_method = METHOD
        self.scaling, self.activations, self.layout = scaling, activations, layout
        self.skip, self.kept, self._groups = list(skip), list(kept), tuple(groups)
        self.said: said.Said | None = None  # of a checkpoint: what its config says of each layer
        get_layout(layout).config([], self.groups)

    @property
    def groups(self) -> Sequence[Group]:
        """Which layers have which scheme: all linear layers that of the recipe, unless there are several."""
        return self._groups or all_linears(self.scheme)

    @property
    def scheme(self) -> Scheme:
        """That of the recipe."""
        return Scheme.of(self.recipe(), self.activations)

    def recipe(self) -> Recipe:
        """The recipe that the words mean. ValueError for a scaling that is no FP8."""
        recipe = parse_scaling(self.scaling, skip=self.skip)
        if not isinstance(recipe, Recipe):
            raise UserError(f"scaling {self.scaling} is no FP8: there is nothing to quantize")
        check_storable(recipe)
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """What config.json says under `quantization_config`: the layout's words, which others understand."""
        return get_layout(self.layout).config(self.kept, self.groups)

    def own(self) -> dict[str, Any]:
        """What config.json says under `octoscale`; nothing of layers that are not all alike."""
        if self._groups:
            return {}
        return {"scaling": self.scaling, "activations": self.activations, "layout": self.layout}

    def to_json_string(self, use_diff: bool = True) -> str:  # noqa: ARG002
        """What makes up this config, for people."""
        return json.dumps({**self.own(), "skip": self.skip}, indent=2) + "\n"


def understood(content: dict[str, Any]) -> OctoscaleConfig | None:
    """Our config for a `quantization_config` of others; None if it is one that is not served."""
    read = said.understood(content)
    if read is None:
        return None
    schemes = {group.scheme for group in read.groups}
    first = read.groups[0].scheme
    groups = () if len(schemes) == 1 else read.groups
    config = OctoscaleConfig(first.recipe().name, first.activations, read.layout, groups=groups)
    config.said = read
    return config
