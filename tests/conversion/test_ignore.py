"""The list of what stays in high precision. Oracles: what the files hold; the rules by which others read a list."""

import json
from pathlib import Path

import pytest
import torch
import transformers as T
from models import EXPERTS, SMALL, T5, tiny_gpt2, tiny_llama
from safetensors import safe_open
from transformers.quantizers.quantizers_utils import should_convert_module

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.checkpoints.quantize import find_shards
from octoscale.checkpoints.settings import Quantization
from octoscale.conversion.convert import preview
from octoscale.conversion.ignore import ignored
from octoscale.layers.layouts import LAYOUTS
from octoscale.models.export import run_quantization

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

MODELS = {
    "llama": tiny_llama,
    "gpt2": tiny_gpt2,
    "mixtral": lambda: T.MixtralForCausalLM(T.MixtralConfig(**SMALL, num_local_experts=4)),
    "qwen2_moe": lambda: T.Qwen2MoeForCausalLM(T.Qwen2MoeConfig(**EXPERTS, shared_expert_intermediate_size=32)),
    "gpt_oss": lambda: T.GptOssForCausalLM(T.GptOssConfig(**SMALL, num_local_experts=4, head_dim=8)),
    "mamba": lambda: T.MambaForCausalLM(T.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2)),
    "t5": lambda: T.T5ForConditionalGeneration(T.T5Config(**T5, decoder_start_token_id=0)),
}
#: What vLLM asks of the list, by its own names of modules, and must find.
ASKED_BY_VLLM = {
    "mixtral": ["block_sparse_moe.gate", *(f"block_sparse_moe.experts.0.{p}_proj" for p in ("gate", "up", "down"))],
    "qwen2_moe": ["mlp.gate", "mlp.shared_expert_gate", *(f"mlp.experts.0.{p}_proj" for p in ("gate", "up", "down"))],
    "gpt_oss": ["mlp.router", *(f"mlp.experts.0.{p}_proj" for p in ("gate", "up", "down"))],
}
LIST = {"compressed-tensors": "ignore", "vllm-fp8": "ignored_layers", "hf-fp8": "modules_to_not_convert"}


def save(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    MODELS[name]().bfloat16().save_pretrained(folder)
    return folder


def auto(name: str) -> type:
    return T.AutoModelForSeq2SeqLM if name == "t5" else T.AutoModelForCausalLM


def quantized(name: str, source: Path, out: Path, layout: str) -> Path:
    run_quantization(Quantization(model=str(source), layout=layout), out)
    return out


def saved(name: str, source: Path, out: Path, layout: str) -> Path:
    model = auto(name).from_pretrained(source, quantization_config=OctoscaleConfig("amax", layout=layout))
    model.save_pretrained(out)
    return out


def saved_again(name: str, source: Path, out: Path, layout: str) -> Path:
    first = quantized(name, source, out.with_name("first"), layout)
    auto(name).from_pretrained(first).save_pretrained(out)
    return out


def listed(folder: Path, layout: str) -> list[str]:
    return json.loads((folder / "config.json").read_text())["quantization_config"][LIST[layout]]


def in_files(folder: Path) -> tuple[set[str], set[str]]:
    """The modules whose weight is codes, and those with a matrix that is not: no embeddings, nothing around codes."""
    codes, others = set(), set()
    for shard in find_shards(folder):
        with safe_open(shard, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                stem = key.rpartition(".")[0]
                if part.get_dtype() == "F8_E4M3":
                    codes.add(stem)
                elif len(part.get_shape()) > 1 and not any(word in key for word in ("embed", "wte", "wpe", "shared.")):
                    others.add(stem)
    around = {stem for stem in others if any(name.startswith(f"{stem}.") for name in codes)}
    return codes, {stem for stem in others - around if not stem.endswith("relative_attention_bias")}


@pytest.mark.parametrize("way", [quantized, saved, saved_again])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_every_matrix_in_high_precision_is_listed_and_none_of_codes(name, layout, way, tmp_path):
    """Oracle: the dtypes in the files; transformers' and vLLM's own rules for names."""
    out = way(name, save(name, tmp_path / "model"), tmp_path / "out", layout)
    names = listed(out, layout)
    codes, others = in_files(out)
    assert codes
    assert others <= set(names)
    assert not codes & set(names)
    assert len(set(names)) == len(names)
    if layout == "hf-fp8":
        assert all(should_convert_module(name, names) for name in codes)
        assert not any(should_convert_module(name, names) for name in others)
    for asked in ASKED_BY_VLLM.get(name, ()):
        assert {f"model.layers.{layer}.{asked}" for layer in (0, 1)} <= set(names)


def test_compressed_tensors_matches_what_is_in_the_files(tmp_path):
    """Oracle: compressed_tensors' own matching, on the plain model."""
    match = pytest.importorskip("compressed_tensors.utils.match")
    out = quantized("qwen2_moe", save("qwen2_moe", tmp_path / "model"), tmp_path / "out", "compressed-tensors")
    model = MODELS["qwen2_moe"]()
    found = {name for name, _ in match.match_named_modules(model, ["Linear"], listed(out, "compressed-tensors"))}
    assert found == in_files(out)[0]


def test_names_of_the_model_and_of_the_files():
    model = MODELS["mixtral"]()
    report = preview(model, Recipe.amax(skip=["layers.1.self_attn.q_proj"]))
    tensors = {"lm_head.weight": (96, 32), "a.experts.0.w1.weight": (64, 32), "a.norm.weight": (32,), "m.w": (2, 3, 4)}
    names = ignored(report, tensors)
    assert {"model.layers.1.self_attn.q_proj", "model.layers.0.mlp.experts", "a.experts", "m", "lm_head"} <= set(names)
    assert not {"model.embed_tokens", "a.norm", "model.layers.0.mlp", "model.layers.0.self_attn.q_proj"} & set(names)
    octoscale.revert(model)


def test_a_name_around_a_converted_layer_is_not_listed():
    """A system that reads a name as all that is below it would leave the layer out. RWKV's mixers own parameters."""
    config = T.RwkvConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)
    report = preview(T.RwkvForCausalLM(config), Recipe.amax())
    names = ignored(report, {})
    assert "rwkv.blocks.0.attention.output" in names
    assert "rwkv.blocks.0.attention" not in names
    assert "rwkv.blocks.0.attention.key" not in names
