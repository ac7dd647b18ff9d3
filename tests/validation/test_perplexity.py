"""Perplexity. Oracle: transformers' own loss."""

import math

import pytest
import torch
from checkpoints import save_tiny_llama
from transformers import LlamaForCausalLM

from octoscale.validation.perplexity import perplexity


def test_perplexity_is_exp_of_transformers_own_loss(tmp_path):
    model = LlamaForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "llama"), dtype=torch.float32).eval()
    windows = torch.arange(60).remainder(7).view(3, 20)
    with torch.no_grad():
        losses = [float(model(window[None], labels=window[None]).loss) for window in windows]
    assert perplexity(model, windows) == pytest.approx(math.exp(sum(losses) / 3), rel=1e-6)
