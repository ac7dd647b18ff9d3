"""Folders of checkpoints that replace only what octoscale wrote. Oracle: the files that stand there afterwards."""

import json
import os

import pytest
from checkpoints import save_tiny_llama
from test_cli import run  # noqa: F401

from octoscale.export import run_quantization
from octoscale.quantization import Quantization
from octoscale.whole_folder import OWN_KEY


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def quantize(source, out, **words):
    options = {key: words.pop(key) for key in ("resume", "overwrite") if key in words}
    run_quantization(Quantization(model=str(source), **words), out, **options)
    return contents(out)


WRITERS = {
    "quantize": lambda folder: ("quantize", str(folder / "model"), str(folder / "out")),
    "materialize": lambda folder: ("models", "--materialize", "gpt-10m", "--layers", "1", str(folder / "out")),
}


@pytest.fixture
def source(tmp_path):
    return save_tiny_llama(tmp_path / "model")


@pytest.mark.parametrize("writer", WRITERS)
def test_overwrite_replaces_what_octoscale_wrote(writer, source, run):  # noqa: F811
    command = WRITERS[writer](source.parent)
    out = source.parent / "out"
    assert run(*command)[0] == 0
    first = contents(out)
    code, _, err = run(*command)
    assert (code, "exists already" in err) == (2, True)
    assert contents(out) == first
    assert run(*command, "--overwrite")[0] == 0
    assert contents(out) == first
    assert sorted(json.loads((out / "config.json").read_text())[OWN_KEY]["files"]) == sorted(first)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("theirs", ["a folder", "their checkpoint", "ours and a note", "ours and more", "a file"])
def test_overwrite_never_replaces_what_others_wrote(theirs, writer, source, run):  # noqa: F811
    command = WRITERS[writer](source.parent)
    out = source.parent / "out"
    if theirs == "a folder":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    elif theirs == "their checkpoint":
        save_tiny_llama(out)
    elif theirs == "a file":
        out.write_text("mine")
    else:
        assert run(*command)[0] == 0
        note = out / ("note.txt" if theirs == "ours and a note" else "deeper/note.txt")
        note.parent.mkdir(exist_ok=True)
        note.write_text("mine")
    before = contents(source.parent)
    code, _, err = run(*command, "--overwrite")
    assert code == 2
    assert "out" in err
    assert contents(source.parent) == before


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_stays_and_its_target_is_written(writer, source, run):  # noqa: F811
    folder = source.parent
    (folder / "out").symlink_to(folder / "elsewhere")
    command = WRITERS[writer](folder)
    assert run(*command)[0] == 0
    assert (folder / "out").is_symlink()
    first = contents(folder / "elsewhere")
    assert run(*command, "--overwrite")[0] == 0
    assert (folder / "out").is_symlink()
    assert contents(folder / "elsewhere") == first


def test_out_is_never_the_source(source, run):  # noqa: F811
    before = contents(source)
    for out in (source, source.parent):
        assert run("quantize", str(source), str(out), "--overwrite")[0] == 2
    assert contents(source) == before


def test_a_replacement_that_was_cut_short_is_taken_back(source):
    out = source.parent / "out"
    first = quantize(source, out)
    out.rename(out.with_name(".out.old.tmp"))
    with pytest.raises(FileExistsError, match="exists already"):
        quantize(source, out)
    assert contents(out) == first


def stop_after_the_first_shard(source, out, monkeypatch, **words):
    """Leave behind what a killed run does."""
    from octoscale import checkpoint

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_write_rest", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize(source, out, **words)
    return out.with_name(f".{out.name}.tmp")


STATIC = {"activations": "static", "window": 8, "tokens": 64}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"calibrate": "other"}, "input_bias"),
        ({"scaling": "amax:margin=1"}, "report, input_bias"),
        ({"layout": "vllm-fp8"}, "layout"),
        ({"tie_fused": True}, "tie_fused"),
        ({"skip": ["down_proj"]}, "report, input_bias"),
        ({"activations": "dynamic"}, "activations, input_bias"),
    ],
)
def test_resume_goes_on_under_the_same_terms_only(change, named, source, monkeypatch):
    texts = {name: source.parent / f"{name}.txt" for name in ("one", "other")}
    texts["one"].write_text("a quiet text " * 40)
    texts["other"].write_text("\N{SNOWMAN}!QXZ~" * 40)
    words = {**STATIC, "calibrate": str(texts["one"])}
    out = source.parent / "out"
    stop_after_the_first_shard(source, out, monkeypatch, **words)
    changed = words | change
    changed["calibrate"] = str(texts["other"]) if "calibrate" in change else words["calibrate"]
    if "activations" in change:
        changed = {key: value for key, value in changed.items() if key not in ("window", "tokens", "calibrate")}
    with pytest.raises(ValueError, match=rf"other options \(({named})\): leave out --resume"):
        quantize(source, out, resume=True, **changed)
    assert quantize(source, out, resume=True, **words) == quantize(source, source.parent / "whole", **words)


def test_resume_notices_a_source_that_changed(source, monkeypatch):
    out = source.parent / "out"
    stop_after_the_first_shard(source, out, monkeypatch)
    stat = (source / "model.safetensors").stat()
    os.utime(source / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="another state of the source"):
        quantize(source, out, resume=True)


def test_what_a_killed_run_left_half_written_does_not_ship(source, monkeypatch):
    out = source.parent / "out"
    hidden = stop_after_the_first_shard(source, out, monkeypatch)
    (hidden / ".model-00001-of-00002.safetensors.4711.tmp").write_bytes(b"half")
    found = quantize(source, out, resume=True)
    assert not any("tmp" in name or "terms" in name for name in found)


def test_every_file_beside_the_weights_comes_along(source):
    names = ["tokenizer.model", "vocab.bpe", "spiece.txt", "merges.tiktoken", "NOTICE", "preprocessor_config.json"]
    for name in [*names, "additional_chat_templates/tool.jinja"]:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    for name in ("pytorch_model.bin", "model.gguf", "consolidated.00.pth", ".gitattributes", "onnx/model.onnx"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("weights")
    found = quantize(source, source.parent / "out")
    for name in [*names, "additional_chat_templates/tool.jinja"]:
        assert found[name] == name.encode()
    assert not any(content == b"weights" for content in found.values())


def test_a_writer_holds_its_folder(source, monkeypatch):
    """The second command on the same folder, while the first is in the middle of it."""
    from octoscale import checkpoint

    out, write_rest = source.parent / "out", checkpoint._write_rest

    def meanwhile(*arguments):
        monkeypatch.undo()
        with pytest.raises(FileExistsError, match="another octoscale command"):
            quantize(source, out)
        write_rest(*arguments)

    monkeypatch.setattr(checkpoint, "_write_rest", meanwhile)
    assert quantize(source, out) == quantize(source, source.parent / "alone")
