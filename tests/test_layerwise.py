"""Layer by layer, and checkpoints that are FP8 already. Oracle: window by window; the model converted in memory."""

import json

import polars as pl
import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import TINY, tiny_llama, tokens
from test_cli import run  # noqa: F401
from torch import nn

from octoscale import models, telemetry
from octoscale.evaluate import validate
from octoscale.export import run_quantization
from octoscale.quantization import Quantization

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

WORDS = "It is a truth universally acknowledged, that a single man in possession of a good fortune. " * 8


@pytest.fixture
def fp8(tmp_path):
    checkpoint = save_tiny_llama(tmp_path / "llama")
    run_quantization(Quantization(model=str(checkpoint)), tmp_path / "fp8")
    byte_tokenizer().save_pretrained(tmp_path / "fp8")
    return tmp_path / "fp8"


def rows(folder):
    keys = ["scaling", "step", "module", "role"]
    return telemetry.read_scales(folder).sort(keys)


@pytest.mark.parametrize("name", TINY)
def test_layer_by_layer_gives_the_bits_of_window_by_window(name, tmp_path):
    windows, scalings = tokens(batch=5, length=16), ["bf16", "amax", "cscale:2"]
    scores = {}
    for by_layer in (False, True):
        model = TINY[name]().to(torch.bfloat16)
        folder = tmp_path / str(by_layer)
        scores[by_layer] = validate(model, scalings, windows=windows, folder=folder, every=2, by_layer=by_layer)
    assert [s.perplexity for s in scores[True]] == [s.perplexity for s in scores[False]]
    assert rows(tmp_path / "True").equals(rows(tmp_path / "False"))
    assert rows(tmp_path / "True").filter(pl.col("role") == "input")["step"].unique().to_list() == [0, 1, 2, 3, 4]
    losses = [(tmp_path / folder / "metrics.jsonl").read_text() for folder in ("True", "False")]
    assert losses[0] == losses[1]


def test_each_layer_serves_all_windows_before_the_next(tmp_path):
    model, calls = tiny_llama(num_hidden_layers=3).to(torch.bfloat16), []
    for i, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    seen = []
    progress = lambda *report: seen.append(report)  # noqa: E731
    validate(model, ["bf16"], windows=tokens(batch=4), by_layer=True, progress=progress)
    assert calls == [0] * 4 + [1] * 4 + [2] * 4
    assert seen == [("bf16", 1, 3), ("bf16", 2, 3), ("bf16", 3, 3)]
    assert len(model.model.layers) == 3


def test_infinity_is_a_failure_that_leaves_the_model_whole():
    model = tiny_llama().to(torch.bfloat16)
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[0] = torch.inf
    score, *_ = validate(model, ["amax"], windows=tokens(), by_layer=True)
    assert "model.layers.1.self_attn.q_proj" in score.failure
    assert len(model.model.layers) == 2


def test_a_model_of_another_build_is_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.ModuleList([nn.Linear(2, 2)]), nn.ModuleList([nn.Linear(2, 2)])

    with pytest.raises(ValueError, match="Odd cannot go layer by layer: it has 2 lists of layers, not one"):
        validate(Odd().eval(), ["fp32"], windows=tokens(), by_layer=True)
    model = tiny_llama()
    model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ValueError, match="its layers are full_attention and sliding_attention"):
        validate(model, ["fp32"], windows=tokens(), by_layer=True)


def test_a_stored_checkpoint_is_validated_with_its_own_scales(fp8, tmp_path, run):  # noqa: F811
    """Perplexity and scales of what was exported are those of the conversion, bit for bit."""
    (tmp_path / "text").write_text(WORDS)
    ask = ["--text", tmp_path / "text", "--window", 32, "--json"]
    assert run("validate", tmp_path / "llama", *ask, "--scaling", "amax", "--out", "converted")[0] == 0
    for batch in ([], ["--batch"]):
        code, out, err = run("validate", fp8, *ask, *batch, "--out", f"stored{len(batch)}")
        assert code == 0, err
        assert ("2 layers" if batch else "windows") in err
        summary = json.loads(out)
        expected = json.loads((tmp_path / "converted" / "summary.json").read_text())["perplexity"]["amax"]
        assert summary["perplexity"] == {"stored": expected}
    keys = ["step", "module", "role", "scale_bias", "numel"]
    of_inputs = pl.col("role") == "input"
    found, expected = (rows(tmp_path / name).filter(of_inputs).select(keys) for name in ("stored0", "converted"))
    assert found.equals(expected)
    weights = [rows(tmp_path / name).filter(~of_inputs).select(keys) for name in ("stored0", "converted")]
    assert weights[0].equals(weights[1])
    assert json.loads((tmp_path / "stored0" / "run.json").read_text())["plan"]["scalings"] == ["stored"]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("fp8", ["--scaling", "amax"], "holds FP8 weights with their scales already: leave --scaling out"),
        ("llama", ["--scaling", "stored"], "holds no FP8 weights"),
        ("llama", ["--batch", "--task", "task"], "questions are asked one by one"),
    ],
)
def test_a_scaling_that_cannot_be_is_one_line(spec, options, message, fp8, tmp_path, run):  # noqa: F811
    (tmp_path / "text").write_text(WORDS)
    (tmp_path / "task").write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n')
    code, out, err = run("validate", tmp_path / spec, "--text", "text", "--window", 32, *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_a_token_without_an_embedding_is_one_line(tmp_path, run):  # noqa: F811
    model = tiny_llama(max_position_embeddings=64).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "small")
    byte_tokenizer().save_pretrained(tmp_path / "small")
    (tmp_path / "text").write_text("é" * 99)
    code, _, err = run("validate", tmp_path / "small", "--text", "text", "--window", 32)
    assert code == 2
    assert "and the model has 96: the tokenizer is another model's" in err


def test_what_is_stored_is_told_from_the_config(fp8, tmp_path):
    assert models.is_stored(str(fp8))
    assert not models.is_stored(str(tmp_path / "llama"))
    assert not models.is_stored("llama2-70b")
