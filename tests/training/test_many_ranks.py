"""octoscale train under torchrun. Oracle: the same command in one process: losses, and the bytes of the model."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import transformers
from checkpoints import byte_tokenizer
from models import tiny_gpt2, tiny_llama

from octoscale.runs.scales import read_scales
from octoscale.system.errors import UserError
from octoscale.training.settings import Training
from octoscale.training.share import meet

pytestmark = pytest.mark.skipif(
    not hasattr(transformers.PreTrainedModel, "is_distributed_loading_by_transformers"),
    reason=f"transformers {transformers.__version__} cannot train a model that is on many ranks",
)

WORDS = "--window 16 --steps 4 --batch 2 --accumulate 2 --save-every 2 --dtype fp32 --every 0"
#: torchrun, as torch's own module: the script need not be on the path.
TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two models and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, model in (
        ("llama", tiny_llama(vocab_size=256, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None)),
        ("gpt2", tiny_gpt2(vocab_size=256, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)),
    ):
        model.save_pretrained(folder / name)
        byte_tokenizer().save_pretrained(folder / name)
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 30)
    return folder


def train(inputs, out, more="", *, ranks=1, model="llama"):
    """Run the command; (exit code, standard error)."""
    how = "-m octoscale" if ranks == 1 else f"{TORCHRUN} {ranks} -m octoscale"
    words = f"{how} train {inputs / model} --text {inputs / 'text.txt'} --out {out} {WORDS} {more}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words.split()], capture_output=True, text=True, env=environment, timeout=300
    )
    return done.returncode, done.stderr


def losses(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row.get("loss", row.get("eval_loss")) for row in rows if "train_runtime" not in row]


def casts(rows, role):
    """What was cast, but the gradient of a mean over two micro-batches is half as large as that of one."""
    rows = rows.filter(role=role)
    return rows.select("step", "module", "saturated", "flushed", "numel").rows()


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    code, err = train(inputs, folder / "run")
    assert code == 0, err
    return folder / "run"


def test_two_ranks_train_the_model_of_one_process_to_the_byte(inputs, alone, tmp_path):
    code, err = train(inputs, tmp_path / "run", ranks=2)
    assert code == 0, err
    assert losses(tmp_path / "run") == losses(alone)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "run/model" / name).read_bytes() == (alone / "model" / name).read_bytes()
    ours, theirs = read_scales(tmp_path / "run"), read_scales(alone)
    of_a_step = ["step", "module", "role"]
    assert set(ours["rank"]) == {0, 1}
    assert set(ours.select(of_a_step).rows()) == set(theirs.select(of_a_step).rows())
    for role in ("input", "grad_output"):  # two micro-batches, here or on two ranks
        assert sorted(casts(ours, role)) == sorted(casts(theirs, role))
    weights = ours.filter(role="weight").group_by(of_a_step).agg(pl.col("scale_bias").unique(), pl.col("numel").sum())
    assert all(len(biases) == 1 for biases in weights["scale_bias"])
    summary, expected = (json.loads((run / "summary.json").read_text()) for run in (tmp_path / "run", alone))
    assert {**summary, "seconds": 0} == {**expected, "seconds": 0}


@pytest.mark.parametrize("more", ["--parallel tp=2", "--parallel replicate=2", "--amax-group world"])
def test_other_ways_to_share_stay_close(more, inputs, alone, tmp_path):
    code, err = train(inputs, tmp_path / "run", more, ranks=2)
    assert code == 0, err
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=5e-3)


def test_a_run_goes_on_with_another_number_of_ranks(inputs, alone, tmp_path):
    """2, then 1, then 2: the losses are those of one process that was never stopped."""
    for ranks, more in ((2, "--steps 2"), (1, "--steps 4 --resume"), (2, "--steps 6 --resume")):
        code, err = train(inputs, tmp_path / "run", more, ranks=ranks)
        assert code == 0, err
    code, err = train(inputs, tmp_path / "whole", "--steps 6")
    assert code == 0, err
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert losses(tmp_path / "run")[:3] == losses(alone)[:3]


def test_a_rank_that_is_killed_costs_no_more_than_the_steps_since_the_last_checkpoint(inputs, alone, tmp_path):
    """torchrun starts both again, and the command goes on."""
    run = tmp_path / "run"
    words = f"{TORCHRUN} 2 --max-restarts 3 -m octoscale train {inputs / 'llama'} --text {inputs / 'text.txt'}"
    words += f" --out {run} {WORDS} --resume"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, *words.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        until = time.monotonic() + 120
        while not list((run / "checkpoints").glob("checkpoint-*")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(_a_rank_of(process.pid), signal.SIGKILL)
        out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out.decode()
    assert losses(run) == losses(alone)
    assert (run / "model/model.safetensors").read_bytes() == (alone / "model/model.safetensors").read_bytes()


def _a_rank_of(parent):
    """A child of torchrun."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[-1])


def test_what_does_not_fit_is_one_line_of_every_rank(inputs, tmp_path):
    code, err = train(inputs, tmp_path / "run", "--parallel fsdp=4", ranks=2)
    assert code != 0
    message = "octoscale: error: --parallel fsdp=4 is for 4 ranks, and there are 2: start it with torchrun"
    assert err.count(message) in (1, 2)  # torchrun ends the second one as soon as it hears
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"parallel": "rows=2"}, "--parallel rows=2: numbers of ranks, as in fsdp=4,tp=2,replicate=2"),
        ({"accumulate": 3}, "--accumulate 3: the micro-batches of a step are shared by 2 replicas"),
        ({"scaling": "fp32", "dtype": "fp32", "parallel": "tp=2"}, "tp=2 splits FP8 layers, and fp32 has none"),
    ],
)
def test_what_does_not_fit_is_said_before_the_ranks_meet(words, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=message):
        meet(Training(model="gpt-10m", **{"accumulate": 2, **words}))


def test_an_unknown_amax_group_is_refused():
    with pytest.raises(UserError, match="unknown amax group 'all': one of replica, world"):
        Training(model="gpt-10m", amax_group="all")


@pytest.mark.parametrize("option", ["--parallel fsdp=2", "--amax-group world"])
def test_options_for_many_ranks_are_not_typed_in_vain(option, inputs, tmp_path):
    code, err = train(inputs, tmp_path / "run", option)
    assert code == 2
    assert "start octoscale with torchrun --nproc-per-node N" in err
