"""Models to test on: tiny transformers with random weights, and the trained stories260K where it is present."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

STORIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "stories260K"
VOCABULARY = 96

#: Sizes of small models, in the words of most configs; of a mixture of experts; of T5.
SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EXPERTS = {**SMALL, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


def tiny_gpt2(seed: int = 0, **changes) -> GPT2LMHeadModel:
    """Two layers of width 32 in eval mode; its linear layers are Conv1D."""
    sizes = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**{**sizes, "bos_token_id": 1, "eos_token_id": 2, **changes})).eval()


def tiny_llama(seed: int = 0, **changes) -> LlamaForCausalLM:
    """Two layers of width 32, grouped queries, an untied head, in eval mode; its linear layers are nn.Linear."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval()


def stories() -> LlamaForCausalLM:
    """The trained stories260K in eval mode; the test is skipped where it is absent."""
    if not STORIES.is_dir():
        pytest.skip(f"no trained model: {STORIES} is absent")
    return AutoModelForCausalLM.from_pretrained(STORIES).eval()


TINY = {"gpt2": tiny_gpt2, "llama": tiny_llama}


def tokens(batch: int = 2, length: int = 12, seed: int = 1) -> torch.Tensor:
    """Random ids [batch, length] of the tiny models' vocabulary."""
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))
