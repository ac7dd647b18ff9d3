"""Ids of classifiers. Oracle: transformers' tokenizer, called as its documentation says, and its own models."""

import json

import pytest
import torch
import transformers
from checkpoints import save_tiny_llama
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as backends

from octoscale.models import loading
from octoscale.models.classifier_ids import choose_filling, fill_up, make_reader
from octoscale.models.labels import read_labeled
from octoscale.models.loading import LoadedModel
from octoscale.training.data import labeled_data
from octoscale.training.run import run_training
from octoscale.training.settings import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
SIZES = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}

#: How a family's tokenizer sets one text, and two.
TEMPLATES = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    "t5": ("$A [SEP]", "$A [SEP] $B [SEP]"),
    "llama": ("[CLS] $A", "[CLS] $A [CLS] $B"),
    "gpt2": None,
}


def tokenizer_like(template, **changes):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *letters])}
    backend = Tokenizer(backends.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if template is not None:
        single, pair = template
        words = [("[CLS]", 1), ("[SEP]", 2)]
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=words)
    words = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **{**words, **changes})


def bert(**changes):
    return transformers.BertForSequenceClassification(transformers.BertConfig(**{**ENCODER, **changes}))


def roberta():
    config = transformers.RobertaConfig(**{**ENCODER, "pad_token_id": 1})
    return transformers.RobertaForSequenceClassification(config)


def t5():
    sizes = {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    config = transformers.T5Config(**sizes, eos_token_id=2, pad_token_id=0, decoder_start_token_id=0)
    return transformers.T5ForSequenceClassification(config)


def llama(**changes):
    config = transformers.LlamaConfig(**{**ENCODER, "num_key_value_heads": 2, "eos_token_id": 2, **changes})
    return transformers.LlamaForSequenceClassification(config)


FAMILIES = {"bert": bert, "roberta": roberta, "t5": t5, "llama": llama, "gpt2": llama}


def loaded(name, tokenizer=None, model=None) -> LoadedModel:
    tokenizer = tokenizer or tokenizer_like(TEMPLATES[name])
    encode = lambda text: list(tokenizer(text, add_special_tokens=False).input_ids)  # noqa: E731
    return LoadedModel(name=name, model=model or FAMILIES[name](), encode=encode, tokenizer=tokenizer)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("text", ["good film", "", "é", "x" * 99])
def test_one_text_has_the_ids_that_the_tokenizer_gives(name, text):
    model = loaded(name)
    found = make_reader(model, 16)([text])
    expected = model.tokenizer(text, truncation=True, max_length=16)
    assert found["input_ids"].tolist() == expected.input_ids
    if len(text) == 99 and TEMPLATES[name] is not None:  # cut off, and whole at both ends
        single = TEMPLATES[name][0].split()
        assert len(found["input_ids"]) == 16
        assert (single[0] == "[CLS]") == (int(found["input_ids"][0]) == 1)
        assert (single[-1] == "[SEP]") == (int(found["input_ids"][-1]) == 2)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("texts", [("a dog", "an animal"), ("x" * 50, "y" * 30)])
def test_two_texts_go_as_two_where_the_tokenizer_sets_them_apart(name, texts):
    model = loaded(name)
    found = make_reader(model, 24)(texts)
    apart = ["\n".join(texts)] if name == "gpt2" else texts
    expected = model.tokenizer(*apart, truncation=True, max_length=24)
    assert found["input_ids"].tolist() == expected.input_ids


def test_the_second_text_has_types_where_the_model_takes_them():
    tokenizer = tokenizer_like(TEMPLATES["bert"])
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    found = make_reader(loaded("bert", tokenizer), 24)(("a dog", "a cat"))
    assert found["token_type_ids"].tolist() == tokenizer("a dog", "a cat").token_type_ids
    assert set(found["token_type_ids"].tolist()) == {0, 1}
    assert set(make_reader(loaded("llama", tokenizer), 24)(("a dog", "a cat"))) == {"input_ids"}


def test_special_tokens_need_room():
    with pytest.raises(ValueError, match="a window of 3 tokens has no room beside 3 special tokens: raise --window"):
        make_reader(loaded("bert"), 3)


def test_the_tokenizer_is_left_as_it_was():
    """Oracle: its own file, which would say that it cuts off."""
    model = loaded("bert")
    before = model.tokenizer.backend_tokenizer.to_str()
    make_reader(model, 16)(["x" * 99])
    assert model.tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize(
    ("changes", "tokenizer", "pad"),
    [
        ({"pad_token_id": 3}, {}, 3),
        ({"pad_token_id": None}, {}, 0),
        ({"pad_token_id": None}, {"pad_token": None}, 2),
        ({"pad_token_id": None, "eos_token_id": [290, 291]}, {"pad_token": None}, 290),
        ({"pad_token_id": None, "eos_token_id": [999, 291]}, {"pad_token": None}, 291),
        ({"pad_token_id": -1}, {}, 0),
        ({"pad_token_id": -1, "eos_token_id": 7}, {"pad_token": None}, 7),
        ({"pad_token_id": None, "eos_token_id": None}, {"pad_token": None}, 0),
    ],
)
def test_the_id_that_fills_up(changes, tokenizer, pad):
    model = loaded("llama", tokenizer_like(TEMPLATES["llama"], **tokenizer), llama())
    model.model.config.update(changes)
    assert choose_filling(model).pad == pad
    assert model.model.config.get_text_config().pad_token_id == pad


def test_both_sides_and_types_are_filled_up():
    rows = [
        {"input_ids": torch.tensor(ids), "token_type_ids": torch.ones(len(ids)).long(), "labels": torch.tensor(0)}
        for ids in ([5, 6, 7], [8])
    ]
    batch = fill_up(rows, 9, type_pad=3, side="left")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1], [3, 3, 1]]


def test_xlnet_is_filled_up_on_the_left():
    """Its head takes the last place."""
    config = transformers.XLNetConfig(vocab_size=300, d_model=32, n_layer=1, n_head=4, d_inner=64)
    model = loaded("bert", model=transformers.XLNetForSequenceClassification(config))
    assert choose_filling(model).side == "left"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_gives_what_each_text_alone_gives(name):
    """Oracle: transformers' own model on the tokenizer's own tensors."""
    model = loaded(name)
    read, filling = make_reader(model, 32), choose_filling(model)
    model.model.eval()
    texts = ["good", "a much longer film"]
    batch = fill_up([{**read([text]), "labels": torch.tensor(0)} for text in texts], filling.pad)
    with torch.no_grad():
        together = model.model(**batch).logits
        alone = [
            model.model(**model.tokenizer(text, return_tensors="pt", return_token_type_ids=False)) for text in texts
        ]
    assert torch.allclose(together, torch.cat([answer.logits for answer in alone]), atol=1e-5)


LINES = "".join(f"{label}\t{text}\tsecond\n" for text, label in (("good film", 1), ("a bad film", 0)) * 9)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_trains_on_pairs(name, tmp_path):
    FAMILIES[name]().save_pretrained(tmp_path / "model")
    tokenizer_like(TEMPLATES[name]).save_pretrained(tmp_path / "model")
    (tmp_path / "pairs.tsv").write_text("label\tfirst\tsecond\n" + LINES)
    words = {"model": str(tmp_path / "model"), "task": str(tmp_path / "pairs.tsv"), "window": 32, "steps": 2}
    run = run_training(Training(**words, batch=2, every=0, save_every=0), tmp_path / "run")
    assert 0 <= run.read_json(run.summary)["validation_accuracy"]["after"] <= 1
    labels = json.loads((run.model / "config.json").read_text())["id2label"]
    assert labels == {"0": "0", "1": "1"}


def test_a_loaded_classifier_has_special_tokens_and_a_language_model_none(tmp_path):
    bert().save_pretrained(tmp_path / "bert")
    tokenizer_like(TEMPLATES["bert"]).save_pretrained(tmp_path / "bert")
    assert (
        loading.load(str(tmp_path / "bert"), num_labels=2).encode("a")
        == tokenizer_like(TEMPLATES["bert"])("a").input_ids
    )
    causal = save_tiny_llama(tmp_path / "llama")
    tokenizer_like(TEMPLATES["llama"]).save_pretrained(causal)
    assert len(loading.load(str(causal)).encode("a")) == 1


def test_a_token_beyond_the_vocabulary_is_one_line(tmp_path):
    (tmp_path / "task.tsv").write_text("label\ttext\n0\tgood\n1\té\n")
    texts = read_labeled(str(tmp_path / "task.tsv"))
    model = loaded("bert", model=bert(vocab_size=120))
    with pytest.raises(ValueError, match=r"holds token \d+, and the model has 120: the tokenizer is another model's"):
        labeled_data(Training(model="m", task="task.tsv", window=32), texts, texts, model)


def test_bytes_and_tokenizers_without_special_tokens_read_as_before(tmp_path):
    """Oracle: the ids of the text, cut off; two texts with a line break between."""
    folder = str(save_tiny_llama(tmp_path / "llama"))
    model = loading.load(folder, num_labels=2)
    read = make_reader(model, 9)
    assert read(["good film"])["input_ids"].tolist() == model.encode("good film")[:9]
    assert read(["good", "film"])["input_ids"].tolist() == model.encode("good\nfilm")[:9]
    size = LoadedModel(name="gpt-10m", model=model.model, encode=lambda text: list(text.encode()))
    assert make_reader(size, 9)(["good", "film"])["input_ids"].tolist() == list(b"good\nfilm")
