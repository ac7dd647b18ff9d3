"""Text from models in FP8. Oracles: transformers' own generate; a GGUF file that transformers reads again."""

import json

import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import tiny_llama, tokens
from test_cli import run  # noqa: F401
from transformers import AutoModelForCausalLM, GgufConfig

from octoscale import bench_generate, gguf_shape, terminal
from octoscale.export import run_quantization
from octoscale.generate import Sampling, Writer, choose_scaling
from octoscale.hf import OctoscaleConfig
from octoscale.quantization import Quantization

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

CHAT = "{% for turn in messages %}{{ turn.role[0] }}:{{ turn.content }};{% endfor %}a:"


@pytest.fixture
def checkpoint(tmp_path):
    return save_tiny_llama(tmp_path / "llama")


@pytest.fixture
def fp8(checkpoint, tmp_path):
    run_quantization(Quantization(model=str(checkpoint)), tmp_path / "fp8")
    byte_tokenizer().save_pretrained(tmp_path / "fp8")
    return tmp_path / "fp8"


def greedy(model, text: str, count: int) -> list[int]:
    ids = torch.tensor([list(text.encode())])
    model.generation_config.eos_token_id = None
    return model.generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0)[0, ids.shape[1] :].tolist()


def test_it_writes_what_transformers_generates(checkpoint, fp8):
    config = OctoscaleConfig("amax")
    expected = greedy(AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=config), "Once", 12)
    for spec in (checkpoint, fp8):
        writer, pieces = Writer(str(spec)), []
        new = writer.write(byte_ids(writer, "Once"), Sampling(max_new_tokens=12), pieces.append)
        assert new.ids == expected
        assert "".join(pieces) == new.text


def byte_ids(writer: Writer, text: str) -> list[int]:
    """The tiny tokenizer gives letters other numbers than their bytes; the oracle above takes bytes."""
    assert len(writer.encode(text)) == len(text)
    return list(text.encode())


def test_no_half_character_is_shown(checkpoint):
    writer, pieces = Writer(str(checkpoint)), []
    text = "é" * 3
    ids = writer.encode(text)
    from octoscale.generate import _Streamer

    streamer = _Streamer(2, writer._decode, pieces.append)
    streamer.put(torch.tensor([1, 2]))
    for i in ids:
        streamer.put(torch.tensor([i]))
    streamer.end()
    assert pieces == ["é", "é", "é"]


def test_the_scaling_of_a_stored_checkpoint_is_its_own(checkpoint, fp8):
    assert choose_scaling(str(fp8), None) == choose_scaling(str(fp8), "stored") == "stored"
    assert choose_scaling(str(checkpoint), None) == choose_scaling("llama-1b", None) == "amax"
    with pytest.raises(ValueError, match="holds FP8 weights with their scales already: leave --scaling out"):
        choose_scaling(str(fp8), "amax")


def test_chance_is_seeded(checkpoint):
    writer = Writer(str(checkpoint), "bf16")
    hot = {"temperature": 2.0, "max_new_tokens": 20}
    first, again, other = (writer.write([5, 6], Sampling(seed=seed, **hot), len).ids for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "x", "--max-new-tokens", "0"], "0 new tokens: at least 1"),
        (["--prompt", "x", "--max-new-tokens", "64"], "1 tokens and 64 new ones"),
        (["--prompt", "x", "--temperature", "-1"], "temperature -1.0"),
        (["--prompt", "x", "--top-p", "0"], "top_p 0.0"),
        (["--prompt", "x", "--scaling", "amaxx"], "unknown scaling"),
        (["--prompt", "x", "--activations", "some"], "unknown activations"),
    ],
)
def test_a_mistake_is_one_line(options, message, checkpoint, run):  # noqa: F811
    code, out, err = run("generate", checkpoint, *options)
    assert (code, out) == (2, "")
    assert err.startswith("octoscale: error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_command_streams_and_counts(checkpoint, run):  # noqa: F811
    code, out, err = run("generate", checkpoint, "--prompt", "Once", "--max-new-tokens", "5")
    assert code == 0
    assert "in amax: 0 of 2 decoder layers fused; model.layers.0 and 1 more: its sizes are no multiples of 16" in err
    assert "5 tokens, " in err
    code, shown, _ = run("generate", checkpoint, "--prompt", "Once", "--max-new-tokens", "5", "--json")
    assert json.loads(shown)["text"] + "\n" == out
    assert json.loads(shown)["new_tokens"] == 5


def test_chat_keeps_the_conversation(checkpoint, run, monkeypatch):  # noqa: F811
    code, _, err = run("chat", checkpoint)
    assert (code, "no chat template" in err) == (2, True)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(checkpoint)
    lines, asked = iter(["hi", "yo", ""]), []
    monkeypatch.setattr(cli_module(), "_ask", lambda: next(lines))
    write = Writer.write
    monkeypatch.setattr(Writer, "write", lambda self, ids, *rest: asked.append(ids) or write(self, ids, *rest))
    code, out, _ = run("chat", checkpoint, "--max-new-tokens", "3")
    assert code == 0
    decode = Writer(str(checkpoint))._decode
    assert decode(asked[0]) == "u:hi;a:"
    assert decode(asked[1]).startswith("u:hi;a:")
    assert decode(asked[1]).endswith(";u:yo;a:")
    assert out.count("\n") >= 2


def cli_module():
    from octoscale import cli

    return cli


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("kind", ["BF16", "Q8_0"])
def test_a_gguf_file_holds_the_same_model(kind, changes, tmp_path):
    model = tiny_llama(hidden_size=64, intermediate_size=96, **changes).to(torch.bfloat16)
    gguf_shape.write(model, tmp_path / "model.gguf", kind)
    again = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).eval()
    with torch.no_grad():
        expected, found = model.float()(tokens()).logits, again(tokens()).logits
    assert (found - expected).norm() < {"BF16": 1e-5, "Q8_0": 0.02}[kind] * expected.norm()


def test_the_benchmark_reports_its_ratios(tmp_path, monkeypatch):
    for name, value in {"PROMPT": 4, "NEW_TOKENS": 4, "PREFILL": 20, "_SLOW_TOKENS": 3}.items():
        monkeypatch.setattr(bench_generate, name, value)
    tiny_llama(hidden_size=64, intermediate_size=96).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    report = bench_generate.generate(str(tmp_path / "model"), rounds=1)
    decode, ratios = report["decode, tokens/s"], report["ratios"]
    assert ratios["decode_speedup_over_bf16"] == decode["ours W8A8 AMAX"] / decode["transformers bf16"]
    assert ratios["decode_fraction_of_limit"] == decode["ours W8A8 AMAX"] / report["limits"]["decode_tokens_per_s"]
    assert ratios["decode_speedup_over_llama_q8"] is ratios["prefill_speedup_over_llama_bf16"] is None
    linears = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    others = 2 * (5 * 64 + 96 * 64) + 2 * 7 * 4  # norms and head in bfloat16, scales in float32
    assert report["limits"]["GB_read_for_a_token"] * 1e9 == linears + others
    terminal.bench_table(report)
    with pytest.raises(ValueError, match="there is no such program"):
        bench_generate.generate(str(tmp_path / "model"), tmp_path / "llama-bench")
