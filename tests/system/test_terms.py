"""A stopped run goes on under the same terms only. Oracle: the files that a run writes which was not stopped."""

import os

import pytest
from checkpoints import note, quantize, save_tiny_llama


@pytest.fixture
def source(tmp_path):
    return save_tiny_llama(tmp_path / "model")


def stop_after_the_first_shard(source, out, monkeypatch, **words):
    """Leave behind what a killed run does."""
    from octoscale.checkpoints import quantize as checkpoint

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


def touch(path):
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def swap(path):
    """Another file of the same size and time: as a synchronization by time and size leaves it."""
    other, stat = path.with_name("other"), path.stat()
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(path)


SOURCE_CHANGES = {
    "weights written to": lambda source: touch(source / "model.safetensors"),
    "weights replaced": lambda source: swap(source / "model.safetensors"),
    "config written to": lambda source: touch(source / "config.json"),
    "tokenizer gone": lambda source: (source / "tokenizer.json").unlink(),
    "another file": lambda source: note(source, "NOTICE"),
}


@pytest.mark.parametrize("change", SOURCE_CHANGES)
def test_resume_notices_a_source_that_changed(change, source, monkeypatch):
    out = source.parent / "out"
    stop_after_the_first_shard(source, out, monkeypatch)
    SOURCE_CHANGES[change](source)
    with pytest.raises(ValueError, match="another state of the source"):
        quantize(source, out, resume=True)
    assert quantize(source, out) == quantize(source, source.parent / "whole")


@pytest.mark.parametrize("change", SOURCE_CHANGES)
def test_a_source_that_changes_while_it_is_read_is_noticed(change, source, monkeypatch):
    from octoscale.checkpoints import quantize as checkpoint

    write_rest = checkpoint._write_rest
    monkeypatch.setattr(checkpoint, "_write_rest", lambda *args: (write_rest(*args), SOURCE_CHANGES[change](source)))
    with pytest.raises(ValueError, match="changed while the checkpoint was read"):
        quantize(source, source.parent / "out")
    assert not (source.parent / "out").exists()


def test_a_source_that_changes_while_a_text_is_read_is_noticed(source, monkeypatch):
    """Its static scales are of other weights than those that are cast afterwards."""
    from octoscale.models import export

    calibrate = export.calibrate
    monkeypatch.setattr(export, "calibrate", lambda *args: (calibrate(*args), touch(source / "model.safetensors"))[0])
    with pytest.raises(ValueError, match=r"model\.safetensors changed while the checkpoint was read: begin again"):
        quantize(source, source.parent / "out", **STATIC)
    assert [path.name for path in source.parent.iterdir()] == ["model"]


def test_resume_and_overwrite_are_two_wishes(source, run):
    code, _, err = run("quantize", str(source), str(source.parent / "out"), "--resume", "--overwrite")
    assert code == 2
    assert "--resume goes on with what a stopped run left, --overwrite begins again: choose one of them" in err


def test_out_is_looked_at_before_a_text_is_read(source, monkeypatch):
    """Minutes of calibration must not end in a refusal."""
    from octoscale.models import export

    quantize(source, source.parent / "out")
    monkeypatch.setattr(export, "calibrate", lambda *_: pytest.fail("calibrated"))
    with pytest.raises(FileExistsError, match="exists already"):
        quantize(source, source.parent / "out", **STATIC)


def test_what_a_killed_run_left_half_written_does_not_ship(source, monkeypatch):
    out = source.parent / "out"
    hidden = stop_after_the_first_shard(source, out, monkeypatch)
    (hidden / ".model-00001-of-00002.safetensors.4711.tmp").write_bytes(b"half")
    found = quantize(source, out, resume=True)
    assert not any("tmp" in name or "terms" in name for name in found)
