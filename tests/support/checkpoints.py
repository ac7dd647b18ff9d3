"""Tiny checkpoints on disk, with a tokenizer: what the command line is given in tests."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from octoscale.checkpoints.settings import Quantization
from octoscale.models.export import run_quantization
from octoscale.models.materialize import byte_tokenizer


def save_tiny_llama(folder: Path, hidden_size: int = 32, intermediate_size: int = 64) -> Path:
    """A random two-layer Llama in bfloat16 whose tokens are bytes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
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


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what it holds."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def note(folder: Path, name: str, content: str = "mine") -> None:
    """Put a file into a folder, which is made if need be."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def quantize(source: Path, out: Path, **words) -> dict[str, bytes]:
    """All files that the command quantize writes."""
    options = {key: words.pop(key) for key in ("resume", "overwrite") if key in words}
    run_quantization(Quantization(model=str(source), **words), out, **options)
    return contents(out)
