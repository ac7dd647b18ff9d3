"""What stays out of FP8, and why. Oracles: which layers a forward pass calls; torch's own product."""

import pytest
import torch
import transformers as T
from models import EXPERTS, SMALL, T5, tiny_llama
from torch import nn

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.conversion.convert import preview
from octoscale.conversion.trial import layers_not_run


def dbrx():
    ffn = {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2}
    attention = {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}
    sizes = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}
    return T.DbrxForCausalLM(T.DbrxConfig(vocab_size=96, **sizes, ffn_config=ffn, attn_config=attention))


def qwen2_moe():
    return T.Qwen2MoeForCausalLM(T.Qwen2MoeConfig(**EXPERTS, shared_expert_intermediate_size=32))


def mixtral():
    return T.MixtralForCausalLM(T.MixtralConfig(**SMALL, num_local_experts=4))


def jetmoe():
    return T.JetMoeForCausalLM(T.JetMoeConfig(**SMALL, kv_channels=8, num_local_experts=4))


def switch():
    more = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 4, "num_decoder_layers": 2}
    return T.SwitchTransformersForConditionalGeneration(T.SwitchTransformersConfig(**T5, **more))


def musicgen():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64, "num_attention_heads": 4, "num_codebooks": 4}
    return T.MusicgenForCausalLM(T.MusicgenDecoderConfig(vocab_size=64, max_position_embeddings=64, **sizes))


def mamba():
    return T.MambaForCausalLM(T.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=8))


def falcon_mamba():
    config = T.FalconMambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=8)
    return T.FalconMambaForCausalLM(config)


def falcon():
    config = T.FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    return T.FalconForCausalLM(config)


def t5():
    return T.T5ForConditionalGeneration(T.T5Config(**T5, decoder_start_token_id=0))


def rwkv():
    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return T.RwkvForCausalLM(T.RwkvConfig(vocab_size=96, context_length=32, **sizes))


class WithValueHead(nn.Module):
    """As reinforcement learning wraps a language model."""

    def __init__(self):
        super().__init__()
        self.pretrained_model = tiny_llama()
        self.v_head = nn.Linear(32, 1)

    def forward(self, **inputs):
        return self.pretrained_model(**inputs)


FAMILIES = {f.__name__: f for f in (dbrx, qwen2_moe, mixtral, jetmoe, switch, mamba, falcon_mamba, falcon, t5, rwkv)}


def resnet():
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return T.ResNetForImageClassification(T.ResNetConfig(**sizes))


KEPT = {
    mixtral: {"mlp.gate": "router"},
    dbrx: {"router.layer": "router"},
    qwen2_moe: {"mlp.shared_expert_gate": "router"},
    jetmoe: {"router.layer": "router"},
    switch: {"router.classifier": "router"},
    musicgen: {"lm_heads.3": "head"},
    mamba: {"mixer.dt_proj": "MambaMixer: its weight is read without calling it"},
    falcon_mamba: {"mixer.dt_proj": "FalconMambaMixer: its weight is read without calling it"},
    WithValueHead: {"pretrained_model.lm_head": "head", "v_head": "outside the decoder layers"},
}


@pytest.mark.parametrize("build", KEPT, ids=lambda build: build.__name__)
def test_routers_heads_and_layers_that_nobody_calls_stay(build):
    rows = preview(build(), Recipe.amax()).modules
    for end, reason in KEPT[build].items():
        found = [row for row in rows if row.module.endswith(end)]
        assert found
        assert {(row.converted, row.reason) for row in found} == {(False, reason)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_report_calls_fp8_runs(name):
    """Oracle: hooks in a forward pass; sparse layers of Switch may get no token, so its experts may rest."""
    model = FAMILIES[name]().eval()
    report = octoscale.convert(model, Recipe.amax())
    assert report.converted
    assert [layer for layer in layers_not_run(model) if "expert" not in layer] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_codes_in_place_of_weights_run(name):
    """T5 reads a weight's dtype, Mamba its values, RWKV writes to it: such layers stay, and the model runs."""
    model = FAMILIES[name]().bfloat16().eval()
    config = OctoscaleConfig("amax")
    quantize_model(model, config)
    inputs = {"input_ids": torch.arange(8)[None]}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


def test_layers_that_cannot_hold_codes_are_in_the_list_that_others_read():
    config = OctoscaleConfig("amax")
    quantize_model(t5().bfloat16(), config)
    assert "decoder.block.1.layer.2.DenseReluDense.wo" in config.kept
    config = OctoscaleConfig("amax")
    quantize_model(mixtral().bfloat16(), config)
    assert {"model.layers.0.mlp.gate", "model.layers.1.mlp.experts", "lm_head"} <= set(config.kept)


def test_a_model_without_a_stack_of_layers_has_nothing_to_convert():
    """The classifier of a convolutional network is its head, and its only linear layer."""
    with pytest.raises(ValueError, match=r"nothing to convert in this ResNetForImageClassification: .*outside the dec"):
        preview(resnet(), Recipe.amax())


class Experts(nn.Module):
    def __init__(self, gate, experts):
        super().__init__()
        self.add_module(gate, nn.Linear(4, 2))
        self.add_module(experts, nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))]))


@pytest.mark.parametrize(
    ("gate", "beside", "routes"),
    [
        ("gate", "experts", True),
        ("gate", "shared_expert", True),
        ("moe_gate", "experts", True),
        ("gating_network", "experts", True),
        ("router", "blocks", True),
        ("router_gate", "experts", True),
        ("shared_expert_gate", "blocks", True),
        ("gate", "blocks", False),
        ("gate_proj", "experts", False),
    ],
)
def test_names_of_routers(gate, beside, routes):
    """A gate is a router where experts stand beside it; a GLU has a gate too."""
    rows = {
        row.module: row for row in preview(nn.Sequential(Experts(gate, beside), nn.Linear(4, 4)), Recipe.amax()).modules
    }
    assert rows[f"0.{gate}"].converted is not routes
    assert (rows[f"0.{gate}"].reason == "router") is routes
    assert rows[f"0.{beside}.0.0"].converted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAMILIES)
def test_in_files_as_in_memory(name, tmp_path):
    """Oracle: the model read, then converted in memory, bit for bit; what is kept is kept in both.

    Both are read: torch's own products of what is kept differ in the last bits with the alignment of the memory.
    """
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    model.save_pretrained(tmp_path)
    inputs = {"input_ids": torch.arange(8)[None]}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    model = type(model).from_pretrained(tmp_path).eval()
    octoscale.convert(model, Recipe.amax())
    loaded = type(model).from_pretrained(tmp_path, quantization_config=OctoscaleConfig("amax")).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
