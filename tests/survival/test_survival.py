"""Kills, pairs of commands and full disks, at every moment: no broken OUT, no difference, no traceback.

Oracle: the files of the same command that nothing disturbed. A killed process touches a file for the n-th time when it
ends, for each n there is, or ends at random; the disk is full from the n-th touch on.
"""

import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from checkpoints import byte_tokenizer, contents, save_tiny_llama
from commands import Command
from models import tiny_llama

from octoscale import read_scales
from octoscale.models.loading import load
from octoscale.runs.files import is_leftover
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import read_readable_scales
from octoscale.system.lock import LOCK

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

#: At random, of each command; many more come at each touch of a file.
KILLS = 15
STEPS = 6


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A checkpoint `llama`, one of several shards, `shards`, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_llama(folder / "llama")
    tiny_llama(vocab_size=256).bfloat16().save_pretrained(folder / "shards", max_shard_size="60kB")
    byte_tokenizer().save_pretrained(folder / "shards")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    return folder


def quantize(inputs, out, *more):
    return ("quantize", inputs / "shards", out, *more)


def static(inputs, out, *more):
    text = ("--activations", "static", "--calibrate", inputs / "text.txt", "--window", "32", "--tokens", "64")
    return (*quantize(inputs, out), *text, "--tie-fused", *more)


def materialize(inputs, out, *more):
    return ("models", "--materialize", "gpt-10m", "--layers", "1", out, *more)


def validate(inputs, out, *more):
    text = ("--text", inputs / "text.txt", "--window", "32", "--tokens", "128")
    return ("validate", inputs / "llama", *text, "--scaling", "amax", "--scaling", "cscale:1", "--out", out, *more)


def sweep(inputs, out, *more):
    text = ("--text", inputs / "text.txt", "--window", "32", "--tokens", "128")
    return ("sweep", inputs / "llama", *text, "--bias", "-3:3", "--out", out, *more)


def advise(inputs, out, *more):
    text = ("--text", inputs / "text.txt", "--window", "32", "--tokens", "64")
    return ("advise", inputs / "llama", *text, "--bound", "1e-9%", "--keep-at-most", "2", "--out", out, *more)


def train(inputs, out, *more):
    text = ("--text", inputs / "text.txt", "--window", "16", "--batch", "1", "--steps", STEPS, "--save-every", "2")
    return ("train", inputs / "llama", *text, "--every", "2", "--out", out, *more)


CHECKPOINTS = {"quantize": quantize, "static": static, "materialize": materialize}
RUNS = {"validate": validate, "sweep": sweep, "advise": advise, "train": train}


def state(out: Path) -> dict:
    """What is the same for the same command: all files of a checkpoint, of an advice all but run.json and what is
    left of one that was killed; of other runs the rows, losses and weights.
    """
    if not (out / "run.json").exists():
        return contents(out)
    run = RunFolder(out)
    if run.advice.exists():
        files = contents(out).items()
        return {name: data for name, data in files if name != "run.json" and not is_leftover(Path(name))}
    timed = ("seconds", "runtime", "per_second", "preparation_time")
    metrics = [{k: v for k, v in row.items() if not k.endswith(timed)} for row in run.read_metrics()]
    found = {"rows": read_scales(out).drop("phase").rows(), "metrics": [r for r in metrics if "total_flos" not in r]}
    summary = run.read_json(run.summary)
    found |= {name: summary.get(name) for name in ("perplexity", "cscale_range")}
    if run.model.is_dir():
        weights = load(str(run.model), torch.float32).model.state_dict()
        found["weights"] = {name: x.numpy().tobytes() for name, x in weights.items()}
    return found


def left_beside(out: Path) -> list[str]:
    """Hidden files that a finished command must not leave; the lock of a killed one is empty, and no lock."""
    return [path.name for path in out.parent.iterdir() if path.name.startswith(".") and not path.name.endswith(LOCK)]


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("undisturbed"), {}
    assert Command("models", folder=folder).wait() == (0, "")  # the first one waits for the server
    for name, words in {**CHECKPOINTS, **RUNS}.items():
        start = time.monotonic()
        assert Command(*words(inputs, folder / name), folder=folder).wait() == (0, "")
        found[name] = state(folder / name), time.monotonic() - start
    return found


def finish(words, out: Path, folder: Path) -> None:
    """The command once more, to its end."""
    code, said = Command(*words, folder=folder).wait()
    assert code == 0, said
    assert left_beside(out) == []


def killed_at_each_touch(words, folder: Path):
    """Kill the command at its first touch of a file, its second, ... until it ends by itself; yields after each."""
    at, code = 0, -9
    while code == -9:
        at += 1
        code, said = Command(*words(at), folder=folder, at=at).wait()
        assert code in (-9, 0), said
        yield at, code


# Kills


@pytest.mark.parametrize("name", ["quantize", "materialize"])
def test_a_checkpoint_killed_at_each_touch_is_not_there_or_whole(name, inputs, undisturbed, tmp_path):
    """And the next command, with --resume or without, makes the same bytes of what is left."""
    expected, _ = undisturbed[name]
    words = CHECKPOINTS[name]
    for at, code in killed_at_each_touch(lambda at: words(inputs, tmp_path / f"out{at}"), tmp_path):
        out = tmp_path / f"out{at}"
        if out.exists():
            assert contents(out) == expected
        else:
            assert code == -9
            finish(words(inputs, out, *(["--resume"] if name != "materialize" and at % 2 else [])), out, tmp_path)
            assert contents(out) == expected
        shutil.rmtree(out)
        assert left_beside(out) == []


@pytest.mark.parametrize("name", ["quantize", "materialize"])
def test_a_replacement_killed_at_each_touch_is_the_old_or_the_new(name, inputs, undisturbed, tmp_path):
    expected, _ = undisturbed[name]
    words, out = CHECKPOINTS[name], tmp_path / "out"
    others = {"materialize": ("--seed", "3")}.get(name, ("--skip", "down_proj"))
    assert Command(*words(inputs, out, *others), folder=tmp_path).wait() == (0, "")
    old = contents(out)
    for at, _ in killed_at_each_touch(lambda _: words(inputs, out, "--overwrite"), tmp_path):
        assert contents(out) in (old, expected), at
    assert contents(out) == expected
    assert left_beside(out) == []


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_killed_at_random_goes_on_to_the_same_bytes(name, inputs, undisturbed, tmp_path):
    expected, seconds = undisturbed[name]
    draw, kills = random.Random(0), 0
    while kills < KILLS:
        out, more = tmp_path / f"out{kills}", []
        while not out.exists():
            command = Command(*CHECKPOINTS[name](inputs, out, *more), folder=tmp_path)
            time.sleep(draw.uniform(0, 1.5 * seconds))
            command.kill()
            kills += command.wait()[0] == -9
            more = ["--resume"] if name != "materialize" and draw.random() < 0.8 else []
        assert contents(out) == expected
        shutil.rmtree(out)


def test_an_advice_killed_at_each_touch_goes_on_to_the_same_bytes(inputs, undisturbed, tmp_path):
    """Killed there, gone on with, and killed at the next touch of what is left, until it ends by itself."""
    expected, _ = undisturbed["advise"]
    for step in (1, 7):
        out, at, code = tmp_path / f"run{step}", 0, -9
        while code == -9:
            at += step
            code, said = Command(*advise(inputs, out, "--resume"), folder=tmp_path, at=at).wait()
            assert code in (-9, 0), said
        assert state(out) == expected


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_random_is_readable_and_ends_as_if_it_had_not_been(name, inputs, undisturbed, tmp_path):
    """A validation begins again; a sweep, an advice and a training go on."""
    expected, seconds = undisturbed[name]
    draw, kills, out = random.Random(1), 0, tmp_path / "run"
    more = "--overwrite" if name == "validate" else "--resume"
    while kills < KILLS:
        command = Command(*RUNS[name](inputs, out, more), folder=tmp_path)
        time.sleep(draw.uniform(0, 1.2 * seconds))
        command.kill()
        code, said = command.wait()
        assert code in (-9, 0), said
        kills += code == -9
        if any((out / "scales").glob("*.parquet")):
            assert read_readable_scales(out)[1] == []
        if code == 0:
            assert state(out) == expected
            shutil.rmtree(out)
    finish(RUNS[name](inputs, out, more), out, tmp_path)
    assert state(out) == expected


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_replaced_is_never_a_mixture(name, inputs, undisturbed, tmp_path):
    """Killed at each of the first touches: those of the deletion. Oracle: the old run, or the new one in the end."""
    expected, _ = undisturbed[name]
    out, words = tmp_path / "run", RUNS[name]
    assert Command(*words(inputs, out, "--skip", "down_proj"), folder=tmp_path).wait() == (0, "")
    old = state(out)
    for at in range(1, 16):
        code, said = Command(*words(inputs, out, "--overwrite"), folder=tmp_path, at=at).wait()
        assert code == -9, said
        header = RunFolder(out).read_json(out / "run.json")
        assert header.get("plan", {}).get("skip") != ["down_proj"] or state(out) == old
    finish(words(inputs, out, "--overwrite"), out, tmp_path)
    assert state(out) == expected


# Pairs of commands


PAIRS = {
    "quantize, quantize": [("quantize", []), ("quantize", [])],
    "quantize, static": [("quantize", []), ("static", [])],
    "quantize, resume": [("quantize", []), ("quantize", ["--resume"])],
    "resume, static resume": [("quantize", ["--resume"]), ("static", ["--resume"])],
    "overwrite, overwrite": [("quantize", ["--overwrite"]), ("static", ["--overwrite"])],
    "materialize, quantize": [("materialize", []), ("quantize", ["--overwrite"])],
    "materialize, materialize": [("materialize", ["--overwrite"]), ("materialize", ["--overwrite"])],
    "validate, validate": [("validate", []), ("validate", [])],
    "validate, overwrite": [("validate", []), ("validate", ["--overwrite"])],
    "validate, quantize": [("validate", ["--overwrite"]), ("quantize", ["--overwrite"])],
    "advise, resume": [("advise", []), ("advise", ["--resume"])],
    "advise resume, sweep resume": [("advise", ["--resume"]), ("sweep", ["--resume"])],
    "train, resume": [("train", []), ("train", ["--resume"])],
    "resume, resume": [("train", ["--resume"]), ("train", ["--resume"])],
    "train, validate": [("train", ["--overwrite"]), ("validate", ["--overwrite"])],
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_commands_on_one_folder(name, inputs, undisturbed, tmp_path):
    """One or both end well, the other with one line; the folder holds what one of them writes alone."""
    draw, words = random.Random(name), {**CHECKPOINTS, **RUNS}
    for number in range(4):
        out = tmp_path / f"out{number}"
        commands = []
        for command, more in PAIRS[name]:
            commands.append((command, Command(*words[command](inputs, out, *more), folder=tmp_path)))
            time.sleep(draw.uniform(0, undisturbed[command][1]))
        ends = [(command, *process.wait()) for command, process in commands]
        assert all(code == 0 or (code == 2 and len(said.splitlines()) == 1) for _, code, said in ends), ends
        assert any(code == 0 for _, code, _ in ends), ends
        assert state(out) in [undisturbed[command][0] for command, code, _ in ends if code == 0], ends
        assert left_beside(out) == []


# Full disks


@pytest.mark.parametrize("name", [*CHECKPOINTS, *RUNS])
def test_a_disk_that_is_full_from_some_moment_on(name, inputs, undisturbed, tmp_path):
    """One line, and what was whole stays; with room again, the same end as ever."""
    expected, _ = undisturbed[name]
    words, out = {**CHECKPOINTS, **RUNS}[name], tmp_path / "out"
    more = {"validate": ["--overwrite"], "materialize": []}.get(name, ["--resume"])
    for at in [*range(1, 9), *range(9, 45, 6)]:
        code, said = Command(*words(inputs, out, *more), folder=tmp_path, at=at, what="full").wait()
        assert code == 0 or (code == 2 and len(said.splitlines()) == 1), (at, code, said)
        if name in CHECKPOINTS:
            assert not out.exists() or contents(out) == expected
            shutil.rmtree(out, ignore_errors=True)
        elif any((out / "scales").glob("*.parquet")):
            assert read_readable_scales(out)[1] == []
    finish(words(inputs, out, *more), out, tmp_path)
    assert state(out) == expected


@pytest.mark.parametrize("name", [*CHECKPOINTS, *RUNS])
@pytest.mark.parametrize("size", [200, 20_000])
def test_files_that_cannot_grow(size, name, inputs, undisturbed, tmp_path):
    """A disk that is full in the middle of a file."""
    expected, _ = undisturbed[name]
    words, out = {**CHECKPOINTS, **RUNS}[name], tmp_path / "out"
    code, said = Command(*words(inputs, out), folder=tmp_path, largest_file=size).wait()
    assert (code, len(said.splitlines())) == (2, 1), said
    if name in CHECKPOINTS:
        assert not out.exists()
    more = {"validate": ["--overwrite"]}.get(name, ["--resume"] if name in RUNS else [])
    finish(words(inputs, out, *more), out, tmp_path)
    assert state(out) == expected
