"""How others want FP8 checkpoints: names, shapes and config of three layouts, as data.

    compressed-tensors   vLLM, SGLang and transformers read it; the default
    vllm-fp8             vLLM's own
    hf-fp8               transformers' own

All hold weights in e4m3fn as they lie in the model, and beside each the scales that the values are multiplied with:
ours are powers of two, 2**-scale_bias. compressed-tensors has one scale a tensor, a row (its `channel`) or a block of
128 x 128; the other two a tensor or a block. Static layouts also hold one scale for the input of each layer. What a
`quantization_config` of others says is read by checkpoints/said.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octoscale.layers.schemes import Group, Scheme
from octoscale.numerics.granularity import BLOCK, BLOCK_SIDE, ROW, TENSOR
from octoscale.system.errors import UserError

#: Under this key of config.json stands what the layouts of others have no word for.
OWN_KEY = "octoscale"

#: compressed-tensors' words for how far a scale reaches: of a weight, and of an input.
WEIGHT_STRATEGIES = {TENSOR.name: "tensor", ROW.name: "channel", BLOCK.name: "block"}
INPUT_STRATEGIES = {TENSOR.name: "tensor", ROW.name: "token", BLOCK.name: "group"}

#: A block of a weight, as every layout writes it.
BLOCK_SIZE = [BLOCK_SIDE, BLOCK_SIDE]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of the scales beside `<module>.weight`, the shape of one for a tensor, and what config.json says.

    config: from the modules that stay in high precision, and the groups of those that do not. UserError for groups that
    the layout has no words for. whole_blocks: whether its readers want sizes that are multiples of a block's.
    """

    name: str
    weight_scale: str
    input_scale: str
    scale_shape: tuple[int, ...]
    config: Callable[[Sequence[str], Sequence[Group]], dict[str, Any]]
    whole_blocks: bool = False

    def shape_of(self, scheme: Scheme, num_outputs: int, num_inputs: int) -> tuple[int, ...]:
        """The shape of a weight's scales in this layout."""
        is_one = scheme.weight == TENSOR.name
        return self.scale_shape if is_one else scheme.scale_shape(num_outputs, num_inputs)

    def check_sizes(self, scheme: Scheme, module: str, shape: Sequence[int]) -> None:
        """UserError for a weight that ends in smaller blocks, where readers refuse it, or decode it wrongly."""
        if scheme.weight == BLOCK.name and self.whole_blocks and any(size % BLOCK_SIDE for size in shape):
            raise UserError(
                f"{module}.weight is {' x '.join(map(str, shape))}, and {self.name} wants whole blocks of "
                f"{BLOCK_SIDE} x {BLOCK_SIDE}: vLLM refuses others, and transformers decodes some wrongly; take "
                "scales by row, the layout compressed-tensors, or keep such layers in high precision"
            )


def _compressed_tensors(kept: Sequence[str], groups: Sequence[Group]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": list(kept),
        "config_groups": {f"group_{number}": _compressed_group(group) for number, group in enumerate(groups)},
    }


def _compressed_group(group: Group) -> dict[str, Any]:
    # Linear means torch's nn.Linear there: a module that is none, as GPT-2's Conv1D in transformers, is not found.
    scheme = group.scheme
    base = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "group_size": None}
    base |= {"block_structure": None, "actorder": None, "observer_kwargs": {}}
    weights = {**base, "strategy": WEIGHT_STRATEGIES[scheme.weight], "dynamic": False, "observer": "minmax"}
    weights |= {"block_structure": BLOCK_SIZE} if scheme.weight == BLOCK.name else {}
    static = {**base, "dynamic": False, "observer": "static_minmax"}
    dynamic = {**base, "strategy": INPUT_STRATEGIES[scheme.input], "dynamic": True, "observer": None}
    dynamic |= {"group_size": BLOCK_SIDE} if scheme.input == BLOCK.name else {}
    inputs = {"dynamic": dynamic, "static": static, "none": None}[scheme.activations]
    return {
        "targets": list(group.targets),
        "weights": weights,
        "input_activations": inputs,
        "output_activations": None,
    }


def _vllm_fp8(kept: Sequence[str], groups: Sequence[Group]) -> dict[str, Any]:
    scheme, size = _words_of("vllm-fp8", groups)
    return {"quant_method": "fp8", "activation_scheme": scheme, "ignored_layers": list(kept), "weight_block_size": size}


def _hf_fp8(kept: Sequence[str], groups: Sequence[Group]) -> dict[str, Any]:
    scheme, size = _words_of("hf-fp8", groups)
    return {
        "quant_method": "fp8",
        "activation_scheme": scheme,
        "weight_block_size": size,
        "modules_to_not_convert": list(kept),
        "dequantize": False,
        "scale_fmt": "float",
    }


def _words_of(layout: str, groups: Sequence[Group]) -> tuple[str, list[int] | None]:
    """What the method fp8 says of activations, and of blocks; UserError where it has no words."""
    schemes = {group.scheme for group in groups}
    if len(schemes) != 1:
        raise UserError(f"the layout {layout} has one scheme for all layers: --layout compressed-tensors")
    (scheme,) = schemes
    if scheme.activations == "none":
        raise UserError(f"the layout {layout} has no weight-only form: --activations dynamic or static")
    if ROW.name in (scheme.weight, scheme.input):
        raise UserError(f"the layout {layout} has no form for one scale a row: --layout compressed-tensors")
    if scheme.activations == "dynamic" and scheme.weight != scheme.input:
        raise UserError(
            f"the layout {layout} scales inputs as weights, by {scheme.weight}: --layout compressed-tensors"
        )
    return scheme.activations, BLOCK_SIZE if scheme.weight == BLOCK.name else None


LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="compressed-tensors",
            weight_scale="weight_scale",
            input_scale="input_scale",
            scale_shape=(1,),
            config=_compressed_tensors,
        ),
        Layout(
            name="vllm-fp8",
            weight_scale="weight_scale",
            input_scale="input_scale",
            scale_shape=(),
            config=_vllm_fp8,
            whole_blocks=True,
        ),
        Layout(
            name="hf-fp8",
            weight_scale="weight_scale_inv",
            input_scale="activation_scale",
            scale_shape=(),
            config=_hf_fp8,
            whole_blocks=True,
        ),
    )
}


def get_layout(name: str) -> Layout:
    """The layout of that name. ValueError for an unknown one."""
    if name not in LAYOUTS:
        raise UserError(f"unknown layout {name!r}: one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def layout_for(name: str, scheme: Scheme) -> Layout:
    """That layout as its files with this scheme are: vLLM calls scales of blocks as transformers does."""
    layout = get_layout(name)
    if name == "vllm-fp8" and scheme.weight == BLOCK.name:
        theirs = LAYOUTS["hf-fp8"]
        return replace(layout, weight_scale=theirs.weight_scale, input_scale=theirs.input_scale)
    return layout
