"""What a `quantization_config` says of each layer: read from the words of three writers, into schemes, as data.

    said = read_config(content)                        raises UnreadableError, in words, for what is not served here
    said.scheme_of(["model.layers.0.mlp.up_proj"], ["Linear"])

    quant_method          read                                                       names are matched
    compressed-tensors    config_groups of 8-bit floats: weights tensor, channel or  whole; behind `re:` by a regular
                          block; inputs tensor, token, group of 128, static, none    expression; by class
    fp8                   weight_block_size [128, 128] or none; dynamic or static    as transformers does: from the
                                                                                     start to a dot, or at the end
    modelopt              FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO                  with shell wildcards

Where several groups of compressed-tensors match a layer, a name goes before an expression, that before a class, and of
groups with the same target the last one counts, as that library has it. Values of a kind that they should not have mean
nothing: no guess is made.

`dynamic` is all that a file says of such inputs; here their scales are powers of two, from the amax of the tensor, of
each token, or of each 128 values of one.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from octoscale.layers.layouts import BLOCK_SIZE, INPUT_STRATEGIES, WEIGHT_STRATEGIES, get_layout
from octoscale.layers.schemes import EVERY_LINEAR, Group, Scheme, all_linears
from octoscale.numerics.granularity import BLOCK, BLOCK_SIDE
from octoscale.system.errors import UserError

REMEDY = (
    "here, weights are e4m3fn with one scale a tensor, row, or block of 128 x 128: let vLLM or transformers run this "
    "folder, or quantize its original"
)

#: `naive-quantized` files differ in nothing that concerns FP8; of mixed ones each group says its own.
_FLOAT_FORMATS = ("float-quantized", "naive-quantized")
_MIXED = "mixed-precision"

#: ModelOpt's algorithms that are FP8 -> what they mean; of FP8 the files say whether inputs are static.
_ALGORITHMS = {
    "FP8": Scheme(),
    "FP8_PER_CHANNEL_PER_TOKEN": Scheme(weight="row", input="row"),
    "FP8_PB_WO": Scheme(weight="block", activations="none"),
}

_EXPRESSION = "re:"
#: A name ends at a dot, or where it ends: `layers.1` is no part of `layers.11`.
_BOUNDARY = r"(?:(?<=\.)|(?=\.|$))"


class UnreadableError(UserError):
    """A quantization that is not served here: what it is, and the targets that have it, of none for all."""

    def __init__(self, what: str, targets: Sequence[str] = ()) -> None:
        super().__init__(f"its weights are quantized {what}: {REMEDY}")
        self.what, self.targets = what, tuple(targets)

    def of(self, layer: str | None) -> UserError:
        """The same with the name of a layer that is so."""
        return UserError(f"its weights are quantized {self.what}{f', as {layer} is' * bool(layer)}: {REMEDY}")


@dataclass(frozen=True, kw_only=True)
class Said:
    """The layout of the files, the groups of layers, and the names that stay in high precision."""

    layout: str
    groups: tuple[Group, ...]
    kept: tuple[str, ...] = ()

    def scheme_of(self, names: Sequence[str], classes: Sequence[str]) -> Scheme | None:
        """The scheme of a layer, by any of its names or of its class's; None if no group has it."""
        ranked = [
            (rank, target, group.scheme)
            for group in reversed(self.groups)
            for target in group.targets
            if (rank := _rank(target, names, classes)) is not None
        ]
        return min(ranked, key=lambda row: row[:2])[2] if ranked else None

    def keeps(self, names: Sequence[str], classes: Sequence[str]) -> str | None:
        """The word by which a layer stays in high precision, if there is one."""
        if self.layout == "compressed-tensors":
            return next((word for word in self.kept if _rank(word, names, classes) is not None), None)
        return next((word for word in self.kept if any(_is_below(word, name) for name in names)), None)


def read_config(content: Mapping[str, Any]) -> Said:
    """What a `quantization_config` of any of the methods says. UnreadableError for what is not served."""
    method = content.get("quant_method")
    if method == "compressed-tensors":
        return _compressed_tensors(content)
    if method == "fp8":
        return _fp8(content)
    raise UnreadableError(f"by {method}" if isinstance(method, str) else "in a way that quant_method does not name")


def understood(content: Any) -> Said | None:
    """The same; None for what is not served."""
    try:
        return read_config(content) if isinstance(content, dict) else None
    except UserError:
        return None


def modelopt_in_our_words(said: Mapping[str, Any], *, has_input_scales: bool) -> dict[str, Any]:
    """What ModelOpt says, in the words of a layout whose names of scales are the same. UnreadableError for more."""
    algorithm = said.get("quant_algo")
    scheme = _ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else None
    if scheme is None:
        raise UnreadableError(f"by ModelOpt's {algorithm}")
    for key in ("kv_cache_quant_algo", "kv_cache_scheme"):
        if said.get(key) not in (None, ""):
            raise _cache(f"{key} is {said[key]}")
    names = _names(said, "exclude_modules") or _names(said, "ignore")
    kept = [f"{_EXPRESSION}{fnmatch.translate(name)}" if set(name) & set("*?[") else name for name in names]
    if algorithm == "FP8" and has_input_scales:
        scheme = Scheme(activations="static")
    return get_layout("compressed-tensors").config(kept, all_linears(scheme))


def _compressed_tensors(content: Mapping[str, Any]) -> Said:
    groups = content.get("config_groups")
    if not (isinstance(groups, dict) and groups):
        raise UnreadableError("with no weights (compressed-tensors)")
    if content.get("kv_cache_scheme") is not None:
        raise _cache("kv_cache_scheme is set")
    for key, what in (("sparsity_config", "weights are sparse"), ("transform_config", "weights are transformed")):
        if content.get(key) not in (None, {}) and not _is_dense(content[key]):
            raise UnreadableError(f"and {what} ({key} of compressed-tensors)")
    read = tuple(_group(name, group, content.get("format")) for name, group in groups.items())
    return Said(layout="compressed-tensors", groups=read, kept=_names(content, "ignore"))


def _group(name: str, group: Any, format: Any) -> Group:
    """One of config_groups; `format` in it, where it stands, goes before that of the whole."""
    if not isinstance(group, dict):
        raise UnreadableError(f"by a config group {name} that is no table (compressed-tensors)")
    targets = group.get("targets", [EVERY_LINEAR])
    if not (isinstance(targets, list) and targets and all(isinstance(target, str) for target in targets)):
        raise UnreadableError(f"by a config group {name} without targets (compressed-tensors)")
    scheme = _scheme(group)
    own = group.get("format")
    stated = own if own is not None else format
    if scheme is None:
        raise UnreadableError(f"with {describe_group(group)} (compressed-tensors)", targets)
    if stated not in _FLOAT_FORMATS or (format not in _FLOAT_FORMATS and format != _MIXED):
        named = f"{name} in {own}" if own is not None else f"{name} in no format of its own"
        raise UnreadableError(f"in the format {format}, {named} (compressed-tensors)", targets)
    return Group(targets=tuple(targets), scheme=scheme)


def _scheme(group: Mapping[str, Any]) -> Scheme | None:
    """The scheme of a group; None if it is not one that is served."""
    weights, inputs = group.get("weights"), group.get("input_activations")
    if (
        not _is_fp8(weights)
        or weights.get("dynamic", False) is not False
        or group.get("output_activations") is not None
    ):
        return None
    weight = _reach(weights, WEIGHT_STRATEGIES)
    if weight is None or (weight == BLOCK.name and weights.get("block_structure") != BLOCK_SIZE):
        return None
    if inputs is None:
        return Scheme(weight=weight, activations="none")
    reach = _reach(inputs, INPUT_STRATEGIES) if _is_fp8(inputs) else None
    if reach is None or (reach == BLOCK.name and inputs.get("group_size") != BLOCK_SIDE):
        return None
    if inputs.get("dynamic", False) is True:
        return Scheme(weight=weight, input=reach)
    is_static = inputs.get("dynamic", False) is False and reach == "tensor"
    return Scheme(weight=weight, activations="static") if is_static else None


def _is_fp8(args: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether these arguments of a quantization mean symmetric FP8."""
    wanted = {"num_bits": 8, "type": "float"}
    if not isinstance(args, dict) or any(args.get(key) != value for key, value in wanted.items()):
        return False
    return args.get("symmetric", True) is True


def _reach(args: Mapping[str, Any], strategies: Mapping[str, str]) -> str | None:
    """How far a scale reaches, by the word for it; no word means a tensor's in no version of theirs."""
    return next((ours for ours, theirs in strategies.items() if args.get("strategy") == theirs), None)


def _fp8(content: Mapping[str, Any]) -> Said:
    scheme, size = content.get("activation_scheme"), content.get("weight_block_size")
    if size not in (None, BLOCK_SIZE) or isinstance(size, str):
        raise UnreadableError(f"with one FP8 scale a block of {size} (fp8)")
    if content.get("expert_dtype", "fp8") != "fp8" or content.get("modules_to_convert"):
        raise UnreadableError("with experts or embeddings that are no layers of e4m3fn (fp8)")
    if content.get("kv_cache_scheme") is not None:
        raise _cache(f"kv_cache_scheme is {content['kv_cache_scheme']}")
    if scheme not in ("dynamic", "static"):
        raise UnreadableError(f"by fp8 with an activation_scheme of {scheme!r}")
    reach = "tensor" if size is None else BLOCK.name
    read = Scheme(weight=reach, activations=scheme, input=reach)
    kept = _names(content, "modules_to_not_convert") or _names(content, "ignored_layers")
    return Said(layout="hf-fp8" if size is not None else "vllm-fp8", groups=tuple(all_linears(read)), kept=kept)


def _names(content: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of names; anything else says nothing."""
    names = content.get(key)
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _is_dense(words: Any) -> bool:
    return isinstance(words, dict) and words.get("format") == "dense"


def _cache(what: str) -> UserError:
    return UserError(
        f"its cache of keys and values is quantized, and here it is not ({what}): take that word out of the config to "
        "have the cache in the model's dtype"
    )


def is_target(target: str, name: str, classes: Sequence[str]) -> bool:
    """Whether a target of compressed-tensors means this module."""
    return _rank(target, [name], classes) is not None


def _rank(target: str, names: Sequence[str], classes: Sequence[str]) -> int | None:
    """How narrowly a target of compressed-tensors names a layer, 0 for its own name; None if it does not."""
    if target.startswith(_EXPRESSION):
        return 1 if any(_matches(target.removeprefix(_EXPRESSION), name) for name in names) else None
    return 0 if target in names else 2 if target in classes else None


def _is_below(word: str, name: str) -> bool:
    """Whether transformers takes a word of modules_to_not_convert for this module."""
    return name.endswith(word) or _matches(f"(?:{word}){_BOUNDARY}", name)


def _matches(expression: str, name: str) -> bool:
    try:
        return re.match(expression, name) is not None
    except re.error as error:
        raise UserError(
            f"config.json names layers by {expression!r}, which is no regular expression: {error}"
        ) from error


_REACH_WORDS = {"channel": "one scale a row", "block": "one scale a block", "group": "one scale a group"}
_REACH_WORDS |= {"tensor": "one scale a tensor", "tensor_group": "one scale a group"}


def describe_group(group: Mapping[str, Any]) -> str:
    """What a group of compressed-tensors says, in words."""
    parts = (group.get("weights"), group.get("input_activations"))
    weights, inputs = (part if isinstance(part, dict) else {} for part in parts)
    unlike = [] if weights.get("symmetric", True) is True else ["asymmetric "]
    words = f"{_REACH_WORDS.get(str(weights.get('strategy')), 'unknown scales')} of {''.join(unlike)}"
    words += f"{weights.get('num_bits')!r}-bit {weights.get('type', 'unknown')} weights"
    if weights.get("strategy") == "block":
        words += f" ({weights.get('block_structure')})"
    return words + (" and one a token of the inputs" if inputs.get("strategy") == "token" else "")


def input_words(scheme: Scheme) -> str:
    """What becomes of a layer's input."""
    if scheme.activations == "none":
        return "as they are"
    if scheme.activations == "static":
        return "by the file's scale"
    return "amax" if scheme.input == "tensor" else f"amax:{scheme.input}"
