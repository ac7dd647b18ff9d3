"""A trained model is saved with what reads its texts. Oracle: the ids of the training; the commands that come next."""

import json

import pytest
import transformers
from checkpoints import save_tiny_llama

from octoscale.models import loading
from octoscale.models.loading import Size, load
from octoscale.training.run import run_training
from octoscale.training.settings import Training
from octoscale.training.trained_files import save_reader, tokenizer_of_bytes

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

TEXTS = ["", "Once upon a time,\n\tthere was", "é à ü €", "日本語 🦊", "\x00\x7f\xa0­", " a  b ", "<s></s>[PAD]", "Ā ĠĊ"]


@pytest.fixture
def small_gpt(monkeypatch):
    """A size of the paper, and one that reads bytes, so small that they train at once."""
    small = {"family": "gpt", "d_model": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "d_ffn": 32}
    monkeypatch.setitem(loading.SIZES, "gpt-111m", Size(**small, max_positions=256))
    monkeypatch.setitem(loading.SIZES, "gpt-10m", Size(**small, max_positions=256, vocabulary=256))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    return tmp_path / "text.txt"


@pytest.mark.parametrize("words", TEXTS)
def test_the_tokenizer_of_bytes_gives_the_bytes(words, tmp_path):
    tokenizer_of_bytes().save_pretrained(tmp_path)
    for tokenizer in (tokenizer_of_bytes(), transformers.AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer(words).input_ids == list(words.encode())
        assert tokenizer.decode(list(words.encode())) == words


@pytest.mark.parametrize("size", ["gpt-10m", "gpt-111m"])
def test_a_trained_size_reads_as_it_was_trained(size, small_gpt, text, tmp_path, run):
    """Oracle: the ids of the size; generate, validate, and generate from FP8 end well."""
    args = [
        "--text",
        text,
        "--window",
        64,
        "--tokens",
        1500,
        "--steps",
        1,
        "--out",
        tmp_path / "run",
        "--save-every",
        1,
    ]
    code, _, err = run("train", size, *args)
    assert code == 0, err
    for folder in (tmp_path / "run" / "model", tmp_path / "run" / "checkpoints" / "checkpoint-1"):
        before, after = load(size), load(str(folder))
        assert all(after.encode(words) == before.encode(words) for words in TEXTS)
    model = tmp_path / "run" / "model"
    for words in (
        ["generate", model, "--prompt", "Once", "--max-new-tokens", 3],
        ["validate", model, "--text", text, "--window", 64, "--tokens", 64],
        ["quantize", model, tmp_path / "fp8"],
        ["generate", tmp_path / "fp8", "--prompt", "Once", "--max-new-tokens", 3],
    ):
        code, _, err = run(*words)
        assert code == 0, err


def test_a_folders_files_come_along_as_they_are(text, tmp_path):
    """Tokenizer, templates and vocabulary; not what describes the other model."""
    source = save_tiny_llama(tmp_path / "llama")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "rag.jinja").write_text("{{ messages }}")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    (source / "vocab.txt").write_text("words")
    (source / "README.md").write_text("another model")
    (source / "trainer_state.json").write_text("{}")
    (source / "pytorch_model.bin").write_bytes(b"weights")
    plan = Training(model=str(source), text=str(text), window=32, tokens=500, steps=1, save_every=0)
    model = run_training(plan, tmp_path / "run").model
    names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.txt"]
    for name in [*names, "additional_chat_templates/rag.jinja"]:
        assert (model / name).read_bytes() == (source / name).read_bytes()
    for name in ("README.md", "trainer_state.json", "pytorch_model.bin"):
        assert not (model / name).exists()
    assert json.loads((model / "generation_config.json").read_text())


def test_a_gguf_or_the_hub_have_their_tokenizer_written(tmp_path):
    loaded = load(str(save_tiny_llama(tmp_path / "llama")))
    named = loading.LoadedModel(name="org/name", model=loaded.model, encode=loaded.encode, tokenizer=loaded.tokenizer)
    (tmp_path / "out").mkdir()
    save_reader(named, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("Once upon").input_ids == loaded.encode("Once upon")


def test_a_classifier_answers_texts(tmp_path):
    """Oracle: transformers' pipeline takes the folder as it is, and names the classes."""
    source = save_tiny_llama(tmp_path / "llama")
    (tmp_path / "task.tsv").write_text("label\ttext\n" + "good\tgood film\nbad\ta bad film\n" * 6)
    plan = Training(model=str(source), task=str(tmp_path / "task.tsv"), window=32, steps=1, save_every=0)
    model = run_training(plan, tmp_path / "run").model
    ask = transformers.pipeline("text-classification", model=str(model), device="cpu")
    assert ask("good film")[0]["label"] in ("good", "bad")
    again = Training(**{**vars(plan), "model": str(model)})
    assert run_training(again, tmp_path / "again").summary.exists()
