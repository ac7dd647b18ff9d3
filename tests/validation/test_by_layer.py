"""Layer by layer, and checkpoints that are FP8 already. Oracle: window by window; the model converted in memory."""

import json
import math

import polars as pl
import pytest
import torch
import transformers
from checkpoints import byte_tokenizer, save_tiny_llama
from models import TINY, VOCABULARY, tiny_llama, tokens
from torch import nn

from octoscale.checkpoints.settings import Quantization
from octoscale.models import loading
from octoscale.models.export import run_quantization
from octoscale.runs import scales
from octoscale.validation.by_layer import losses_by_layer
from octoscale.validation.perplexity import window_loss
from octoscale.validation.scalings import validate

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
    return scales.read_scales(folder).sort(keys)


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
    checked = [0, 1, 2] * 2 + [0] * 2 + [1] * 2 + [2] * 2
    assert calls == checked + [0] * 4 + [1] * 4 + [2] * 4
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


def rwkv():
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 8}
    return transformers.RwkvForCausalLM(transformers.RwkvConfig(**sizes)).eval()


def gemma3n():
    """Inputs of its own for each layer, keys and values that layers share, four residual streams."""
    config = transformers.Gemma3nTextConfig(
        vocab_size=VOCABULARY,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size=32,
        hidden_size_per_layer_input=8,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_kv_shared_layers=1,
        laurel_rank=4,
        layer_types=["full_attention"] * 3,
        activation_sparsity_pattern=[0.0] * 3,
    )
    return transformers.Gemma3nForCausalLM(config).eval()


class Leaves(nn.Module):
    """A layer that leaves something in the model for the next one."""

    def __init__(self, shared):
        super().__init__()
        self.shared = shared

    def forward(self, hidden):
        hidden = hidden + self.shared.get("left", 0)
        self.shared["left"] = hidden
        return hidden


class Between(nn.Module):
    """A model of `layers`, with `act` between them."""

    def __init__(self, layers, act=nn.Identity()):  # noqa: B008
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layers, self.act = nn.Embedding(VOCABULARY, 8), nn.ModuleList(layers), act
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, input_ids, use_cache):
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = self.act(layer(hidden))
        for layer in self.layers:
            getattr(layer, "shared", {}).clear()
        return type("Output", (), {"logits": self.head(hidden)})


def leaving():
    shared: dict = {}
    return Between([Leaves(shared), Leaves(shared)])


OTHERS = {
    "rwkv": rwkv,
    "gemma3n": gemma3n,
    "between": lambda: Between([nn.Linear(8, 8), nn.Linear(8, 8)], nn.GELU()),
    "leaving": leaving,
    "scaled a little": lambda: Between([nn.Linear(8, 8) for _ in range(3)], nn.Threshold(-0.9, -0.9)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_state_inputs_and_operations_between_layers_are_refused(name, tmp_path):
    """Never another number: the model is named, and the remedy; the model is left whole."""
    model = OTHERS[name]().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = validate(OTHERS[name]().eval().to(torch.float32), ["fp32"], windows=tokens(batch=3))[0].perplexity
    message = rf"{type(model).__name__} cannot go layer by layer: .*; validate it without --batch"
    with pytest.raises(ValueError, match=message):
        validate(model, ["fp32"], windows=tokens(batch=3), by_layer=True)
    assert math.isfinite(expected)
    assert before.keys() == model.state_dict().keys()


def test_layers_by_themselves_check_too():
    with torch.no_grad(), pytest.raises(ValueError, match="RwkvForCausalLM cannot go layer by layer"):
        losses_by_layer(rwkv(), tokens(), window_loss)


def test_the_check_writes_no_row_and_moves_no_history(tmp_path):
    """Oracle: delayed scaling window by window, which the same casts in the same order decide."""
    windows = tokens(batch=4)
    scores = [
        validate(
            tiny_llama(), ["fp32", "delayed:history=2"], windows=windows, folder=tmp_path / str(by), by_layer=bool(by)
        )
        for by in (0, 1)
    ]
    assert [s.perplexity for s in scores[0]] == [s.perplexity for s in scores[1]]
    assert rows(tmp_path / "0").equals(rows(tmp_path / "1"))


def test_a_stored_checkpoint_is_validated_with_its_own_scales(fp8, tmp_path, run):
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
        ("llama", ["--batch", "--task", "task"], "tasks are asked in batches"),
    ],
)
def test_a_scaling_that_cannot_be_is_one_line(spec, options, message, fp8, tmp_path, run):
    (tmp_path / "text").write_text(WORDS)
    (tmp_path / "task").write_text('{"query": "a", "choices": ["b", "c"], "gold": 0}\n')
    code, out, err = run("validate", tmp_path / spec, "--text", "text", "--window", 32, *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_a_token_without_an_embedding_is_one_line(tmp_path, run):
    model = tiny_llama(max_position_embeddings=64).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "small")
    byte_tokenizer().save_pretrained(tmp_path / "small")
    (tmp_path / "text").write_text("é" * 99)
    code, _, err = run("validate", tmp_path / "small", "--text", "text", "--window", 32)
    assert code == 2
    assert "and the model has 96: the tokenizer is another model's" in err


def test_what_is_stored_is_told_from_the_config(fp8, tmp_path):
    assert loading.is_stored(str(fp8))
    assert not loading.is_stored(str(tmp_path / "llama"))
    assert not loading.is_stored("llama2-70b")
