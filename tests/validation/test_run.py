"""A validation whose numbers are not finite. Oracle: the model that was broken by hand, or the scale that clips all."""

import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import tiny_llama

WORDS = ("--tokens", "32", "--window", "16", "--out", "run")


@pytest.fixture
def broken(tmp_path):
    """A model whose final norm holds infinity: every logit is NaN, in any precision."""
    model = tiny_llama(vocab_size=256, bos_token_id=None, eos_token_id=None).bfloat16()
    model.model.norm.weight.data[3] = torch.inf
    model.save_pretrained(tmp_path / "broken")
    byte_tokenizer().save_pretrained(tmp_path / "broken")
    return tmp_path / "broken"


@pytest.mark.parametrize("scalings", [("bf16", "amax"), ("amax",), ("amax", "cscale:0")])
def test_a_model_that_is_not_finite_is_no_result(scalings, broken, run):
    options = [word for scaling in scalings for word in ("--scaling", scaling)]
    code, out, err = run("validate", "broken", *WORDS, *options)
    assert code == 2
    assert "perplexity" in out  # the table stands before the error
    line = err.strip().splitlines()[-1]
    expected = "broken is at fault, not FP8: in bf16" if "bf16" in scalings else "no scaling of broken has a finite"
    assert expected in line


def test_a_scaling_that_fails_beside_others_is_a_result(tmp_path, run, monkeypatch):
    """A cliff: one constant scale overflows, and the others measure."""
    from octoscale.layers.linear import Fp8Linear
    from octoscale.validation import one_scaling

    usual = one_scaling.perplexity

    def with_a_cliff(model, windows, on_window=None, losses=None):
        layers = [m for m in model.modules() if isinstance(m, Fp8Linear)]
        fails = layers and layers[0].fp8.recipe.name == "cscale:3"
        return float("nan") if fails else usual(model, windows, on_window, losses)

    monkeypatch.setattr(one_scaling, "perplexity", with_a_cliff)
    save_tiny_llama(tmp_path / "m")
    code, out, _ = run("validate", "m", *WORDS, "--scaling", "bf16", "--scaling", "cscale:0", "--scaling", "cscale:3")
    assert code == 0
    assert "cscale:3" in out


def test_autocast_is_for_float32_weights_and_half_a_precision(tmp_path, run):
    save_tiny_llama(tmp_path / "m")
    code, out, _ = run("validate", "m", *WORDS, "--scaling", "amax", "--autocast")
    assert (code, "perplexity" in out) == (0, True)
    code, _, err = run("validate", "m", *WORDS, "--dtype", "fp32", "--autocast")
    assert (code, "--autocast is for --dtype bf16 or fp16" in err) == (2, True)
    assert run("quantize", "m", "m8")[0] == 0
    code, _, err = run("validate", "m8", *WORDS[:-1], "run8", "--autocast")
    assert (code, "m8 holds FP8 weights, and --autocast is for float32 ones: leave it out" in err) == (2, True)


@pytest.mark.parametrize(("more", "is_said"), [((), True), (("--autocast",), False), (("--dtype", "fp32"), False)])
def test_that_weights_are_rounded_before_they_are_cast_is_said(more, is_said, tmp_path, run):
    model = tiny_llama(vocab_size=256, bos_token_id=None, eos_token_id=None).float()
    model.save_pretrained(tmp_path / "m")
    byte_tokenizer().save_pretrained(tmp_path / "m")
    code, out, _ = run("validate", "m", *WORDS, "--scaling", "amax", *more)
    assert code == 0
    assert ("float32 weights are rounded to bfloat16 before FP8 casts them" in " ".join(out.split())) == is_said
