"""What a folder says of its FP8 weights. Oracles: the same folder with its own config; the words of the error."""

import json

import pytest
import torch
from checkpoints import save_tiny_llama
from foreign import TOKENS, compressed, group
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import octoscale
from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.checkpoints.settings import Quantization
from octoscale.layers.layouts import LAYOUTS
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


@pytest.mark.parametrize("where", ["its own file", "config.json", "nested in config.json"])
@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_modelopts_fp8_is_read_with_its_scales(activations, where, source):
    folder = fp8(source, layout="vllm-fp8", activations=activations)
    expected = logits(folder)
    said = {"quant_algo": "FP8", "kv_cache_quant_algo": None, "exclude_modules": ["lm_head"]}
    if where == "config.json":
        edit(folder, quantization_config={"quant_method": "modelopt", **said}, octoscale=None)
    elif where == "nested in config.json":
        said["kv_cache_quant_algo"] = ""
        edit(folder, quantization_config={"quant_method": "modelopt", "quantization": said}, octoscale=None)
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
        ('{"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}', "kv_cache_quant_algo is FP8"),
        ("{", "hf_quant_config.json is damaged"),
        ("[]", "hf_quant_config.json is damaged"),
        ('{"quantization": 3}', "not a table of words"),
    ],
)
def test_what_modelopt_says_otherwise_is_named(text, message, source):
    (source / "hf_quant_config.json").write_text(text)
    with pytest.raises(octoscale.models.loading.ModelError, match=message):
        octoscale.load(str(source))


FOREIGN = {
    "W4A16": (
        compressed(
            group({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}, None), format="pack-quantized"
        ),
        "one scale a group of 4-bit int weights (compressed-tensors)",
    ),
    "other blocks": (
        {"quant_method": "fp8", "weight_block_size": [64, 64], "activation_scheme": "dynamic"},
        "one FP8 scale a block of [64, 64] (fp8)",
    ),
    "gptq": ({"quant_method": "gptq", "bits": 4}, "by gptq"),
    "nothing": ({}, "in a way that quant_method does not name"),
    "other words for a method": ({"quant_method": 8}, "in a way that quant_method does not name"),
    "a text for a number": (
        compressed(group({"num_bits": "8", "strategy": "tensor"}, None)),
        "one scale a tensor of '8'-bit float weights (compressed-tensors)",
    ),
    "mixed, and of what": (
        compressed(group({"strategy": "channel"}, TOKENS), format="mixed-precision"),
        "in the format mixed-precision, group_0 in no format of its own (compressed-tensors)",
    ),
    "a format of integers": (
        compressed(group({"strategy": "channel"}, TOKENS), format="int-quantized"),
        "in the format int-quantized, group_0 in no format of its own (compressed-tensors)",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_quantizations_are_named_with_what_can_be_done(name, source, run):
    content, words = FOREIGN[name]
    edit(source, quantization_config=content)
    for command in COMMANDS.values():
        code, _, err = run(*(word.format(source) for word in command))
        assert code == 2
        assert f"its weights are quantized {'with ' * words.startswith('one')}{words}: here, weights are e4m3fn" in err
        assert "let vLLM or transformers run this folder" in err


def test_a_layer_that_is_quantized_otherwise_is_named(source, run):
    """Of a file with two groups, one of which is of 4 bits."""
    four = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
    groups = (group({"strategy": "channel"}, TOKENS), group(four, None, (r"re:.*down_proj$",)))
    edit(source, quantization_config=compressed(*groups))
    content = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    content[f"{name}.weight_packed"] = content.pop(f"{name}.weight").to(torch.int32)
    save_file(content, source / "model.safetensors", {"format": "pt"})
    code, _, err = run("inspect", source)
    assert code == 2
    assert f"one scale a group of 4-bit int weights (compressed-tensors), as {name} is: here" in err


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


@pytest.mark.parametrize("value", [None, 3, "fp9", ["amax"], {}, "amax:formats=fnuz", "amax:row,formats=fnuz"])
def test_a_wrong_scaling_of_our_own_is_named(value, source):
    folder = fp8(source)
    own = json.loads((folder / "config.json").read_text())["octoscale"]
    edit(folder, octoscale={**own, "scaling": value})
    with pytest.raises(octoscale.models.loading.ModelError, match=r"config.json: octoscale.scaling is "):
        octoscale.load(str(folder))
