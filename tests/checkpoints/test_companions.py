"""What comes along with the weights. Oracle: what transformers' tokenizer says of both folders; names, by hand."""

import pytest
from checkpoints import byte_tokenizer, note, quantize, save_tiny_llama
from transformers import AutoTokenizer

from octoscale.checkpoints.companions import companions, patterns_of_others


@pytest.fixture
def source(tmp_path):
    return save_tiny_llama(tmp_path / "model")


COME = (
    *("tokenizer.model", "vocab.bpe", "spiece.txt", "merges.tiktoken", "bpe.codes", "vocab.txt.gz", "NOTICE", "a b.md"),
    *("preprocessor_config.json", "special.JSON", "recipe.yaml", "no_ending", "additional_chat_templates/tool.jinja"),
    *("qformer_tokenizer/tokenizer_config.json", "qformer_tokenizer/vocab.txt", "audio/preprocessor_config.json"),
)
STAY = (
    *(
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "model.gguf",
        "consolidated.00.pth",
        "tf_model.h5",
        "A.SAFETENSORS",
    ),
    *(
        "onnx/model.onnx",
        "onnx/tokenizer_config.json",
        "optimizer.pt",
        "training_args.bin",
        "modeling_mine.py",
        "x.npz",
    ),
    *(
        "model.fp16.safetensors.index.json",
        ".gitattributes",
        ".git/config",
        ".hidden/vocab.txt",
    ),
    *("checkpoint-5/model.safetensors", "checkpoint-5/tokenizer_config.json", "data/train.jsonl", "octoscale.json"),
)


def test_every_file_beside_the_weights_comes_along(source):
    for name in (*COME, *STAY):
        note(source, name, name)
    (source / "loop").symlink_to(source)
    found = quantize(source, source.parent / "out")
    assert {name: found.get(name) for name in COME} == {name: name.encode() for name in COME}
    assert set(found) & set(STAY) == {"octoscale.json"}  # our own
    assert found["octoscale.json"] != b"octoscale.json"


def test_a_link_to_a_file_is_followed(source):
    """As in the cache of the hub."""
    note(source.parent / "blobs", "1234", "words")
    (source / "NOTICE").symlink_to(source.parent / "blobs" / "1234")
    assert quantize(source, source.parent / "out")["NOTICE"] == b"words"


def test_the_order_is_fixed(source):
    note(source, "additional_chat_templates/b.jinja")
    names = [path.relative_to(source).as_posix() for path in companions(source)]
    assert names == [*sorted(name for name in names if "/" not in name), "additional_chat_templates/b.jinja"]


def test_all_chat_templates_come_along(source):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"default": "D", "tool_use": "T"}
    tokenizer.save_pretrained(source)
    quantize(source, source.parent / "out")
    templates = [AutoTokenizer.from_pretrained(folder).chat_template for folder in (source, source.parent / "out")]
    assert templates[0] == templates[1] == {"default": "D", "tool_use": "T"}


def test_the_hub_gives_what_comes_along():
    """Oracle: huggingface_hub's own filter."""
    from huggingface_hub.utils import filter_repo_objects

    weights = ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin", "original/x.pth", "a.py"]
    found = set(filter_repo_objects([*COME, *weights], ignore_patterns=patterns_of_others()))
    assert found == {*COME, "model.safetensors", "model-00001-of-00002.safetensors"}
