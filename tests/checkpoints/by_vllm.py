"""The log-probabilities that vLLM gives to the tokens of prompts: run by that library's own environment.

    PYTHON by_vllm.py FOLDER PROMPTS.json OUT.json

PROMPTS is a list of lists of token ids; OUT gets one of log-probabilities each, without the first token's. The CPU
build of vLLM lacks the operators that quantize to FP8: they are supplied here, in plain torch.
"""

import json
import os
import sys
from pathlib import Path

# One process, so that it is the one which gets the operators.
os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
import vllm

folder, prompts, out = sys.argv[1:]
LARGEST = 448.0


def by_scale(output, x, scale, group=None):
    """Codes of x / scale. scale: one number, one a row (group is (1, -1)) or a column, or a matrix of blocks."""
    wide = scale.float()
    if wide.ndim == 2 and wide.numel() > 1:
        for dim in (0, 1):
            wide = wide.repeat_interleave(-(-x.shape[dim] // wide.shape[dim]), dim).narrow(dim, 0, x.shape[dim])
    elif wide.numel() > 1:
        wide = wide.view(-1, 1) if tuple(group) == (1, -1) else wide.view(1, -1)
    output.copy_((x.float() / wide).clamp(-LARGEST, LARGEST).to(output.dtype))


def by_amax(output, x, scale):
    scale.copy_((x.float().abs().amax() / LARGEST).clamp(min=1e-12))
    by_scale(output, x, scale)


def by_amax_of_rows(output, x, scale, _=None):
    scale.copy_((x.float().abs().amax(-1, keepdim=True) / LARGEST).clamp(min=1e-12))
    by_scale(output, x, scale.expand_as(x))


def gated_by_scale(output, x, scale):
    gate, up = x.float().chunk(2, -1)
    by_scale(output, (torch.nn.functional.silu(gate) * up).to(x.dtype), scale)


torch.ops._C.static_scaled_fp8_quant = by_scale
torch.ops._C.silu_and_mul_quant = gated_by_scale
torch.ops._C.dynamic_scaled_fp8_quant = by_amax
torch.ops._C.dynamic_per_token_scaled_fp8_quant = by_amax_of_rows

model = vllm.LLM(model=folder, dtype="bfloat16", enforce_eager=True, max_model_len=256, gpu_memory_utilization=0.3)
asked = [{"prompt_token_ids": ids} for ids in json.loads(Path(prompts).read_text())]
answers = model.generate(asked, vllm.SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0))
found = [
    [said[token].logprob for token, said in zip(answer.prompt_token_ids[1:], answer.prompt_logprobs[1:], strict=True)]
    for answer in answers
]
Path(out).write_text(json.dumps(found))
