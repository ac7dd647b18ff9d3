"""The transformers integration. Oracles: the model converted in memory; compressed-tensors' own decompression."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import TINY, tiny_llama, tokens
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, pipeline
from transformers.core_model_loading import WeightRenaming

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig, OctoscaleQuantizer, quantize_model
from octoscale.checkpoints.quantize import find_shards
from octoscale.checkpoints.settings import Quantization
from octoscale.layers.layouts import LAYOUTS
from octoscale.layers.stored import StoredLinear
from octoscale.models.export import run_quantization
from octoscale.numerics.recipe import parse_scaling

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


def save(name: str, folder: Path, **options) -> Path:
    changes = options.pop("changes", {})
    TINY[name](**changes).to(torch.bfloat16).save_pretrained(folder, **options)
    return folder


def load(folder: Path, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens()).logits


def converted_logits(folder: Path, recipe: Recipe) -> torch.Tensor:
    model = load(folder)
    octoscale.convert(model, recipe)
    return logits(model)


def stored_layers(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, StoredLinear)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TINY)
def test_quantized_while_loading_saved_and_loaded_again(name, layout, tmp_path):
    source = save(name, tmp_path / "model")
    expected = converted_logits(source, Recipe.amax(margin=1))
    model = load(source, quantization_config=OctoscaleConfig("amax:margin=1", layout=layout))
    assert torch.equal(logits(model), expected)
    model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert len(stored_layers(again)) == {"gpt2": 8, "llama": 14}[name]
    assert torch.equal(logits(again), expected)
    again.save_pretrained(tmp_path / "twice")
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (
        tmp_path / "out" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("scaling", ["amax", "cscale:2"])
def test_a_weight_that_is_not_finite_is_named(scaling, value, tmp_path):
    """While it is loaded, and in memory, where the model stays what it was."""
    model = tiny_llama().bfloat16()
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = value
    model.save_pretrained(tmp_path / "model")
    named = r"^model\.layers\.1\.mlp\.up_proj\.weight holds infinity or NaN: no scale fits it"
    with pytest.raises(ValueError, match=named):
        load(tmp_path / "model", quantization_config=OctoscaleConfig(scaling))
    with pytest.raises(ValueError, match=named):
        quantize_model(model, OctoscaleConfig(scaling))
    assert stored_layers(model) == []
    model = load(tmp_path / "model", quantization_config=OctoscaleConfig(scaling, skip=["layers.1.mlp.up_proj"]))
    assert len(stored_layers(model)) == 13


@pytest.mark.parametrize("scaling", ["amax:formats=fnuz", "amax:row,formats=fnuz"])
def test_a_model_in_other_formats_runs_and_is_not_saved(scaling, tmp_path, caplog):
    """No reader has them. Oracle of what runs: the model converted in memory."""
    source = save("llama", tmp_path / "model")
    model = load(source, quantization_config=OctoscaleConfig(scaling))
    assert torch.equal(logits(model), converted_logits(source, parse_scaling(scaling)))
    with pytest.raises(ValueError, match="is not serializable - check out the warnings"):
        model.save_pretrained(tmp_path / "out")
    assert "this model cannot be saved: weights in e4m3fnuz: checkpoints hold e4m3fn, leave formats= out" in caplog.text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shards", [None, "20kB"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [("gpt2", {}), ("llama", {}), ("llama", {"tie_word_embeddings": True}), ("gpt2", {"tie_word_embeddings": False})],
)
def test_an_exported_file_gives_the_logits_of_the_converted_model(name, changes, shards, layout, tmp_path):
    """Validation parity: bit for bit."""
    source = save(name, tmp_path / "model", changes=changes, **({} if shards is None else {"max_shard_size": shards}))
    run_quantization(Quantization(model=str(source), layout=layout), tmp_path / "out")
    assert (len(find_shards(tmp_path / "out")) > 1) == (shards is not None)
    found = logits(load(tmp_path / "out"))
    assert torch.equal(found, converted_logits(source, Recipe.amax()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_constant_static_scales_are_those_of_cscale(layout, tmp_path):
    source = save("llama", tmp_path / "model")
    words = {"scaling": "cscale:2", "activations": "static", "layout": layout}
    run_quantization(Quantization(model=str(source), **words), tmp_path / "out")
    expected = converted_logits(source, Recipe.cscale(2))
    assert torch.equal(logits(load(tmp_path / "out")), expected)
    assert torch.equal(logits(load(source, quantization_config=OctoscaleConfig(**words))), expected)


_THEIRS = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
with torch.no_grad():
    torch.save(model(torch.arange(12)[None]).logits, sys.argv[2])
"""


def test_compressed_tensors_decompression_gives_the_same_up_to_the_order_of_sums(tmp_path):
    """In a process without octoscale, transformers and compressed-tensors read the file with static scales."""
    pytest.importorskip("compressed_tensors")
    source = save_tiny_llama(tmp_path / "model")
    (tmp_path / "text.txt").write_text("abcdefgh" * 8)
    words = {"activations": "static", "calibrate": str(tmp_path / "text.txt"), "tokens": 64, "window": 16}
    run_quantization(Quantization(model=str(source), **words), tmp_path / "out")
    command = [sys.executable, "-c", _THEIRS, str(tmp_path / "out"), str(tmp_path / "theirs.pt")]
    subprocess.run(command, check=True, capture_output=True)
    with torch.no_grad():
        ours = load(tmp_path / "out", dtype=torch.float32)(torch.arange(12)[None]).logits
    torch.testing.assert_close(ours, torch.load(tmp_path / "theirs.pt"), rtol=1e-6, atol=1e-6)
    assert not torch.equal(ours, converted_logits(source, Recipe.amax())[:1])


def test_weights_stay_in_the_files_own_memory(tmp_path):
    """Oracle: the maps of this process, /proc/self/maps."""
    source = save("llama", tmp_path / "model")
    run_quantization(Quantization(model=str(source)), tmp_path / "out")
    model = load(tmp_path / "out")
    address = model.model.layers[1].mlp.up_proj.weight.data_ptr()
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = [(*(int(part, 16) for part in line.split()[0].split("-")), line) for line in lines]
    line = next(line for start, end, line in ranges if start <= address < end)
    assert line.endswith(str(tmp_path / "out" / "model.safetensors"))


def test_what_is_saved_is_what_others_read(tmp_path):
    model = load(save("llama", tmp_path / "model"), quantization_config=OctoscaleConfig("amax", skip=["down_proj"]))
    model.save_pretrained(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    assert set(config["quantization_config"]["ignore"]) == {
        "lm_head",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    }
    assert config["octoscale"] == {"scaling": "amax", "activations": "dynamic", "layout": "compressed-tensors"}
    assert torch.equal(logits(load(tmp_path / "out")), logits(model))


def test_checkpoints_with_other_granularity_are_left_to_transformers(tmp_path):
    """Oracle: transformers' own config class."""
    from transformers.quantizers.auto import AutoQuantizationConfig

    block = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [64, 64]}
    assert type(AutoQuantizationConfig.from_dict(block)).__name__ == "FineGrainedFP8Config"
    for size in (None, [128, 128]):
        ours = AutoQuantizationConfig.from_dict({**block, "weight_block_size": size})
        assert isinstance(ours, OctoscaleConfig)


#: Sizes that are multiples of a block's side, which layouts other than compressed-tensors want.
WHOLE_BLOCKS = {
    "gpt2": {"n_embd": 128},
    "llama": {"hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4},
}


@pytest.mark.parametrize("layout", ["compressed-tensors", "hf-fp8", "vllm-fp8"])
@pytest.mark.parametrize("name", TINY)
def test_blocks_are_quantized_while_loading_saved_and_loaded_again(name, layout, tmp_path):
    changes = {} if layout == "compressed-tensors" else WHOLE_BLOCKS[name]
    source = save(name, tmp_path / "model", changes=changes)
    expected = converted_logits(source, Recipe.amax(granularity="block"))
    model = load(source, quantization_config=OctoscaleConfig("amax:block", layout=layout))
    assert torch.equal(logits(model), expected)
    model.save_pretrained(tmp_path / "out")
    again = load(tmp_path / "out")
    assert again.config.octoscale["scaling"] == "amax:block"
    assert torch.equal(logits(again), expected)


def test_generate_and_pipeline_work(tmp_path):
    """Oracle: greedy choice from logits, one token after the other, without a cache."""
    source = save_tiny_llama(tmp_path / "model")
    model = load(source, quantization_config=OctoscaleConfig("amax"))
    made = model.generate(torch.tensor([[65, 66, 67]]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    expected = [65, 66, 67]
    for _ in range(4):
        with torch.no_grad():
            expected.append(int(model(torch.tensor([expected]), use_cache=False).logits[0, -1].argmax()))
    assert made[0, :4].tolist() == expected[:4]  # each later one is cast within another tensor
    assert made.shape == (1, 7)
    write = pipeline("text-generation", model=model, tokenizer=byte_tokenizer())
    assert write("ABC", max_new_tokens=2, do_sample=False)[0]["generated_text"].startswith("ABC")


def test_adapters_train_on_stored_weights(tmp_path):
    """Trainer and peft: the loss falls, the codes stay."""
    peft = pytest.importorskip("peft")
    model = load(save("llama", tmp_path / "model"), quantization_config=OctoscaleConfig("amax"), dtype=torch.float32)
    codes = model.model.layers[0].mlp.up_proj.weight.view(torch.uint8).clone()
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    rows = [{"input_ids": ids, "labels": ids} for ids in tokens(batch=4).repeat(8, 1)]
    options = TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=24, learning_rate=0.1, report_to=[], logging_steps=1, use_cpu=True
    )
    trainer = Trainer(model=model, args=options, train_dataset=rows)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < 0.95 * losses[0]
    layer = model.base_model.model.model.layers[0].mlp.up_proj.base_layer
    assert isinstance(layer, StoredLinear)
    assert torch.equal(layer.weight.view(torch.uint8), codes)


def test_dequantize_and_revert_put_plain_layers_back(tmp_path):
    source = save("gpt2", tmp_path / "model")
    for back in (lambda model: model.dequantize(), octoscale.revert):
        model = load(source, quantization_config=OctoscaleConfig("amax"))
        layer = model.transformer.h[0].mlp.c_fc
        expected = (layer.weight.float() * layer.weight_scale).bfloat16()
        back(model)
        assert stored_layers(model) == []
        assert torch.equal(model.transformer.h[0].mlp.c_fc.weight, expected)
        logits(model)


@pytest.mark.parametrize("words", [{"scaling": "bf16"}, {"activations": "sometimes"}, {"layout": "gguf"}])
def test_words_that_mean_nothing_are_refused(words):
    with pytest.raises(ValueError, match="|".join(words.values())):
        OctoscaleConfig(**words)


def test_static_scales_are_not_made_up(tmp_path):
    with pytest.raises(ValueError, match="octoscale quantize --activations static"):
        load(save("llama", tmp_path / "model"), quantization_config=OctoscaleConfig("amax", activations="static"))


def test_foreign_files_without_our_words_are_read(tmp_path):
    """A file as others write it: no key of ours, scales that are no powers of two, bfloat16 scales."""
    source = save("llama", tmp_path / "model")
    run_quantization(Quantization(model=str(source)), tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    tensors = load_file(path)
    tensors = {n: (t * 1.5).bfloat16() if n.endswith("_scale") else t for n, t in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    del config["octoscale"]
    (tmp_path / "out" / "config.json").write_text(json.dumps(config))
    model, plain = load(tmp_path / "out", dtype=torch.float32), tiny_llama()
    for name in stored_layers(model):
        values = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"].float()
        plain.get_submodule(name).weight.data = values
    layer = model.model.layers[0].self_attn.q_proj
    x = torch.randint(-8, 9, (3, 32)).float()  # exact in e4m3fn
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain.model.layers[0].self_attn.q_proj(x), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_layers_that_share_a_weight_never_get_a_scale_from_nowhere(tmp_path):
    """Zamba ties the weights of its attention: the scale of all but one would be memory that nobody wrote."""
    from transformers import ZambaConfig, ZambaForCausalLM

    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    layers = {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2, "n_mamba_heads": 2}
    heads = {"attention_hidden_size": 64, "attention_head_dim": 16, "use_mamba_kernels": False}
    config = ZambaConfig(**sizes, **layers, **heads)
    ZambaForCausalLM(config).bfloat16().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="shares its weight with another layer, and has no scale: leave it out"):
        ZambaForCausalLM.from_pretrained(tmp_path, quantization_config=OctoscaleConfig("amax"))
    kept = OctoscaleConfig("amax", skip=["shared_transf.*"])
    assert ZambaForCausalLM.from_pretrained(tmp_path, quantization_config=kept)


def test_a_scale_that_a_models_own_names_lead_astray_is_no_scale(tmp_path, monkeypatch):
    """transformers would leave memory that nobody wrote in its place, and say so in a warning at most."""
    source = save("llama", tmp_path / "a")
    load(source, quantization_config=OctoscaleConfig("amax")).save_pretrained(tmp_path / "b")
    rule = WeightRenaming(r"o_proj\.weight_scale", "q_proj.weight_scale")
    monkeypatch.setattr(OctoscaleQuantizer, "update_weight_conversions", lambda _, rules, *__: [*rules, rule])
    with pytest.raises(ValueError, match=r"layers\.0\.self_attn\.o_proj\.weight_scale: transformers found no tensor"):
        load(tmp_path / "b")


@pytest.mark.parametrize("part", ["self_attn.o_proj", "mlp.up_proj"])
def test_a_weight_that_the_files_lack_is_not_drawn_and_quantized(part, tmp_path):
    """By transformers' own call, too, which would only warn."""
    source = save("llama", tmp_path / "a")
    path = source / "model.safetensors"
    tensors = load_file(path)
    del tensors[f"model.layers.1.{part}.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"model\.layers\.1\.{part}\.weight: the files hold no tensor for it"):
        load(source, quantization_config=OctoscaleConfig("amax"))
