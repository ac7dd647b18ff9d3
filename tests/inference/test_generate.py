"""Text from models in FP8. Oracles: transformers' own generate; a GGUF file that transformers reads again."""

import json
from functools import partial

import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import tiny_llama, tokens
from transformers import AutoModelForCausalLM, GgufConfig

from octoscale.bench import generate, gguf_shape
from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.checkpoints.settings import Quantization
from octoscale.inference.generate import Sampling, Writer, choose_scaling
from octoscale.models.export import run_quantization
from octoscale.report import terminal

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
    from octoscale.inference.generate import _Streamer

    streamer = _Streamer(2, writer._decode, pieces.append)
    streamer.put(torch.tensor([1, 2]))
    for i in ids:
        streamer.put(torch.tensor([i]))
    streamer.end()
    assert pieces == [text]


def test_the_scaling_of_a_stored_checkpoint_is_its_own(checkpoint, fp8):
    assert choose_scaling(str(fp8), None) == choose_scaling(str(fp8), "stored") == "stored"
    assert choose_scaling(str(checkpoint), None) == choose_scaling("llama-1b", None) == "amax"
    with pytest.raises(ValueError, match="holds FP8 weights with their scales already: leave --scaling out"):
        choose_scaling(str(fp8), "amax")


@pytest.mark.parametrize("options", [(), ("--temperature", "0.7", "--top-p", "0.9")])
@pytest.mark.parametrize("name", ["model.layers.1.mlp.down_proj.weight", "model.norm.weight", "lm_head.weight"])
def test_logits_that_are_not_finite_are_no_text(name, options, checkpoint, run):
    """Also of a model in high precision: argmax of NaN is token 0."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.get_parameter(name).data.flatten()[5] = float("nan")
    model.save_pretrained(checkpoint)
    code, out, err = run(
        "generate", checkpoint, "--prompt", "x", "--max-new-tokens", "3", "--scaling", "bf16", *options
    )
    assert (code, out) == (2, "")
    assert f"token 1: the logits hold infinity or NaN; {name} holds infinity or NaN, mend the checkpoint" in err


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
        (["--prompt", "x", "--max-new-tokens", "9" * 30], "9 new tokens: at least 1, and fewer than 2**31"),
        (["--prompt", "x", "--temperature", "inf"], "temperature inf"),
        (["--prompt", "x", "--temperature", "nan"], "temperature nan"),
        (["--prompt", "x", "--seed", "9" * 30], "9: a whole number of 64 bits"),
        (["--prompt", "x", "--max-new-tokens", "64"], "1 tokens and 64 new ones"),
        (["--prompt", "x", "--temperature", "-1"], "temperature -1.0"),
        (["--prompt", "x", "--top-p", "0"], "top_p 0.0"),
        (["--prompt", "x", "--scaling", "amaxx"], "unknown scaling"),
        (["--prompt", "x", "--activations", "some"], "unknown activations"),
    ],
)
def test_a_mistake_is_one_line(options, message, checkpoint, run):
    code, out, err = run("generate", checkpoint, *options)
    assert (code, out) == (2, "")
    assert err.startswith("octoscale: error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_command_streams_and_counts(checkpoint, run):
    code, out, err = run("generate", checkpoint, "--prompt", "Once", "--max-new-tokens", "5")
    assert code == 0
    assert "in amax: 0 of 2 decoder layers fused; model.layers.0 and 1 more: its sizes are no multiples of 16" in err
    assert "5 tokens, " in err
    code, shown, _ = run("generate", checkpoint, "--prompt", "Once", "--max-new-tokens", "5", "--json")
    assert json.loads(shown)["text"] + "\n" == out
    assert json.loads(shown)["new_tokens"] == 5


def test_chat_keeps_the_conversation(checkpoint, run, monkeypatch):
    code, _, err = run("chat", checkpoint)
    assert (code, "no chat template" in err) == (2, True)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(checkpoint)
    lines, asked = iter(["hi", "yo", ""]), []
    monkeypatch.setattr("octoscale.cli.ship._ask", lambda: next(lines))
    write = Writer.write
    monkeypatch.setattr(Writer, "write", lambda self, ids, *rest: asked.append(ids) or write(self, ids, *rest))
    code, out, _ = run("chat", checkpoint, "--max-new-tokens", "3")
    assert code == 0
    decode = Writer(str(checkpoint))._decode
    assert decode(asked[0]) == "u:hi;a:"
    assert decode(asked[1]).startswith("u:hi;a:")
    assert decode(asked[1]).endswith(";u:yo;a:")
    assert out.count("\n") >= 2


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


@pytest.mark.slow
def test_the_benchmark_reports_its_ratios(tmp_path, monkeypatch):
    for name, value in {"PROMPT": 4, "NEW_TOKENS": 4, "PREFILL": 20, "_SLOW_TOKENS": 3}.items():
        monkeypatch.setattr(generate, name, value)
    tiny_llama(hidden_size=64, intermediate_size=96).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    report = generate.generate(str(tmp_path / "model"), rounds=1)
    decode, ratios = report["decode, tokens/s"], report["ratios"]
    assert ratios["decode_speedup_over_bf16"] == decode["ours W8A8 AMAX"] / decode["transformers bf16"]
    assert ratios["decode_fraction_of_limit"] == decode["ours W8A8 AMAX"] / report["limits"]["decode_tokens_per_s"]
    assert ratios["decode_speedup_over_llama_q8"] is ratios["prefill_speedup_over_llama_bf16"] is None
    linears = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    others = 2 * (5 * 64 + 96 * 64) + 2 * 7 * 4  # norms and head in bfloat16, scales in float32
    assert report["limits"]["GB_read_for_a_token"] * 1e9 == linears + others
    terminal.bench_table(report)
    with pytest.raises(ValueError, match="there is no such program"):
        generate.generate(str(tmp_path / "model"), tmp_path / "llama-bench")


def byte_level():
    from checkpoints import byte_tokenizer

    return byte_tokenizer(), 256


def cleaning():
    """A sentencepiece-like tokenizer whose decoding takes spaces before punctuation away."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁word", "▁'", "s", "n't", "▁n't", "▁.", "▁,", "▁!", "▁?", "▁do", "▁'s", "ing", "▁漢", "字"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=True), len(words)


def wordpiece():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "word", "##s", "'", ".", ",", "do", "n", "##'", "t", "!", "[CLS]"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="[CLS]"), len(words)


def byte_fallback():
    """Llama 2's: pieces, and bytes for characters that have none."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "▁word": 1, "s": 2, "▁": 3} | {f"<0x{i:02X}>": 4 + i for i in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer), len(vocabulary)


TOKENIZERS = {f.__name__: f for f in (byte_level, cleaning, wordpiece, byte_fallback)}
SAID = "ein Wörtchen, 漢字と \N{GRINNING FACE}!".encode()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_streamed_is_the_text_of_all_ids(name):
    """Oracle: the tokenizer's own decoding of all ids at once, of many random sequences."""
    from octoscale.inference.generate import _Streamer, byte_finder

    tokenizer, size = TOKENIZERS[name]()
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    lengths = (1, 2, 5, 30, 90)
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(size, (n,), generator=generator).tolist() for n in lengths for _ in range(30)]
    if name == "byte_level":
        rows += [tokenizer(SAID.decode()).input_ids, tokenizer("x" * 200 + " y").input_ids]
    if name == "byte_fallback":
        rows += [[4 + byte for byte in SAID]]
    for ids in rows:
        pieces = []
        streamer = _Streamer(0, decode, pieces.append, byte_finder(tokenizer))
        for i in ids:
            streamer.put(torch.tensor([i]))
        streamer.end()
        assert "".join(pieces) == decode(ids)


def test_a_long_text_comes_word_by_word():
    from octoscale.inference.generate import _Streamer

    tokenizer, pieces = byte_level()[0], []
    streamer = _Streamer(0, tokenizer.decode, pieces.append)
    for i in tokenizer("one two three 漢字").input_ids:
        streamer.put(torch.tensor([i]))
    assert "".join(pieces) == "one two three 漢字"
    assert len(pieces) >= 4


WISHES = {
    "beams": ({"num_beams": 4}, "num_beams"),
    "sequences": ({"num_return_sequences": 3, "do_sample": True}, "num_return_sequences"),
    "stop strings": ({"stop_strings": ["<|stop|>"]}, ""),
    "several ends": ({"eos_token_id": [2, 3], "pad_token_id": None}, ""),
    "no padding": ({"pad_token_id": -1, "eos_token_id": None}, ""),
    "look-up": ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wish", WISHES)
def test_what_a_generation_config_asks_for_is_honored_or_said(wish, checkpoint, tmp_path, run):
    import json
    import shutil

    change, said = WISHES[wish]
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    code, _, err = run("generate", folder, "--prompt", "Once", "--max-new-tokens", "4")
    assert code == 0
    assert (said in err) if said else ("one text is written" not in err)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scaling", "stored"), "holds no FP8 weights with scales: leave --scaling out"),
        (("--scaling", "bf16", "--activations", "static"), "runs in bf16: leave --activations out"),
    ],
)
def test_a_request_without_effect_is_an_error(options, message, checkpoint, run):
    code, out, err = run("generate", checkpoint, "--prompt", "x", *options)
    assert (code, out) == (2, "")
    assert message in err


def test_activations_of_a_stored_checkpoint_are_its_own(fp8, run):
    code, out, err = run("generate", fp8, "--prompt", "x", "--activations", "none")
    assert (code, out) == (2, "")
    assert "says what becomes of activations: leave --activations out" in err


def test_a_composite_config_writes_within_its_positions(tmp_path, run):
    from architectures import save

    save("gemma3", tmp_path / "m")
    assert run("generate", "m", "--prompt", "Once", "--max-new-tokens", "4")[0] == 0
    code, _, err = run("generate", "m", "--prompt", "Once", "--max-new-tokens", "400")
    assert code == 2
    assert "are more than the 64 that m can read" in err


def test_no_text_is_lost_where_a_decoder_takes_back_what_it_said():
    """A decoder that rewrites its beginning, which none that we know does: the end is still there."""
    from octoscale.inference.generate import _Streamer

    pieces = []
    texts = {0: "", 1: "one ", 2: "one two ", 3: "ONE two three"}
    streamer = _Streamer(0, lambda ids: texts[len(ids)], pieces.append)
    for i in range(3):
        streamer.put(torch.tensor([i]))
    streamer.end()
    assert "".join(pieces).endswith("ONE two three")
