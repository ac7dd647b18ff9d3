"""Words of a checkpoint folder, changed one by one. Oracle: the message names the file and the key, in one line.

What is tried: every key of config.json, generation_config.json, tokenizer_config.json, tokenizer.json x values of every
kind of JSON; files that are no files.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_tiny_llama

from octoscale.checkpoints.folder import blamed
from octoscale.models import loading
from octoscale.models.loading import ModelError

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

JUNK: dict[str, Any] = {
    "null": None,
    "a fraction": 7.5,
    "negative": -3,
    "zero": 0,
    "a billion": 10**9,
    "huge": 10**30,
    "not a number": float("nan"),
    "a text": "abc",
    "an empty text": "",
    "a list": [1, "a", None],
    "an object": {"a": {"b": [1]}},
    "true": True,
    "nested": [[[[{}]]]],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A good checkpoint whose config and generation config say more than a default one does."""
    folder = save_tiny_llama(tmp_path_factory.mktemp("whole") / "model")
    settings = {"eos_token_id": [255, 254], "temperature": 0.7, "top_k": 5, "suppress_tokens": [7], "do_sample": True}
    change(folder, "generation_config.json", lambda content: content.update(settings))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoint")


def change(folder: Path, name: str, how) -> None:
    content = json.loads((folder / name).read_text())
    how(content)
    (folder / name).write_text(json.dumps(content))


def ways(content: Any, way: tuple = ()) -> Iterator[tuple]:
    """Where values stand, in lists too unless they are long."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*way, key)
        if isinstance(value, dict | list) and len(value) < 20:
            yield from ways(value, (*way, key))


def mutations(whole: Path, name: str) -> Iterator[tuple[tuple, str, str]]:
    """Each place x each kind of junk: the place, what was put there, the file with it."""
    for way in ways(json.loads((whole / name).read_text())):
        for kind, junk in JUNK.items():
            content = json.loads((whole / name).read_text())
            inner = content
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = junk
            yield way, kind, json.dumps(content)


def use(folder: Path) -> str:
    """Load a model, let it read a text, and go on with it; returns its note."""
    loaded = loading.load(str(folder), torch.float32)
    if loaded.encode is None:
        return loaded.note
    ids = torch.tensor([loaded.encode("abcd")])
    with torch.no_grad():
        loaded.model(ids)
        words = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}  # as octoscale generate says them
        loaded.model.generate(ids, attention_mask=torch.ones_like(ids), **words)
    return loaded.note


def check_mutations(whole: Path, folder: Path, name: str, *, every: int) -> None:
    """It works, the weights are said to be too few or too many, or the file is named; nothing else happens."""
    for way, kind, text in list(mutations(whole, name))[::every]:
        (folder / name).write_text(text)
        try:
            said = use(folder)
        except ModelError as error:
            said = str(error) or "nothing"
        except Exception as error:
            raise AssertionError(f"{name}: {way} is {kind}") from error
        fits = not any(part in said for part in ("of the model's tensors", "has no use for"))
        assert not said or name in said or not fits, f"{name}: {way} is {kind}: {said}"
        assert "\n" not in said


FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")


@pytest.mark.parametrize("name", FILES)
def test_some_wrong_values_are_named_with_their_file(name, whole, folder):
    check_mutations(whole, folder, name, every={"tokenizer.json": 31}.get(name, 10))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_wrong_value_is_named_with_its_file(name, whole, folder):
    check_mutations(whole, folder, name, every=1)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("config.json", "vocab_size", "many", "config.json: vocab_size is 'many': TypeError: Field 'vocab_size'"),
        ("config.json", "hidden_act", "nosuch", "config.json: hidden_act is 'nosuch': KeyError: 'nosuch'"),
        ("config.json", "hidden_size", -8, "config.json: hidden_size is -8: "),
        ("config.json", "num_attention_heads", 0, "config.json: num_attention_heads is 0: "),
        ("config.json", "num_hidden_layers", 10**9, "config.json: num_hidden_layers is 1000000000: from 0 to 4096"),
        ("config.json", "rope_parameters", {"rope_type": "x"}, "config.json: rope_parameters.rope_type is 'x': KeyErr"),
        ("config.json", "model_type", "nosuch", "config.json: model_type is 'nosuch': transformers "),
        ("config.json", "model_type", None, "config.json: model_type is None: transformers "),
        ("config.json", "dtype", "float99", "config.json: dtype is 'float99': "),
        ("config.json", "attn_implementation", "org/kernel", "config.json: attn_implementation is 'org/kernel': code"),
        ("generation_config.json", "eos_token_id", "x", "generation_config.json: eos_token_id is 'x': it should be a"),
        ("generation_config.json", "top_k", 1.5, "generation_config.json: top_k is 1.5: it should be an integer"),
        ("generation_config.json", "temperature", "warm", "generation_config.json: temperature is 'warm': it should"),
    ],
)
def test_the_key_that_is_to_blame_is_named(name, key, value, message, folder):
    change(folder, name, lambda content: content.update({key: value}))
    with pytest.raises(ModelError) as caught:
        loading.load(str(folder))
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["model_max_length", "tokenizer_class", "extra_special_tokens"])
def test_a_tokenizer_that_cannot_be_used_is_named_with_the_key(key, folder):
    change(folder, "tokenizer_config.json", lambda content: content.update({key: [[1]]}))
    loaded = loading.load(str(folder))
    assert loaded.encode is None
    assert f"tokenizer_config.json: {key} is [[1]]: " in loaded.note


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"text"', "[" * 100_000, "\xff"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_json_object_is_named(name, text, folder):
    (folder / name).write_bytes(text.encode("latin-1"))
    try:
        note = loading.load(str(folder)).note
    except ModelError as error:
        note = str(error)
    assert name in note
    assert "\n" not in note


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the whole path may be too long for the address of a socket
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device])
@pytest.mark.parametrize(
    "name", [*FILES, "model.safetensors", "model.safetensors.index.json", "special_tokens_map.json", "vocab.txt"]
)
def test_what_is_no_regular_file_is_never_opened(name, make, folder):
    """A pipe would be waited for, forever, and /dev/zero read without end."""
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    kind = {make_pipe: "a pipe", make_socket: "a socket", make_device: "a device"}[make]
    for take in (loading.load, loading.skeleton, loading.is_stored):
        with pytest.raises(ModelError, match=rf"{name} is {kind}: only regular files are read"):
            take(str(folder))


def test_a_link_to_a_regular_file_is_one(whole, tmp_path):
    """As the hub's cache keeps them."""
    for path in whole.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert loading.load(str(tmp_path)).note == ""


def test_blamed_finds_the_value_without_which_all_is_well():
    content = {"a": 1, "b": {"c": {"bad": 2, "d": 3}, "e": 4}}

    def works(content):
        return "bad" not in content.get("b", {}).get("c", {})

    assert blamed(content, works) == ("b", "c", "bad")
    assert blamed(content, lambda _: False) == ()
    assert blamed({"first": 1, "second": 2}, lambda _: True, hint="Field 'second'") == ("second",)
