"""What decoding promises: with a cache it writes what it writes without one, and fused what it writes unfused.

Weights in FP8 and inputs in float32, or inputs with one constant scale: a scale that follows each tensor's amax is not
the same for a token alone and for a token among others.
"""

from typing import Any

import torch
from outcome import OwnLimit, one_line
from shrink import PLACES
from table import Family
from torch import Tensor
from transformers import GenerationConfig

import octoscale
from octoscale import Recipe
from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.inference.fuse import fuse

NEW_TOKENS = 6

#: What the order of float32 sums may do to a logit, beside the largest; and where that may turn over an FP8 code.
FLOAT32_NOISE, CODE_NOISE = 1e-3, 0.05


def write(model: Any, inputs: dict[str, Tensor], *, cache: bool) -> tuple[Tensor, list[Tensor]]:
    """The likeliest tokens [B, N], and the logits of each."""
    torch.manual_seed(1)
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=cache,
        bos_token_id=1,
        pad_token_id=0,
        decoder_start_token_id=1,
        suppress_tokens=_places(model),
        output_logits=True,
        return_dict_in_generate=True,
    )
    model.generation_config = config
    with torch.no_grad():
        out = model.generate(**inputs, generation_config=config)
    return out.sequences[:, -NEW_TOKENS:], list(out.logits)


def _places(model: Any) -> list[int] | None:
    """Tokens that stand for pictures and sounds: a text that is written holds none."""
    size = getattr(model.config.get_text_config(decoder=True), "vocab_size", 0)
    return list(range(min(PLACES.values()), size)) or None


def expect_same_text(model: Any, inputs: dict[str, Tensor], noise: float) -> None:
    """With a cache and without: the same tokens, unless two are as likely as each other."""
    (cached, logits), (plain, expected) = (write(model, inputs, cache=cache) for cache in (True, False))
    expect_close(cached, logits, plain, expected, noise)


def expect_close(found: Tensor, logits: list[Tensor], text: Tensor, expected: list[Tensor], noise: float) -> None:
    """Logits within `noise` of the largest, as long as the texts [B, N] agree."""
    assert len(logits) == len(expected) == NEW_TOKENS
    for row in range(len(text)):
        for step in range(NEW_TOKENS):
            a, b = logits[step][row].double(), expected[step][row].double()
            error, size = float((a - b).abs().max()), float(b.abs().max())
            assert error <= noise * size, f"token {step}: logits off by {error / size:.3g}"
            if found[row, step] != text[row, step]:
                break


def prompt(family: Family, model: Any) -> dict[str, Any]:
    """What is asked, less what only a decoder reads; a text alone is short, for some have few positions."""
    asked = {k: v for k, v in family.inputs(model).items() if not k.startswith(("decoder_", "encoder_"))}
    return {"input_ids": asked["input_ids"][:, :8]} if list(asked) == ["input_ids"] else asked


def check_plain(family: Family) -> None:
    """Whether the model in high precision does what is asked of the one in FP8; OwnLimit if it does not."""
    model = family.build()
    try:
        expect_same_text(model, prompt(family, model), FLOAT32_NOISE)
    except Exception as error:
        raise OwnLimit(one_line(error)) from error


def check_generate(family: Family) -> None:
    """Cached and uncached, with weights in FP8 alone and with all in FP8 by a constant scale."""
    check_plain(family)
    model = family.build()
    inputs = prompt(family, model)
    quantize_model(model, OctoscaleConfig("amax", activations="none"))
    expect_same_text(model, inputs, FLOAT32_NOISE)
    model = family.build()
    octoscale.convert(model, Recipe.cscale(2))
    expect_same_text(model, inputs, CODE_NOISE)


def check_fuse(family: Family) -> None:
    """Fused as far as it goes, a model writes as unfused; what is not fused has a reason."""
    check_plain(family)
    model = family.build(family.dtype)
    inputs = {name: value[:1] for name, value in prompt(family, model).items()}
    quantize_model(model, OctoscaleConfig("amax"))
    text, expected = write(model, inputs, cache=True)
    report = fuse(model)
    assert all(report.left.values())
    found, logits = write(model, inputs, cache=True)
    if not report.fused:
        assert report.left, "no decoder layer is named, fused or not"
        assert torch.equal(found, text)
    expect_close(found, logits, text, expected, CODE_NOISE if report.fused else 0.0)
