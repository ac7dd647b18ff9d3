"""FP8 checkpoints on disk. Oracles: the codes and scales that `convert` makes; safetensors' and others' own readers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import TINY, tiny_llama, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.quantize import INDEX, find_shards
from octoscale.checkpoints.settings import Quantization
from octoscale.checkpoints.writer import Entry, writing
from octoscale.models.export import run_quantization


def save(name: str, folder: Path, **options) -> Path:
    """A tiny model as transformers saves it, in bfloat16, with a tokenizer."""
    TINY[name]().to(torch.bfloat16).save_pretrained(folder, **options)
    byte_tokenizer().save_pretrained(folder)
    return folder


def quantized(source: Path, out: Path, **words) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint that the command would write."""
    run_quantization(Quantization(model=str(source), **words), out)
    return {name: tensor for shard in find_shards(out) for name, tensor in load_file(shard).items()}


def casts(source: Path, recipe: Recipe) -> dict[str, octoscale.Quantized]:
    """Module -> the cast of its weight, in the model that is converted in memory."""
    model = octoscale.load(str(source)).model
    octoscale.convert(model, recipe)
    with torch.no_grad():
        model(tokens())
    return {n: m.fp8.runtime.weight[1] for n, m in model.named_modules() if isinstance(m, octoscale.Fp8Linear)}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.mark.parametrize("scaling", ["amax", "amax:margin=2", "cscale:3"])
@pytest.mark.parametrize("name", TINY)
def test_codes_and_scales_are_those_of_the_converted_model(name, scaling, tmp_path):
    source = save(name, tmp_path / "model")
    found = quantized(source, tmp_path / "out", scaling=scaling)
    expected = casts(source, octoscale.numerics.recipe.parse_scaling(scaling))
    assert len(expected) == {"gpt2": 8, "llama": 14}[name]
    for module, cast in expected.items():
        assert same_bits(found.pop(f"{module}.weight"), cast.codes)
        assert found.pop(f"{module}.weight_scale").tolist() == [2.0 ** -int(cast.scale_bias)]
    before = load_file(source / "model.safetensors")
    assert found.keys() == {key for key in before if key.removesuffix(".weight") not in expected}
    assert all(same_bits(found[key], before[key]) for key in found)


def test_a_sharded_checkpoint_stays_sharded(tmp_path):
    """Oracle: the same model in one file."""
    whole = quantized(save("llama", tmp_path / "one"), tmp_path / "one-fp8")
    source = save("llama", tmp_path / "many", max_shard_size="20kB")
    parts = quantized(source, tmp_path / "many-fp8")
    assert len(find_shards(tmp_path / "many-fp8")) == len(find_shards(source)) > 2
    assert all(same_bits(parts[key], whole[key]) for key in whole)
    index = json.loads((tmp_path / "many-fp8" / INDEX).read_text())
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())


@pytest.mark.parametrize(
    ("layout", "suffixes", "shape"),
    [
        ("compressed-tensors", ("weight_scale", "input_scale"), (1,)),
        ("vllm-fp8", ("weight_scale", "input_scale"), ()),
        ("hf-fp8", ("weight_scale_inv", "activation_scale"), ()),
    ],
)
def test_layouts_have_their_names_and_shapes(layout, suffixes, shape, tmp_path):
    words = {"scaling": "cscale:2", "activations": "static", "layout": layout}
    found = quantized(save("llama", tmp_path / "model"), tmp_path / "out", **words)
    module = "model.layers.1.mlp.down_proj"
    for suffix in suffixes:
        scale = found[f"{module}.{suffix}"]
        assert (scale.dtype, tuple(scale.shape), scale.item()) == (torch.float32, shape, 0.25)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "lm_head" in json.dumps(config["quantization_config"])
    assert config["octoscale"]["layout"] == layout


@pytest.mark.parametrize("activations", ["dynamic", "static", "none"])
def test_compressed_tensors_reads_its_layout(activations, tmp_path):
    """Oracle: its own config class, which forbids unknown keys, and its own decompression: exact for powers of two."""
    library = pytest.importorskip("compressed_tensors")
    source = save("llama", tmp_path / "model")
    (tmp_path / "text.txt").write_text("abcdefgh" * 8)
    words = {"activations": activations, "calibrate": str(tmp_path / "text.txt"), "tokens": 64, "window": 16}
    found = quantized(source, tmp_path / "out", **words)
    content = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    config = library.QuantizationConfig.model_validate({k: v for k, v in content.items() if k != "quant_method"})
    scheme = config.config_groups["group_0"]
    inputs = scheme.input_activations
    assert {"none": inputs is None, "dynamic": bool(inputs and inputs.dynamic), "static": bool(inputs)}[activations]
    name = "model.layers.0.self_attn.q_proj"
    weight, scale = found[f"{name}.weight"], found[f"{name}.weight_scale"]
    theirs = library.quantization.lifecycle.forward.dequantize(weight, scale, args=scheme.weights, dtype=torch.float32)
    assert torch.equal(theirs, casts(source, Recipe.amax())[name].dequantize(torch.float32))


def test_static_scales_hold_the_largest_input_of_the_text(tmp_path):
    """Oracle: the inputs of every layer, looked at by hooks, in the unconverted model on the same windows."""
    source = save("llama", tmp_path / "model")
    (tmp_path / "text.txt").write_text("abcdefgh" * 8)
    words = {"activations": "static", "calibrate": str(tmp_path / "text.txt"), "tokens": 64, "window": 32}
    found = quantized(source, tmp_path / "out", **words)
    loaded = octoscale.load(str(source))
    largest = {}
    for name, module in loaded.model.named_modules():
        if f"{name}.input_scale" in found:
            look = lambda _, args, name=name: largest.setdefault(name, []).append(args[0].abs().max().item())  # noqa: E731
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        for window in octoscale.token_windows("abcdefgh" * 8, loaded.encode, window=32):
            loaded.model(window[None])
    assert len(largest) == 14
    for name, amax in largest.items():
        scale = found[f"{name}.input_scale"].item()
        assert 448 / 2 < max(amax) / scale <= 448


def test_tied_scales_are_the_safest_of_those_that_are_fused(tmp_path):
    """Oracle: by hand: q, k, v have the smallest of their three scale_bias, gate and up of their two."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight.mul_(16)
    model.save_pretrained(tmp_path / "model")
    apart = quantized(tmp_path / "model", tmp_path / "apart")
    tied = quantized(tmp_path / "model", tmp_path / "tied", tie_fused=True)
    parent = "model.layers.0.self_attn"
    scales = [tied[f"{parent}.{leaf}_proj.weight_scale"].item() for leaf in "qkv"]
    assert scales == [max(apart[f"{parent}.{leaf}_proj.weight_scale"].item() for leaf in "qkv")] * 3
    assert not same_bits(tied[f"{parent}.q_proj.weight"], apart[f"{parent}.q_proj.weight"])
    assert same_bits(tied[f"{parent}.o_proj.weight"], apart[f"{parent}.o_proj.weight"])


# Stopped runs


def test_a_killed_run_leaves_no_checkpoint_and_goes_on(tmp_path):
    """Oracle: the run that was not killed; the shards that were whole are not written again."""
    source = save("llama", tmp_path / "model", max_shard_size="20kB")
    whole = quantized(source, tmp_path / "whole")
    code = f"""
import os, signal
from pathlib import Path
from octoscale.checkpoints import quantize
from octoscale.models.export import run_quantization
from octoscale.checkpoints.settings import Quantization
write, calls = quantize._write_shard, []
def stop(*args):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*args)
quantize._write_shard = stop
run_quantization(Quantization(model={str(source)!r}), Path({str(tmp_path / "out")!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(octoscale.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "out").exists()
    hidden = tmp_path / ".out.tmp"
    kept = {path.name: path.stat().st_mtime_ns for path in hidden.glob("*.safetensors")}
    assert len(kept) == 2
    with pytest.raises(ValueError, match="was begun with other options"):
        run_quantization(Quantization(model=str(source), scaling="cscale:1"), tmp_path / "out", resume=True)
    run_quantization(Quantization(model=str(source)), tmp_path / "out", resume=True)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept} == kept
    assert not hidden.exists()
    again = {name: tensor for shard in find_shards(tmp_path / "out") for name, tensor in load_file(shard).items()}
    assert all(same_bits(again[name], whole[name]) for name in whole)


# What cannot be


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"scaling": "bf16"}, "scaling bf16 is no FP8: there is nothing to quantize"),
        *(
            (
                {"scaling": "amax:formats=fnuz", "granularity": granularity},
                "weights in e4m3fnuz: checkpoints hold e4m3fn",
            )
            for granularity in ("tensor", "row", "block")
        ),
        ({"scaling": "amax:row,formats=fnuz"}, "weights in e4m3fnuz: checkpoints hold e4m3fn, leave formats= out"),
        ({"skip": ["nosuch"]}, "skip pattern 'nosuch' matches no linear layer"),
    ],
)
def test_a_request_that_cannot_be_met_writes_nothing(words, message, tmp_path):
    source = save_tiny_llama(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        run_quantization(Quantization(model=str(source), **words), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"layout": "gguf"}, "unknown layout 'gguf': one of compressed-tensors, vllm-fp8, hf-fp8"),
        ({"activations": "int8"}, "unknown activations 'int8': one of dynamic, static, none"),
        ({"layout": "hf-fp8", "activations": "none"}, "the layout hf-fp8 has no weight-only form"),
    ],
)
def test_words_that_mean_nothing(words, message):
    with pytest.raises(ValueError, match=message):
        Quantization(model="any", **words)


def test_a_folder_that_is_there_is_kept(tmp_path):
    source = save_tiny_llama(tmp_path / "model")
    with pytest.raises(ValueError, match="is the checkpoint that is read: choose another folder"):
        run_quantization(Quantization(model=str(source)), source)
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists already: choose another folder"):
        run_quantization(Quantization(model=str(source)), tmp_path / "out")


def test_a_model_of_random_weights_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="gpt-111m is no checkpoint of safetensors"):
        run_quantization(Quantization(model="gpt-111m"), tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "model.bin", 7])
def test_an_index_that_points_elsewhere_is_refused(name, tmp_path):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match=r"a shard is a \.safetensors file in the same folder"):
        find_shards(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none_is_refused(content, tmp_path):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ValueError, match="is no index of shards"):
        find_shards(tmp_path)


def test_a_shard_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        find_shards(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "b.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"names b\.safetensors, which is missing"):
        find_shards(tmp_path)


# The file format


def test_a_written_file_is_read_by_the_library(tmp_path):
    """Oracle: safetensors reads every dtype and shape back, an empty tensor and one without dimensions too."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool)
    values = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in dtypes}
    values |= {
        "codes": torch.arange(8.0).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(2.0),
        "none": torch.empty(0, 3),
    }
    values["view"] = torch.arange(6).reshape(2, 3).t()
    names = {torch.float8_e4m3fn: "F8_E4M3"} | dict(
        zip(dtypes, ("F32", "BF16", "F16", "I64", "I32", "U8", "BOOL"), strict=True)
    )
    entries = {key: Entry(dtype=names[x.dtype], shape=tuple(x.shape)) for key, x in values.items()}
    with writing(tmp_path / "x.safetensors", entries) as add:
        for key, value in values.items():
            add(key, value)
    read = load_file(tmp_path / "x.safetensors")
    assert all(read[key].dtype == x.dtype and torch.equal(read[key].float(), x.float()) for key, x in values.items())
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_promise_is_kept(tmp_path):
    entries = {"a": Entry(dtype="F32", shape=(2,))}
    with pytest.raises(ValueError, match="promised was a"), writing(tmp_path / "x", entries) as add:
        add("b", torch.zeros(2))
    missing = pytest.raises(ValueError, match="1 tensors were promised and not written, the first a")
    with missing, writing(tmp_path / "x", entries):
        pass


@pytest.mark.parametrize("scaling", ["amax", "cscale:3"])
@pytest.mark.parametrize("tie_fused", [False, True])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_weight_that_is_not_finite_is_named_and_nothing_is_written(value, tie_fused, scaling, tmp_path):
    model = tiny_llama().bfloat16()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = value
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj.weight holds infinity or NaN"):
        quantized(tmp_path / "model", tmp_path / "out", scaling=scaling, tie_fused=tie_fused)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_copied_and_not_finite_is_named(tmp_path):
    """A mask may hold infinity: it is the user's. Oracle: the names of the tensors that were spoiled."""
    model = tiny_llama().bfloat16()
    model.model.norm.weight.data[0] = float("nan")
    model.model.embed_tokens.weight.data[3, 4] = -float("inf")
    model.save_pretrained(tmp_path / "model", max_shard_size="20kB")
    words = Quantization(model=str(tmp_path / "model"))
    done = run_quantization(words, tmp_path / "out")
    assert done["copied_with_infinity_or_nan"] == ["model.embed_tokens.weight", "model.norm.weight"]
    tiny_llama().bfloat16().save_pretrained(tmp_path / "good")
    assert "copied_with_infinity_or_nan" not in run_quantization(
        Quantization(model=str(tmp_path / "good")), tmp_path / "good-fp8"
    )


def test_an_adapter_is_no_checkpoint(tmp_path):
    """transformers would load its base from elsewhere, and add it: not the weights that lie here."""
    source = save_tiny_llama(tmp_path / "model")
    (source / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds an adapter \(adapter_config.json\): merge it into its base"):
        run_quantization(Quantization(model=str(source)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_weight_of_zeros_has_no_voice_in_a_tied_scale(tmp_path):
    """Oracle: the scales without ties; q and k keep the smaller of theirs, and three times zero gives 1."""
    model = tiny_llama(initializer_range=1e-3).bfloat16()
    for name in ("v_proj", "q_proj", "k_proj"):
        model.model.layers[1].self_attn.get_submodule(name).weight.data.zero_()
    model.model.layers[0].self_attn.v_proj.weight.data.zero_()
    model.save_pretrained(tmp_path / "model")
    own = quantized(tmp_path / "model", tmp_path / "own")
    tied = quantized(tmp_path / "model", tmp_path / "tied", tie_fused=True)
    scale = "model.layers.{}.self_attn.{}_proj.weight_scale"
    voices = [own[scale.format(0, name)].item() for name in "qk"]
    assert {tied[scale.format(0, name)].item() for name in "qkv"} == {max(voices)}
    assert max(voices) < 1e-3
    assert {tied[scale.format(1, name)].item() for name in "qkv"} == {1.0}


def test_stacked_experts_and_routers_are_listed_by_the_names_in_the_files(tmp_path):
    """Oracle: the files themselves: every matrix that is not in FP8 and no embedding."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MixtralConfig(vocab_size=96, num_hidden_layers=2, num_local_experts=2, **sizes)
    MixtralForCausalLM(config).bfloat16().save_pretrained(tmp_path / "model")
    found = quantized(tmp_path / "model", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    high = {name.removesuffix(".weight") for name, x in found.items() if x.dtype == torch.bfloat16 and x.ndim == 2}
    assert high - set(content["ignore"]) == {"model.embed_tokens"}
    assert "model.layers.1.mlp.experts" in content["ignore"]


def test_a_checkpoint_without_a_tensor_is_named(tmp_path):
    source = save_tiny_llama(tmp_path / "llama")
    tensors = load_file(source / "model.safetensors")
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"^the checkpoint {source} lacks 1 of the model's tensors: model.embed"):
        run_quantization(Quantization(model=str(source)), tmp_path / "out")
