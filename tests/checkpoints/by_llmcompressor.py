"""Write a model's checkpoint in a scheme of llmcompressor: run by that library's own environment.

    PYTHON by_llmcompressor.py MODEL OUT FP8_DYNAMIC|FP8_BLOCK|FP8 [TEXT]

TEXT is what the static scales of FP8 are calibrated on.
"""

import sys
from pathlib import Path

from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import AutoModelForCausalLM, AutoTokenizer

source, out, scheme, *text = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(source)
recipe = QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head", "re:.*layers\\.1\\.self_attn.o_proj"])
calibration = {}
if text:
    whole = Path(text[0]).read_text(encoding="utf-8")
    rows = [{"input_ids": tokenizer(whole[start : start + 800])["input_ids"]} for start in range(0, 8000, 800)]
    calibration = {"dataset": Dataset.from_list(rows), "num_calibration_samples": len(rows)}
oneshot(model=model, recipe=recipe, **calibration)
model.save_pretrained(out, save_compressed=True)
tokenizer.save_pretrained(out)
