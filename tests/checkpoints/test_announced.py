"""What a folder says of its FP8 weights. Oracles: the same folder with its own config; the words of the error."""

import json

import pytest
import torch
from checkpoints import save_tiny_llama
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import octoscale
from octoscale.checkpoints.announced import describe
from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.checkpoints.settings import Quantization
from octoscale.layers.layouts import LAYOUTS, get_layout, scheme_of
from octoscale.models.export import run_quantization

IDS = torch.arange(1, 12)[None]


@pytest.fixture
def source(tmp_path):
    return save_tiny_llama(tmp_path / "model")


def edit(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def fp8(source, **words):
    out = source.parent / "fp8"
    run_quantization(Quantization(model=str(source), window=16, tokens=64, **words), out)
    return out


@torch.no_grad()
def logits(folder):
    return octoscale.load(str(folder)).model(IDS).logits


COMMANDS = {
    "validate": ("validate", "{}", "--tokens", "32", "--window", "16"),
    "sweep": ("sweep", "{}", "--tokens", "32", "--window", "16"),
    "generate": ("generate", "{}", "--prompt", "x"),
    "train": ("train", "{}", "--steps", "1", "--window", "16"),
    "quantize": ("quantize", "{}", "again"),
    "inspect": ("inspect", "{}"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_that_nothing_announces_are_refused_everywhere(layout, command, source, run):
    folder = fp8(source, layout=layout)
    edit(folder, quantization_config=None, octoscale=None)
    code, out, err = run(*(word.format(folder) for word in COMMANDS[command]))
    assert (code, out) == (2, "")
    (line,) = (line for line in err.splitlines() if "error" in line)
    assert "is F8_E4M3, and config.json does not say how it is scaled" in line
    assert not (source.parent / "again").exists()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_each_format_of_codes_is_named(dtype, source):
    content = load_file(source / "model.safetensors")
    content["model.layers.1.mlp.up_proj.weight"] = content["model.layers.1.mlp.up_proj.weight"].to(dtype)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    name = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]
    with pytest.raises(
        octoscale.models.loading.ModelError, match=rf"up_proj.weight in model.safetensors is {name}, and config"
    ):
        octoscale.load(str(source))


@pytest.mark.parametrize("where", ["its own file", "config.json"])
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_modelopts_fp8_is_read_with_its_scales(activations, where, source):
    folder = fp8(source, layout="vllm-fp8", activations=activations)
    expected = logits(folder)
    said = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    if where == "config.json":
        edit(folder, quantization_config={"quant_method": "modelopt", **said}, octoscale=None)
    else:
        edit(folder, quantization_config=None, octoscale=None)
        (folder / "hf_quant_config.json").write_text(
            json.dumps({"producer": {"name": "modelopt"}, "quantization": said})
        )
    assert torch.equal(logits(folder), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"quantization": {"quant_algo": "NVFP4"}}', "by ModelOpt's NVFP4"),
        ("{", "hf_quant_config.json is damaged"),
        ("[]", "hf_quant_config.json is damaged"),
        ('{"quantization": 3}', "not a table of words"),
    ],
)
def test_what_modelopt_says_otherwise_is_named(text, message, source):
    (source / "hf_quant_config.json").write_text(text)
    with pytest.raises(octoscale.models.loading.ModelError, match=message):
        octoscale.load(str(source))


WEIGHTS = {"num_bits": 8, "type": "float", "symmetric": True}
FOREIGN = {
    "FP8_DYNAMIC": (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": {**WEIGHTS, "strategy": "channel"},
                    "input_activations": {**WEIGHTS, "strategy": "token", "dynamic": True},
                }
            },
        },
        "one scale a row of 8-bit weights and one a token of the inputs (compressed-tensors)",
    ),
    "FP8_BLOCK": (
        {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": {**WEIGHTS, "strategy": "block", "block_structure": [128, 128]},
                    "input_activations": None,
                }
            },
        },
        "one scale a block of 8-bit weights (compressed-tensors)",
    ),
    "transformers' blocks": (
        {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
        "one FP8 scale a block of [128, 128] (fp8)",
    ),
    "gptq": ({"quant_method": "gptq", "bits": 4}, "by gptq"),
    "nothing": ({}, "by in an unknown way"),
}


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "nothing"])
def test_other_quantizations_are_named_with_what_can_be_done(name, source, run):
    content, words = FOREIGN[name]
    edit(source, quantization_config=content)
    assert words in describe(content) or words in f"with {describe(content)}"
    for command in COMMANDS.values():
        code, _, err = run(*(word.format(source) for word in command))
        assert code == 2
        assert "its weights are quantized" in err
        assert "let vLLM or transformers run this folder" in err


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("words", [{}, {"quantization_config": OctoscaleConfig("amax")}])
def test_transformers_itself_refuses_codes_that_nothing_announces(dtype, words, source):
    """Once octoscale.hf is imported; before, it read them as values."""
    content = load_file(source / "model.safetensors")
    content["model.layers.1.mlp.up_proj.weight"] = content["model.layers.1.mlp.up_proj.weight"].to(dtype)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"up_proj.weight in .*model.safetensors is F8_E[45]M[32], and config.json"):
        AutoModelForCausalLM.from_pretrained(source, **words)


def test_codes_of_layers_that_the_model_does_not_have_are_passed_over(source):
    """As transformers passes over their values."""
    content = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    content[name] = content[name].to(torch.float8_e4m3fn)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    assert AutoModelForCausalLM.from_pretrained(source, num_hidden_layers=1).config.num_hidden_layers == 1


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_integers_in_the_place_of_weights_are_refused(dtype, source):
    content = load_file(source / "model.safetensors")
    content["model.layers.1.mlp.up_proj.weight"] = content["model.layers.1.mlp.up_proj.weight"].to(dtype)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    name = {torch.int8: "I8", torch.uint8: "U8", torch.int32: "I32"}[dtype]
    with pytest.raises(
        octoscale.models.loading.ModelError, match=rf"up_proj.weight is {name} in .*, and config.json does not"
    ):
        octoscale.load(str(source))
    with pytest.raises(ValueError, match=rf"up_proj.weight is {name} in "):
        run_quantization(Quantization(model=str(source)), source.parent / "out")


JUNK = [None, 7.5, -3, 0, 10**9, "abc", "", [1, None], [], {}, {"a": {"b": [1]}}, True, False, [[[{}]]]]


def places(content, way=()):
    for key, value in content.items():
        yield (*way, key)
        if isinstance(value, dict):
            yield from places(value, (*way, key))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_no_wrong_value_of_a_quantization_config_is_guessed_at(activations, layout):
    """Oracle: the words of the layouts: static and dynamic differ in one word of them, or nothing is understood.

    `dynamic: "no"` is not true, and inputs of no scales at all are not `[]`.
    """
    content = get_layout(layout).config(["lm_head"], activations)
    assert scheme_of(content) == activations
    legal = {("activation_scheme",), ("quant_method",)}
    for way in places(content):
        for junk in JUNK:
            changed = json.loads(json.dumps(content))
            inner = changed
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = junk
            found = scheme_of(changed)
            describe(changed)  # in words, whatever it says
            if way[-1] == "dynamic" and "input_activations" in way and isinstance(junk, bool):
                assert found == ("dynamic" if junk else "static")
            elif way[-1] == "input_activations" and junk is None:
                assert found == "none"
            else:
                assert found in (activations, None), f"{way} is {junk!r}"
            if way in legal or way[-1] in ("strategy", "num_bits", "type", "format", "config_groups", "weights"):
                is_default = junk is None and way[-1] == "format" and len(way) > 1
                assert found is None or is_default, f"{way} is {junk!r}"


@pytest.mark.parametrize("value", [None, 3, "fp9", ["amax"], {}])
def test_a_wrong_scaling_of_our_own_is_named(value, source):
    folder = fp8(source)
    own = json.loads((folder / "config.json").read_text())["octoscale"]
    edit(folder, octoscale={**own, "scaling": value})
    with pytest.raises(octoscale.models.loading.ModelError, match=r"config.json: octoscale.scaling is "):
        octoscale.load(str(folder))
