"""What train promises: four steps on a text or on labeled texts, and the same bits if it was stopped after two."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outcome import OwnLimit
from safetensors.torch import load_file
from table import Family
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from octoscale.runs.folder import RunFolder
from octoscale.training.run import run_training
from octoscale.training.settings import Training

TEXT = "The quick brown fox jumps over the lazy dog. " * 20
LABELED = "sentence\tlabel\n" + "bad awful poor\t0\ngood fine nice\t1\n" * 8


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the tokens that models want at the ends of a text."""
    letters, special = sorted(pre_tokenizers.ByteLevel.alphabet()), ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(special + letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **names)


def check_train(family: Family, tmp: Path) -> None:
    """Losses and weights of a run that was resumed are those of one that was not."""
    family.build().save_pretrained(tmp / "model")
    byte_tokenizer().save_pretrained(tmp / "model")
    (tmp / "text.txt").write_text(TEXT)
    (tmp / "task.tsv").write_text(LABELED)
    words: dict[str, Any] = {
        "model": str(tmp / "model"),
        "dtype": "bf16" if family.dtype == torch.bfloat16 else "fp32",
        "window": 16,
        "batch": 2,
        "learning_rate": 1e-3,
        "every": 0,
        "save_every": 2,
        "text": str(tmp / "text.txt"),
        "task": str(tmp / "task.tsv") if is_classifier(family) else None,
    }
    whole = run_training(Training(steps=4, **words), tmp / "whole")
    run_training(Training(steps=2, **words), tmp / "parts")
    parts = run_training(Training(steps=4, **words), tmp / "parts", go_on=True)
    if losses(parts) != losses(whole):
        plain = Training(steps=4, scaling=words["dtype"], **words)
        if losses(run_training(plain, tmp / "once")) != losses(run_training(plain, tmp / "again")):
            raise OwnLimit("the same training twice differs")
        pytest.fail(f"{losses(parts)}, not {losses(whole)}")
    found, expected = (load_file(run.model / "model.safetensors") for run in (parts, whole))
    assert found.keys() == expected.keys()
    different = [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
    assert not different, f"{len(different)} weights differ: {different[:3]}"
    before = load_file(tmp / "model" / "model.safetensors")
    # a classifier may hold the model that was saved, under a name of its own
    trained = [(x, before[old]) for name, x in expected.items() for old in before if name.endswith(old)]
    assert any(not torch.equal(x, old) for x, old in trained)


def is_classifier(family: Family) -> bool:
    """Whether the model is trained to tell texts apart: what does not write, and has such a head."""
    return family.kind != "causal" and family.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def losses(run: RunFolder) -> dict[int, float]:
    """The loss of each step."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if row.get("loss") is not None}
