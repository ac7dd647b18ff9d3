"""FP8 checkpoints of mixtures of experts, which transformers stacks. Oracle: decoded by hand in float64."""

import json

import pytest
import torch
import transformers as T
from foreign import CHANNEL, TOKENS, amax_of, at_values, compressed, group
from safetensors.torch import load_file, save_file

import octoscale
from octoscale.layers.stored import StoredLinear

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own
IDS = torch.arange(1, 40)[None]
SIZES = {"vocab_size": 256, "hidden_size": 160, "intermediate_size": 288, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64}


def deepseek():
    latent = {"q_lora_rank": 48, "kv_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 24}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "n_shared_experts": 1}
    more = {"moe_intermediate_size": 144, "first_k_dense_replace": 1, "bos_token_id": None, "eos_token_id": None}
    return T.DeepseekV3ForCausalLM(T.DeepseekV3Config(**SIZES, **latent, **experts, **more))


def qwen():
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 144, "head_dim": 40}
    more = {"bos_token_id": None, "eos_token_id": None}
    return T.Qwen3MoeForCausalLM(T.Qwen3MoeConfig(**SIZES, **experts, **more))


#: Model, how far its scales reach, and what config.json says: DeepSeek's own words, and llmcompressor's.
BLOCKS = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
MODELS = {
    "deepseek": (deepseek, "block", "weight_scale_inv", BLOCKS),
    "qwen": (
        qwen,
        "row",
        "weight_scale",
        compressed(group(CHANNEL, TOKENS), ignore=("lm_head", "re:.*mlp.gate$")),
    ),
}


def save_fp8(folder, name):
    """The model in FP8 as it is given away: each expert by itself. Returns what its tensors mean, in float64."""
    make, reach, scale_name, content = MODELS[name]
    torch.manual_seed(0)
    make().to(torch.bfloat16).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    meant = {}
    for key in list(tensors):
        if key.endswith(("_proj.weight", "_proj_with_mqa.weight")):
            values = tensors[key].float()
            scale = amax_of(values, reach) / 448
            tensors[key] = (values / at_values(scale, reach, values.shape)).clamp(-448, 448).to(torch.float8_e4m3fn)
            tensors[f"{key.removesuffix('.weight')}.{scale_name}"] = scale
            meant[key] = tensors[key].double() * at_values(scale.double(), reach, values.shape)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": content}))
    return meant


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize("name", MODELS)
def test_experts_that_are_stacked_are_decoded_and_all_else_stays_fp8(name, tmp_path, run):
    meant = save_fp8(tmp_path / "f", name)
    model = octoscale.load(str(tmp_path / "f")).model
    stored = {n for n, module in model.named_modules() if isinstance(module, StoredLinear)}
    routed = {key for key in meant if ".experts." in key}
    assert stored == {key.removesuffix(".weight") for key in set(meant) - routed}
    assert len(routed) == {"deepseek": 12, "qwen": 24}[name]
    experts = model.model.layers[1].mlp.experts
    assert experts.gate_up_proj.dtype == torch.bfloat16
    for number in range(4):
        of = {part: meant[f"model.layers.1.mlp.experts.{number}.{part}_proj.weight"] for part in ("gate", "up", "down")}
        both = torch.cat([of["gate"], of["up"]])
        assert torch.equal(experts.gate_up_proj[number], both.float().bfloat16())
        assert torch.equal(experts.down_proj[number], of["down"].float().bfloat16())
    out = run("inspect", tmp_path / "f")[1]
    assert f"{len(routed)} weights decoded, for the model stacks them in one parameter without scales" in out
    assert f"{len(stored)} linear layers in FP8" in out
    expected = logits(model)
    assert expected.isfinite().all()
    model.save_pretrained(tmp_path / "again")
    again = octoscale.load(str(tmp_path / "again")).model
    assert {n for n, module in again.named_modules() if isinstance(module, StoredLinear)} == stored
    assert torch.equal(logits(again), expected)


def test_experts_have_the_dtype_of_the_model(tmp_path):
    """float32 holds the product of a code and a scale to 24 bits."""
    meant = save_fp8(tmp_path / "f", "deepseek")
    model = octoscale.load(str(tmp_path / "f"), torch.float32).model
    down = model.model.layers[1].mlp.experts.down_proj[3]
    assert torch.equal(down, meant["model.layers.1.mlp.experts.3.down_proj.weight"].float())


def test_an_expert_with_a_code_that_is_nan_is_named(tmp_path):
    save_fp8(tmp_path / "f", "deepseek")
    tensors = load_file(tmp_path / "f" / "model.safetensors")
    codes = tensors["model.layers.1.mlp.experts.2.up_proj.weight"].view(torch.uint8).clone()
    codes[3, 4] = 0xFF
    tensors["model.layers.1.mlp.experts.2.up_proj.weight"] = codes.view(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "f" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"experts\.2\.up_proj\.weight holds infinity or NaN: the checkpoint is dam"):
        octoscale.load(str(tmp_path / "f"))


def test_an_expert_without_scale_is_named(tmp_path):
    save_fp8(tmp_path / "f", "deepseek")
    tensors = load_file(tmp_path / "f" / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"]
    save_file(tensors, tmp_path / "f" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"experts\.2\.up_proj\.weight is in FP8, and no weight_scale"):
        octoscale.load(str(tmp_path / "f"))
