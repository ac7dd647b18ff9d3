"""octoscale validate and generate under torchrun. Oracle: the same command in one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import byte_tokenizer, quantize
from models import tiny_llama

import octoscale
from octoscale.cli.main import main
from octoscale.inference.generate import Sampling, Writer
from octoscale.runs.scales import read_scales
from octoscale.validation.run import run_validation
from octoscale.validation.settings import Validation

#: torchrun, as torch's own module: the script need not be on the path.
TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node"
#: What a traceback of ours would name; torchrun has one of its own.
PACKAGE = str(Path(octoscale.__file__).parent)

#: A command of ours, to which a line of Python is done before: what happens to one rank only.
START = "import os, sys\nfrom octoscale.cli.main import main\n{}\nmain()\n"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model, the same in FP8, and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_llama(vocab_size=256, bos_token_id=None, eos_token_id=None).bfloat16().save_pretrained(folder / "llama")
    byte_tokenizer().save_pretrained(folder / "llama")
    quantize(folder / "llama", folder / "fp8", layout="vllm-fp8")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 4)
    return folder


def run(words, *, ranks=1, start="-m octoscale"):
    """Run a command; (exit code, standard output, standard error)."""
    how = start if ranks == 1 else f"{TORCHRUN} {ranks} {start}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *f"{how} {words}".split()], capture_output=True, text=True, env=environment, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def validate(inputs, out, more="", *, model="llama", **options):
    words = f"validate {inputs / model} --text {inputs / 'text.txt'} --window 16 --json --out {out} {more}"
    return run(words, **options)


def casts(rows, role):
    return rows.filter(role=role).select("scaling", "step", "module", "scale_bias", "amax", "numel").rows()


def test_validate_on_two_ranks_is_that_of_one_process(inputs, tmp_path):
    words = {"model": str(inputs / "llama"), "text": str(inputs / "text.txt"), "window": 16}
    alone = run_validation(Validation(**words), tmp_path / "one", overwrite=False)
    code, out, err = validate(inputs, tmp_path / "two", ranks=2)
    assert code == 0, err
    two, one = json.loads(out), alone.read_json(alone.summary)  # one rank prints
    assert two.pop("perplexity") == pytest.approx(one.pop("perplexity"), rel=2e-3)
    same = set(one) - {"seconds"}
    assert {key: two[key] for key in same} == {key: one[key] for key in same}
    ours, theirs = read_scales(tmp_path / "two"), read_scales(tmp_path / "one")
    assert set(ours["rank"]) == {0, 1}
    for rank in (0, 1):
        rows = ours.filter(rank=rank)
        assert [row[:5] for row in casts(rows, "weight")] == [row[:5] for row in casts(theirs, "weight")]
        assert [row[:3] for row in casts(rows, "input")] == [row[:3] for row in casts(theirs, "input")]
    assert sum(row[5] for row in casts(ours, "weight")) == sum(row[5] for row in casts(theirs, "weight"))
    lines = [(tmp_path / run / "metrics.jsonl").read_text().count("\n") for run in ("one", "two")]
    assert lines[0] == lines[1] > 2


def test_generate_on_two_ranks_prints_once_what_one_process_prints(inputs):
    writer = Writer(str(inputs / "fp8"))
    text = writer.write(writer.encode("Once"), Sampling(max_new_tokens=12), lambda _: None).text
    code, out, err = run(f"generate {inputs / 'fp8'} --prompt Once --max-new-tokens 12", ranks=2)
    assert code == 0, err
    assert out == f"{text}\n"
    assert "0 of 2 decoder layers fused; model.layers.0 and 1 more: its weights are in parts on several ranks" in err
    assert err.count("tokens, ") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("validate {} --out {} --parallel fsdp=2", "--parallel fsdp=2: in inference all ranks share each product"),
        ("validate {} --out {} --parallel tp=4", "--parallel tp=4 is for 4 ranks, and there are 2"),
        ("validate {} --out {} --tasks piqa", "tasks are asked in one process: leave them out under torchrun"),
        ("validate {} --out {} --batch", "--batch reads a model layer by layer in one process"),
        ("validate {}", "on many ranks, name the run's folder: --out RUN"),
        ("sweep {} --out {}", "octoscale sweep runs in one process: start it without torchrun"),
        ("chat {}", "octoscale chat runs in one process: start it without torchrun"),
        ("validate {}.missing --out {}", "is neither"),
    ],
)
def test_what_many_ranks_cannot_do_is_one_line(command, message, inputs, tmp_path, monkeypatch, capsys):
    """Before anything is loaded."""
    monkeypatch.setattr("octoscale.distributed.mesh.join", lambda: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["octoscale", *command.format(inputs / "llama", tmp_path / "run").split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_parallel_is_not_typed_in_vain(inputs, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["octoscale", "generate", str(inputs / "fp8"), "--prompt", "a", "--parallel", "tp=1"]
    )
    with pytest.raises(SystemExit):
        main()
    assert "start octoscale with torchrun --nproc-per-node N" in capsys.readouterr().err


class Meeting:
    """Ranks as two machines would start them: each hears of the others only by what they say."""

    def __init__(self, folder, words, on_rank=None, size=2) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._started = []
        for rank in range(size):
            start = folder / f"start-{rank}.py"
            start.write_text(START.format((on_rank or {}).get(rank, "")))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "RANK": str(rank)}
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **where}
            arguments = [sys.executable, str(start), *words.split()]
            self._started.append(
                subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
            )

    def ended(self):
        """Exit code and standard error of each rank. None of them hangs."""
        try:
            said = [process.communicate(timeout=300)[1] for process in self._started]
        finally:
            for process in self._started:
                process.kill()
        return [(process.returncode, err) for process, err in zip(self._started, said, strict=True)]


@pytest.mark.parametrize("command", ["validate --out {} --text {}", "generate --prompt Once"])
@pytest.mark.slow
def test_a_shard_that_one_rank_lacks_is_an_error_of_all(command, inputs, tmp_path):
    shutil.copytree(inputs / "fp8", tmp_path / "fp8")
    octoscale_load = "import octoscale.models.loading as l\nl.shards_in = lambda folder: (_ for _ in ()).throw("
    gone = f"{octoscale_load}FileNotFoundError('model-2.safetensors, which is missing'))"
    words = command.format(tmp_path / "run", inputs / "text.txt").split()
    words = " ".join([words[0], str(tmp_path / "fp8"), *words[1:]])
    (code, err), (other, theirs) = Meeting(tmp_path, words, {1: gone}).ended()
    assert (code, other) == (2, 2)
    assert "octoscale: error: rank 1: " in err
    assert "model-2.safetensors, which is missing" in err
    assert "model-2.safetensors, which is missing" in theirs
    assert PACKAGE not in err + theirs
    assert not (tmp_path / "run").exists()


CHANGES = {
    "words": ("sys.argv += ['--window', '8']", "rank 1 has another window than rank 0: 8, not 16"),
    "model": ("sys.argv[2] = sys.argv[2].replace('fp8', 'llama')", "rank 1 has another model than rank 0: "),
    "version": (
        "import octoscale.models.meeting as m\nm.version = lambda name: '0.0'",
        "rank 1 has another version of octoscale than rank 0: 0.0, not ",
    ),
}


@pytest.mark.parametrize(
    "change", ["words", *(pytest.param(name, marks=pytest.mark.slow) for name in CHANGES if name != "words")]
)
def test_ranks_that_are_told_different_things_all_say_which(change, inputs, tmp_path):
    line, message = CHANGES[change]
    words = f"validate {inputs / 'fp8'} --text {inputs / 'text.txt'} --window 16 --out {tmp_path / 'run'}"
    for code, err in Meeting(tmp_path, words, {1: line}).ended():
        assert code == 2, err
        assert f"octoscale: error: {message}" in err
        assert PACKAGE not in err


@pytest.mark.slow
def test_files_that_differ_are_named(inputs, tmp_path):
    """Each machine has a folder of its own: the same words, another value in one weight."""
    for rank in (0, 1):
        shutil.copytree(inputs / "fp8", tmp_path / str(rank) / "model")
        shutil.copy(inputs / "text.txt", tmp_path / str(rank))
    path = tmp_path / "1/model/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    there = {rank: f"os.chdir({str(tmp_path / str(rank))!r})" for rank in (0, 1)}
    for code, err in Meeting(tmp_path, "validate model --text text.txt --window 16 --out run", there).ended():
        assert code == 2, err
        assert "octoscale: error: rank 1 has another model.safetensors of model than rank 0: " in err


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_rank_that_dies_while_it_loads_is_named_by_all_others(size, inputs, tmp_path):
    dies = "import octoscale.models.loading as l\nl.load = lambda *_, **__: os.kill(os.getpid(), 9)"
    words = f"validate {inputs / 'fp8'} --text {inputs / 'text.txt'} --window 16 --out {tmp_path / 'run'}"
    *others, (code, _) = Meeting(tmp_path, words, {size - 1: dies}, size).ended()
    assert code == -signal.SIGKILL
    for rank, (code, err) in enumerate(others):
        assert code == 2, err
        assert f"octoscale: error: rank {rank} lost rank {size - 1}, which ended, or did not answer" in err
        assert PACKAGE not in err
