"""What files promise: quantized while it is loaded, saved and loaded, or written by quantize, a model is one."""

from pathlib import Path
from typing import Any

import torch
from layer_checks import ask, same
from table import Family
from torch import Tensor

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.checkpoints.settings import Quantization
from octoscale.conversion.convert import preview
from octoscale.layers.stored import StoredLinear
from octoscale.models.export import run_quantization


def save(family: Family, folder: Path) -> Path:
    """The small model as a checkpoint, in the dtype that it is used in."""
    model = family.build(family.dtype)
    model.save_pretrained(folder)
    return folder


def load(family: Family, folder: Path, **options: Any) -> Any:
    return family.cls.from_pretrained(folder, dtype=family.dtype, **options).eval()


def answers(family: Family, model: Any) -> list[Tensor]:
    with torch.no_grad():
        return ask(model, family.inputs(model))


def stored(model: Any) -> set[str]:
    return {name for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, StoredLinear)}


def expect_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert same(a, b), f"off by {float((a.double() - b.double()).abs().max()):.3g}"


def check_load(family: Family, tmp: Path) -> None:
    """Quantized while it is loaded, a model gives what it gives when the same layers are converted in memory."""
    source = save(family, tmp / "source")
    quantized = load(family, source, quantization_config=OctoscaleConfig("amax"))
    model = load(family, source)
    in_fp8 = {row.module for row in preview(model, Recipe.amax()).converted}
    kept = in_fp8 - stored(quantized)  # their weights are read by others, who would find codes
    assert stored(quantized) <= in_fp8
    octoscale.convert(model, Recipe.amax(skip=sorted(kept)))
    model.config._is_quantized = True  # transformers says so; Falcon Mamba then adds a bias elsewhere
    expect_same(answers(family, quantized), answers(family, model))


def check_save(family: Family, tmp: Path) -> None:
    """Saved in FP8 and loaded again, it is the same; and so once more."""
    model = load(family, save(family, tmp / "source"), quantization_config=OctoscaleConfig("amax"))
    expected = answers(family, model)
    model.save_pretrained(tmp / "saved")
    again = load(family, tmp / "saved")
    assert stored(again) == stored(model)
    expect_same(answers(family, again), expected)


def check_quantize(family: Family, tmp: Path) -> None:
    """`octoscale quantize` writes the same model."""
    source = save(family, tmp / "source")
    expected = load(family, source, quantization_config=OctoscaleConfig("amax"))
    run_quantization(Quantization(model=str(source)), tmp / "quantized")
    found = load(family, tmp / "quantized")
    assert stored(found) == stored(expected)
    expect_same(answers(family, found), answers(family, expected))
