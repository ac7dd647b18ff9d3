"""octoscale train under torchrun. Oracle: the same command in one process: losses, and the bytes of the model."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import zlib
from pathlib import Path

import polars as pl
import pytest
import transformers
from models import tiny_gpt2
from torchrun import ENVIRONMENT, PACKAGE, command, losses, train, write_inputs

from octoscale.runs.scales import read_scales
from octoscale.system.errors import UserError
from octoscale.training import share
from octoscale.training.many_ranks import _crcs_of_own
from octoscale.training.settings import Training
from octoscale.training.share import meet

pytestmark = pytest.mark.skipif(
    not hasattr(transformers.PreTrainedModel, "is_distributed_loading_by_transformers"),
    reason=f"transformers {transformers.__version__} cannot train a model that is on many ranks",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model and a text."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def casts(rows, role):
    """What was cast, of whatever rank or micro-batch."""
    rows = rows.filter(role=role)
    return rows.select("step", "module", "scale_bias", "amax", "saturated", "flushed", "numel").rows()


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


@pytest.mark.parametrize(
    "more",
    [
        "--parallel tp=2",
        *(pytest.param(more, marks=pytest.mark.slow) for more in ("--parallel replicate=2", "--amax-group world")),
    ],
)
def test_other_ways_to_share_stay_close(more, inputs, alone, tmp_path):
    code, err = train(inputs, tmp_path / "run", more, ranks=2)
    assert code == 0, err
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-4), ("bf16", 5e-3)])
def test_tensor_parallel_without_fp8_trains_as_one_process_does(dtype, bound, inputs, tmp_path):
    """What a training in FP8 is compared with; it goes on, too."""
    more = f"--scaling {dtype} --dtype {dtype}"
    for ranks, words in ((1, ""), (2, "--parallel tp=2 --steps 2"), (2, "--parallel tp=2 --resume")):
        out = tmp_path / str(ranks)
        code, err = train(inputs, out, f"{more} {words}", ranks=ranks)
        assert code == 0, err
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=bound)


@pytest.fixture(scope="module")
def longer(inputs, tmp_path_factory):
    """The run of one process that did more steps."""
    folder = tmp_path_factory.mktemp("longer")
    code, err = train(inputs, folder / "run", "--steps 6")
    assert code == 0, err
    return folder / "run"


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(inputs, alone, longer, tmp_path):
    """2, then 1, then 2: the losses are those of one process that was never stopped."""
    for ranks, more in ((2, "--steps 2"), (1, "--steps 4 --resume"), (2, "--steps 6 --resume")):
        code, err = train(inputs, tmp_path / "run", more, ranks=ranks)
        assert code == 0, err
    assert losses(tmp_path / "run") == losses(longer)
    assert losses(tmp_path / "run")[:3] == losses(alone)[:3]


@pytest.mark.slow
def test_a_run_goes_on_with_tensor_parallel(inputs, alone, longer, tmp_path):
    """What one process left: its optimizer knows nothing of other groups."""
    shutil.copytree(alone, tmp_path / "run")
    code, err = train(inputs, tmp_path / "run", "--steps 6 --resume --parallel tp=2", ranks=2)
    assert code == 0, err
    assert losses(tmp_path / "run")[:5] == losses(alone)[:5]
    assert losses(tmp_path / "run") == pytest.approx(losses(longer), rel=5e-4)
    assert json.loads((tmp_path / "run/checkpoints/checkpoint-6/mesh.json").read_text())["tp"] == 2


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_tensor_parallel_ranks(inputs, longer, tmp_path):
    steps = ((2, "--steps 2 --parallel tp=2"), (2, "--steps 4 --resume"), (2, "--steps 6 --resume --parallel tp=2"))
    for ranks, more in steps:
        code, err = train(inputs, tmp_path / "run", more, ranks=ranks)
        assert code == 0, err
    assert losses(tmp_path / "run") == pytest.approx(losses(longer), rel=5e-4)


@pytest.mark.slow
def test_a_run_goes_on_from_four_ranks_to_fewer_and_back(inputs, tmp_path):
    """4, 2, 1, 2 ranks: sums of four micro-batches have another order on each, and nothing else changes."""
    more = "--batch 1 --accumulate 4"
    code, err = train(inputs, tmp_path / "whole", f"{more} --steps 8")
    assert code == 0, err
    for ranks, until in ((4, 2), (2, 4), (1, 6), (2, 8)):
        code, err = train(inputs, tmp_path / "run", f"{more} --steps {until} --resume", ranks=ranks)
        assert code == 0, err
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scaling", ["amax", "fp32"])
def test_ranks_of_one_replica_drop_out_the_same_values_after_a_change(scaling, inputs, tmp_path):
    """A mask of its own on each rank would tear one replica apart. Oracle: the masks that one process draws."""
    tiny_gpt2(vocab_size=256, attn_pdrop=0.0, resid_pdrop=0.3, embd_pdrop=0.3).save_pretrained(tmp_path / "gpt2")
    shutil.copy(inputs / "text.txt", tmp_path)
    for file in (inputs / "llama").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "gpt2")
    how = {"model": "gpt2"}
    code, err = train(tmp_path, tmp_path / "run", f"--scaling {scaling} --steps 2", **how)
    assert code == 0, err
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    for ranks, run, more in ((1, "alone", ""), (2, "run", "--parallel tp=2")):
        words = f"--scaling {scaling} --steps 6 --resume {more}"
        code, err = train(tmp_path, tmp_path / run, words, ranks=ranks, **how)
        assert code == 0, err
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=5e-3)


@pytest.mark.slow
def test_two_ranks_compute_in_bf16_as_one_process_does(inputs, tmp_path):
    """The validation before the first step included."""
    for ranks in (1, 2):
        code, err = train(inputs, tmp_path / str(ranks), "--dtype bf16 --validation 0.2", ranks=ranks)
        assert code == 0, err
    assert losses(tmp_path / "2") == losses(tmp_path / "1")


@pytest.mark.slow
def test_two_ranks_train_a_classifier_as_one_process_does(inputs, tmp_path):
    task = tmp_path / "task.tsv"
    task.write_text("sentence\tlabel\n" + "".join(f"a {word} film, {n}\t{n % 2}\n" for n, word in _GOOD_AND_BAD))
    for ranks in (1, 2):
        code, err = train(inputs, tmp_path / str(ranks), f"--task {task} --eval-task {task}", ranks=ranks, text=False)
        assert code == 0, err
    summary, expected = (json.loads((tmp_path / ranks / "summary.json").read_text()) for ranks in ("2", "1"))
    assert {**summary, "seconds": 0} == {**expected, "seconds": 0}
    assert losses(tmp_path / "2") == losses(tmp_path / "1")


_GOOD_AND_BAD = [(n, ("bad", "good")[n % 2]) for n in range(24)]


@pytest.mark.slow
def test_delayed_scales_go_on_with_the_histories_of_each_rank(inputs, tmp_path):
    """Inputs and gradients are a replica's own, so is what it remembers; one process takes the largest of all."""
    more = "--scaling delayed:history=3"
    for words in ("--steps 2", "--steps 4 --resume"):
        code, err = train(inputs, tmp_path / "run", f"{more} {words}", ranks=2)
        assert code == 0, err
    code, err = train(inputs, tmp_path / "whole", more, ranks=2)
    assert code == 0, err
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    checkpoint = tmp_path / "run/checkpoints/checkpoint-4"
    whole, *own = (_amaxes(checkpoint / name) for name in ("fp8.json", "fp8-rank0.json", "fp8-rank1.json"))
    assert own[0] != own[1]
    assert whole == [max(each) for each in zip(*own, strict=True)]


def _amaxes(path):
    """All that histories hold, in their order."""
    histories = json.loads(path.read_text())["histories"]
    return [amax for past in histories.values() for role in past.values() for amax in role]


@pytest.mark.slow
def test_a_dynamic_loss_scale_goes_on_where_it_was(inputs, tmp_path):
    more = "--dtype fp16 --loss-scale dynamic"
    for ranks, words in ((2, "--steps 2"), (2, "--steps 4 --resume")):
        code, err = train(inputs, tmp_path / "run", f"{more} {words}", ranks=ranks)
        assert code == 0, err
    assert (tmp_path / "run/checkpoints/checkpoint-4/scaler.pt").is_file()
    code, err = train(inputs, tmp_path / "whole", more, ranks=2)
    assert code == 0, err
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_rank_computes_the_checksums_of_its_own_parts(tmp_path, monkeypatch):
    """Oracle: zlib. Rank 1 leaves those of rank 10 to it."""
    (tmp_path / "parts").mkdir()
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp", "__1_1.distcp", "__10_0.distcp"):
        (tmp_path / "parts" / name).write_text(name)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    own = ("parts/__1_0.distcp", "parts/__1_1.distcp")
    assert _crcs_of_own(tmp_path) == {name: zlib.crc32((tmp_path / name).read_bytes()) for name in own}


@pytest.mark.slow
def test_a_part_of_a_checkpoint_that_is_gone_is_named(inputs, tmp_path):
    code, err = train(inputs, tmp_path / "run", "--steps 2", ranks=2)
    assert code == 0, err
    part = tmp_path / "run/checkpoints/checkpoint-2/parts/__1_0.distcp"
    part.unlink()
    for ranks in (1, 2):
        code, err = train(inputs, tmp_path / "run", "--steps 4 --resume", ranks=ranks)
        assert code != 0
        assert "octoscale: error: " in err
        assert f"parts/{part.name} is missing, or no file: delete {part.parent.parent} to go on without it" in err
        assert PACKAGE not in err


def test_what_the_first_rank_refuses_is_one_line_of_every_rank(inputs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("years of work")
    code, err = train(inputs, tmp_path / "run", ranks=2)
    assert code != 0
    assert err.count(f"octoscale: error: {tmp_path / 'run'}") in (1, 2)  # torchrun ends the second one
    assert PACKAGE not in err
    assert (tmp_path / "run/thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "words", [("fsdp=2", "fsdp=3"), pytest.param(("fsdp=2", "replicate=2"), marks=pytest.mark.slow)]
)
def test_ranks_with_other_words_hear_who_said_what(words, inputs, tmp_path):
    """Also of the mesh, which no rank could make alone, and of one that is no mesh."""
    start = tmp_path / "start.py"
    start.write_text(
        "import os, sys\nfrom octoscale.cli.main import main\n"
        f"sys.argv += ['--parallel', {words}[int(os.environ['RANK'])]]\nmain()\n"
    )
    code, err = train(inputs, tmp_path / "run", ranks=2, start=str(start))
    assert code != 0
    assert "octoscale: error: " in err
    assert words[0] in err
    assert words[1] in err
    assert PACKAGE not in err


@pytest.mark.slow
def test_a_rank_that_is_killed_costs_no_more_than_the_steps_since_the_last_checkpoint(inputs, alone, tmp_path):
    """torchrun starts both again, and the command goes on."""
    run = tmp_path / "run"
    words = command(inputs, run, "--resume", ranks="--standalone --nproc-per-node 2 --max-restarts 3")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT) as process:
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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_rank_that_is_killed_at_any_moment_costs_no_loss(seed, inputs, tmp_path):
    """While it starts, or some time after a checkpoint: whatever it does then, saving included."""
    more = "--steps 30 --save-every 5"
    code, err = train(inputs, tmp_path / "whole", more, ranks=2)
    assert code == 0, err
    run, draw = tmp_path / "run", random.Random(seed)
    after_step = 5 * (seed % 4)
    words = command(inputs, run, f"{more} --resume", ranks="--standalone --nproc-per-node 2 --max-restarts 3")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT) as process:
        while not _ranks_of(process.pid) or _last_step(run) < after_step:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3 if after_step else 10))
        assert process.poll() is None
        os.kill(draw.choice(_ranks_of(process.pid)), signal.SIGKILL)
        out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out.decode()
    assert losses(run) == losses(tmp_path / "whole")
    assert (run / "model/model.safetensors").read_bytes() == (tmp_path / "whole/model/model.safetensors").read_bytes()


def _last_step(run):
    """Of the newest checkpoint: older ones are deleted."""
    return max((int(path.name.rpartition("-")[2]) for path in run.glob("checkpoints/checkpoint-*")), default=0)


def _a_rank_of(parent):
    """A child of torchrun."""
    return _ranks_of(parent)[-1]


def _ranks_of(parent):
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
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
    ],
)
def test_what_does_not_fit_is_said_when_the_ranks_have_met(words, message, monkeypatch):
    """So that one of them, which was told something else, leaves none waiting."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("join", "agree"):
        monkeypatch.setattr(share, name, lambda *_: None)
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
