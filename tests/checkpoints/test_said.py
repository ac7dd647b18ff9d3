"""What a quantization_config says of each layer. Oracles: how compressed-tensors and transformers match names."""

import json

import pytest
from foreign import BITS, BLOCKS, CHANNEL, GROUPS, KINDS, STATIC, TENSOR, TOKENS, compressed, group
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from octoscale.checkpoints.said import modelopt_in_our_words, read_config, understood
from octoscale.layers.layouts import LAYOUTS, get_layout
from octoscale.layers.schemes import Group, Scheme, all_linears
from octoscale.system.errors import UserError

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
LINEAR = ["Linear", "Module", "object"]


def only(content):
    (scheme,) = {each.scheme for each in read_config(content).groups}
    return scheme


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (compressed(group(CHANNEL, TOKENS)), Scheme(weight="row", input="row")),
        (compressed(group(BLOCKS, GROUPS)), Scheme(weight="block", input="block")),
        (compressed(group(BLOCKS, None)), Scheme(weight="block", activations="none")),
        (compressed(group(TENSOR, STATIC)), Scheme(activations="static")),
        (compressed(group(TENSOR, TOKENS)), Scheme(input="row")),
        (compressed(group(CHANNEL, STATIC)), Scheme(weight="row", activations="static")),
        (compressed(group(CHANNEL, TOKENS), format="naive-quantized"), Scheme(weight="row", input="row")),
        (FP8, Scheme()),
        ({**FP8, "activation_scheme": "static"}, Scheme(activations="static")),
        ({**FP8, "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}, Scheme(weight="block", input="block")),
    ],
)
def test_schemes_are_read(content, expected):
    assert only(content) == expected


@pytest.mark.parametrize(
    ("weights", "inputs", "more"),
    [
        ({"num_bits": 4, "strategy": "group", "group_size": 128}, None, {}),
        ({"type": "int", "strategy": "channel"}, TOKENS, {}),
        ({"strategy": "channel", "symmetric": False}, TOKENS, {}),
        ({"strategy": "block", "block_structure": [64, 128]}, GROUPS, {}),
        ({"strategy": "group", "group_size": 128}, GROUPS, {}),
        (CHANNEL, {**GROUPS, "strategy": "token", "dynamic": "local"}, {}),
        (CHANNEL, {**TOKENS, "dynamic": False}, {}),
        (BLOCKS, {**GROUPS, "group_size": 32}, {}),
        (CHANNEL, {**TOKENS, "num_bits": 4}, {}),
        (CHANNEL, TOKENS, {"format": "pack-quantized"}),
        (CHANNEL, TOKENS, {"format": "mixed-precision"}),
        (CHANNEL, TOKENS, {"kv_cache_scheme": BITS}),
        (CHANNEL, TOKENS, {"kv_cache_scheme": "static"}),
        (CHANNEL, TOKENS, {"transform_config": {"config_groups": {"R1": {}}}}),
        (CHANNEL, TOKENS, {"sparsity_config": {"format": "sparse-24-bitmask"}}),
        (CHANNEL, TOKENS, {"ignore": ["re:*"]}),
    ],
)
def test_what_is_not_served_is_refused(weights, inputs, more):
    content = compressed(group(weights, inputs), **more)
    with pytest.raises(UserError, match=r"quantized (with|and|in the format)|its cache of keys|no regular expression"):
        read_config(content).keeps(["model.layers.0.mlp.up_proj"], LINEAR)


def test_output_activations_are_refused():
    one = {**group(CHANNEL, TOKENS), "output_activations": TOKENS}
    assert understood(compressed(one)) is None
    assert understood(compressed({**group(CHANNEL, TOKENS), "format": "float-quantized"}, format="mixed-precision"))


NAMES = [f"model.layers.{n}.{part}" for n in (0, 1, 11) for part in ("self_attn.q_proj", "mlp.gate", "mlp.gate_proj")]


def test_each_layer_has_the_scheme_of_its_own_group():
    """Oracle: compressed-tensors' match_targets, whose first is the one that counts."""
    matching = pytest.importorskip("compressed_tensors.utils.match")
    targets = {
        "Linear": Scheme(weight="row", input="row"),
        r"re:.*q_proj$": Scheme(weight="block", input="block"),
        r"re:model\.layers\.1\.": Scheme(activations="none"),
        "model.layers.1.self_attn.q_proj": Scheme(activations="static"),
        "gate": Scheme(input="row"),
    }
    groups = tuple(Group(targets=(target,), scheme=scheme) for target, scheme in targets.items())
    said = read_config(get_layout("compressed-tensors").config([], groups))
    found = {name: said.scheme_of([name], LINEAR) for name in NAMES}
    expected = {name: targets[matching.match_targets(name, nn.Linear(1, 1), list(targets))[0]] for name in NAMES}
    assert found == expected
    assert len(set(found.values())) == 4
    assert said.scheme_of(["model.norm"], ["LlamaRMSNorm"]) is None


@pytest.mark.parametrize("target", ["Linear", "re:.*gate$", "model.layers.0.mlp.gate"])
def test_of_groups_with_the_same_target_the_last_one_counts(target):
    """Oracle: compressed-tensors itself, which gives layers their schemes."""
    apply = pytest.importorskip("compressed_tensors.quantization").apply_quantization_config
    config = pytest.importorskip("compressed_tensors.quantization").QuantizationConfig
    schemes = (Scheme(weight="row", input="row"), Scheme(weight="block", input="block"))
    words = get_layout("compressed-tensors").config([], [Group(targets=(target,), scheme=one) for one in schemes])
    model = nn.ModuleDict({"model": nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict()])})})
    model["model"]["layers"][0]["mlp"] = nn.ModuleDict({"gate": nn.Linear(128, 128)})
    apply(model, config.model_validate(words))
    theirs = model["model"]["layers"][0]["mlp"]["gate"].quantization_scheme.weights.strategy
    assert theirs == "block"
    assert read_config(words).scheme_of(["model.layers.0.mlp.gate"], LINEAR) == schemes[1]


@pytest.mark.parametrize(
    "word", ["lm_head", "model.layers.1", "layers.1", "gate", "q_proj", "model.layers.*gate", "mlp"]
)
def test_fp8_keeps_what_transformers_keeps(word):
    said = read_config({**FP8, "modules_to_not_convert": [word]})
    same = read_config({**FP8, "ignored_layers": [word]})
    for name in NAMES:
        assert (said.keeps([name], LINEAR) is not None) == (not should_convert_module(name, [word]))
        assert said.keeps([name], LINEAR) == same.keeps([name], LINEAR)


def test_compressed_tensors_keeps_what_it_ignores():
    matching = pytest.importorskip("compressed_tensors.utils.match")
    for word in ("lm_head", "re:.*gate$", "re:layers", "mlp.gate", "model.layers.0.mlp.gate", "Linear"):
        said = read_config(compressed(group(CHANNEL, TOKENS), ignore=(word,)))
        for name in NAMES:
            expected = not matching.is_match(name, nn.Linear(1, 1), "Linear", ignore=[word])
            assert (said.keeps([name], LINEAR) == word) == expected


def test_modelopts_wildcards_are_those_of_a_shell():
    words = modelopt_in_our_words(KINDS["channels of ModelOpt"].content, has_input_scales=False)
    said = read_config(words)
    assert only(words) == Scheme(weight="row", input="row")
    assert said.keeps(["lm_head"], LINEAR) is not None
    assert said.keeps(["model.lm_head"], LINEAR) is None


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activations", ["dynamic", "static", "none"])
@pytest.mark.parametrize("weight", ["tensor", "row", "block"])
@pytest.mark.parametrize("input", ["tensor", "row", "block"])
def test_what_a_layout_writes_is_what_is_read(input, weight, activations, layout):
    """Or the layout says that it has no words for it."""
    scheme = Scheme(weight=weight, activations=activations, input=input)
    is_fp8 = activations == "static" or (activations == "dynamic" and weight == input)
    if layout != "compressed-tensors" and (weight == "row" or not is_fp8):
        with pytest.raises(UserError, match=r"--layout compressed-tensors|--activations dynamic"):
            get_layout(layout).config(["lm_head"], all_linears(scheme))
        return
    content = get_layout(layout).config(["lm_head"], all_linears(scheme))
    assert only(json.loads(json.dumps(content))) == scheme
    assert read_config(content).keeps(["lm_head"], LINEAR) == "lm_head"


def test_what_compressed_tensors_reads_of_it():
    """Oracle: its own config class, which forbids what it does not know."""
    config = pytest.importorskip("compressed_tensors.quantization")
    for weight in ("tensor", "row", "block"):
        for words in ({"input": weight}, {"activations": "none"}):
            content = get_layout("compressed-tensors").config([], all_linears(Scheme(weight=weight, **words)))
            read = config.QuantizationConfig.model_validate(content).config_groups["group_0"]
            assert read.weights.strategy == {"tensor": "tensor", "row": "channel", "block": "block"}[weight]
            if "input" in words:
                assert read.input_activations.dynamic is True
                assert read.input_activations.group_size == (128 if weight == "block" else None)


JUNK = [None, 7.5, -3, 0, 10**9, "abc", "", [1, None], [], {}, {"a": {"b": [1]}}, True, False, [[[{}]]]]


def places(content, way=()):
    for key, value in content.items():
        yield (*way, key)
        if isinstance(value, dict):
            yield from places(value, (*way, key))


#: Where another value means nothing at all, or nothing of FP8.
_SILENT = {"quantization_status", "global_compression_ratio", "ignore", "ignored_layers", "modules_to_not_convert"}
_SILENT |= {"dequantize", "scale_fmt", "actorder", "observer", "observer_kwargs", "targets"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weight", ["tensor", "block"])
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_no_wrong_value_of_a_quantization_config_is_guessed_at(activations, weight, layout):
    """Oracle: the words of the layouts: what is read is what stands there, or what a default means, or nothing."""
    scheme = Scheme(weight=weight, activations=activations, input=weight)
    content = get_layout(layout).config(["lm_head"], all_linears(scheme))
    for way in places(content):
        for junk in JUNK:
            changed = json.loads(json.dumps(content))
            inner = changed
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = junk
            read = understood(changed)
            found = None if read is None else read.groups[0].scheme
            if way[-1] == "dynamic" and "input_activations" in way and isinstance(junk, bool):
                assert found is None or (found.weight, found.activations) == (weight, "dynamic" if junk else "static")
            elif way[-1] == "input_activations" and junk is None:
                assert found == Scheme(weight=weight, activations="none")
            elif way[-1] == "weight_block_size" and junk is None:
                assert found == Scheme(activations=activations)
            else:
                assert found in (scheme, None), f"{way} is {junk!r}"
            if way[-1] in ("strategy", "num_bits", "type", "config_groups", "weights", "quant_method"):
                assert found is None, f"{way} is {junk!r}"
            elif way[-1] in _SILENT and way[-1] != "targets":
                assert found == scheme


def test_a_quantized_cache_is_refused_in_the_words_of_fp8_too():
    """As AutoFP8 wrote it."""
    with pytest.raises(UserError, match="its cache of keys and values is quantized"):
        read_config({**FP8, "kv_cache_scheme": "static"})
