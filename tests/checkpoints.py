"""Tiny checkpoints on disk, with a tokenizer: what the command line is given in tests."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from octoscale.materialize import byte_tokenizer


def save_tiny_llama(folder: Path) -> Path:
    """A random two-layer Llama in bfloat16 whose tokens are bytes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
