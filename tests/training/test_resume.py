"""Stop and go on. Oracle: the same training without a stop: its losses, scales and final weights, bit for bit."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny_llama

import octoscale
from octoscale.models.loading import load
from octoscale.runs.scales import read_scales
from octoscale.system.checksums import CHECKSUMS, write_checksums
from octoscale.system.whole_file import write_json
from octoscale.training import trainer as trainer_module
from octoscale.training.resume import read_state
from octoscale.training.run import run_training
from octoscale.training.settings import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own

STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint `llama` and a text `text.txt`."""
    path = tmp_path_factory.mktemp("inputs")
    save_tiny_llama(path / "llama")
    (path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    return path


def plan(folder: Path, **changes) -> Training:
    words = {"window": 32, "steps": STEPS, "batch": 4, "learning_rate": 1e-2, "every": 4, "save_every": 3}
    return Training(model=str(folder / "llama"), text=str(folder / "text.txt"), **{**words, **changes})


SCALINGS = {
    "amax": {"scaling": "amax"},
    "delayed, fp16": {"scaling": "delayed:history=3", "dtype": "fp16", "accumulate": 2},
}


@pytest.fixture(scope="module")
def uninterrupted(folder, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return {name: run_training(plan(folder, **words), runs / name) for name, words in SCALINGS.items()}


#: Python that ends the process at a moment of the training, by the name of the moment.
MOMENTS = {
    "before the first checkpoint": "kill_at(1)",
    "after a checkpoint": "kill_at(5)",
    "while a checkpoint is written": "trainer.write_json = on_call(trainer.write_json, 2)",
    "while the one before is deleted": "shutil.rmtree = on_call(shutil.rmtree, 5)",
    "while the model is saved": "run.save_model_whole = on_call(run.save_model_whole, 1)",
}


#: Of the moments, those that are tried in each run of the tests.
IN_HASTE = ("while a checkpoint is written", "while the model is saved")


def killed(run: Path, folder: Path, words: dict, moment: str) -> None:
    """Train in another process, which kills itself at `moment`."""
    code = f"""
        import os, shutil, signal
        from pathlib import Path
        from octoscale.training import run
        from octoscale.training import trainer
        from octoscale.training.settings import Training

        def kill():
            os.kill(os.getpid(), signal.SIGKILL)

        def on_call(function, number):
            calls = []
            def counted(*args, **options):
                calls.append(1)
                return kill() if len(calls) == number else function(*args, **options)
            return counted

        stop_at = []
        kill_at = stop_at.append
        {MOMENTS[moment]}
        def progress(step, loss):
            if step in stop_at:
                kill()
        run.run_training(Training(**{words!r}), Path({str(run)!r}), progress=progress)
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(octoscale.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(
    ("scaling", "moment"),
    [
        *(pytest.param("amax", moment, marks=() if moment in IN_HASTE else pytest.mark.slow) for moment in MOMENTS),
        ("delayed, fp16", "after a checkpoint"),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bits(folder, uninterrupted, tmp_path, scaling, moment):
    words = SCALINGS[scaling]
    everything = {**vars(plan(folder, **words))}
    killed(tmp_path / "run", folder, everything, moment)
    assert not (tmp_path / "run" / "summary.json").exists()
    run = run_training(plan(folder, **words), tmp_path / "run", go_on=True)
    whole = uninterrupted[scaling]
    assert measured(run) == measured(whole)
    assert read_scales(run.path).equals(read_scales(whole.path))
    ours, theirs = (load(str(r.model), torch.float32).model.state_dict() for r in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [path.name for path in run.checkpoints.iterdir()] == [f"checkpoint-{STEPS}"]
    assert [path.name for path in run.path.iterdir() if path.name.startswith(".")] == []


def measured(run) -> list[dict]:
    """The lines of metrics.jsonl without times."""
    timed = ("runtime", "per_second", "preparation_time")
    return [
        {key: value for key, value in row.items() if not key.endswith(timed)}
        for row in run.read_metrics()
        if "train_runtime" not in row
    ]


def test_what_was_noted_after_the_checkpoint_is_taken_back(folder, tmp_path):
    """Oracle: notes of the steps until the checkpoint at 3, of those after it, and one that is damaged."""
    run = run_training(plan(folder, steps=3), tmp_path / "run")
    of_step = {"note": "stale_weight", "phase": "train", "scaling": "amax", "module": "a"}
    for step in (2, 3, 7, "x"):
        run.append_note(of_step | {"step": step})
    run = run_training(plan(folder, steps=4), run.path, go_on=True)
    notes = [json.loads(line) for line in run.notes.read_text().splitlines()]
    assert [note["step"] for note in notes if note["note"] == "stale_weight"] == [2]
    assert [note["note"] for note in notes].count("modules") == 2


def test_resume_without_a_run_begins_one(folder, uninterrupted, tmp_path):
    run = run_training(plan(folder), tmp_path / "run", go_on=True)
    assert measured(run) == measured(uninterrupted["amax"])


def test_the_seconds_are_those_of_all_legs(folder, tmp_path):
    """Oracle: what the checkpoint says, set by hand, and what Trainer says of the last leg; nothing is added twice."""
    run = run_training(plan(folder, steps=3), tmp_path / "run")
    first = run.read_json(run.summary)["seconds"]
    checkpoint = run.checkpoints / "checkpoint-3" / trainer_module.SECONDS
    assert first > 0
    assert json.loads(checkpoint.read_text())["seconds"] > 0
    checkpoint.write_text('{"seconds": 1000}')
    write_checksums(checkpoint.parent)
    run = run_training(plan(folder, steps=6), run.path, go_on=True)
    leg = next(row["train_runtime"] for row in run.read_metrics() if "train_runtime" in row)
    assert run.read_json(run.summary)["seconds"] == pytest.approx(1000 + leg)
    run.summary.unlink()
    run = run_training(plan(folder, steps=6), run.path, go_on=True)  # stopped after its last step
    assert 1000 < run.read_json(run.summary)["seconds"] < 2000


def test_a_finished_run_is_left_as_it_is(folder, uninterrupted):
    run = uninterrupted["amax"]
    before = run.summary.stat().st_mtime_ns
    assert run_training(plan(folder), run.path, go_on=True).path == run.path
    assert run.summary.stat().st_mtime_ns == before


def test_a_run_can_be_made_longer(folder, uninterrupted, tmp_path):
    """Oracle: the longer training in one go; the learning rate is constant."""
    run_training(plan(folder, steps=5), tmp_path / "run")
    run = run_training(plan(folder), tmp_path / "run", go_on=True)
    assert run.read_json(run.summary)["resumed_after_step"] == 5
    losses = [[row["loss"] for row in r.read_metrics() if "loss" in row] for r in (run, uninterrupted["amax"])]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scaling": "cscale:-1"}, "was trained with scaling amax, not cscale:-1"),
        ({"formats": "fnuz"}, "was trained with formats ocp, not fnuz"),
        ({"seed": 1}, "was trained with seed 0, not 1"),
    ],
)
def test_another_plan_cannot_resume_a_run(folder, uninterrupted, changes, message):
    run = uninterrupted["amax"]
    before = run.summary.read_bytes()
    with pytest.raises(ValueError, match=message):
        run_training(plan(folder, **changes), run.path, go_on=True)
    assert run.summary.read_bytes() == before


def test_a_checkpoint_is_the_model_of_a_new_run_with_other_settings(folder, tmp_path):
    """What diagnose tells to do where a learning rate was too large, which --resume refuses to change."""
    run = run_training(plan(folder, steps=3), tmp_path / "run")
    with pytest.raises(ValueError, match=r"was trained with learning_rate 0\.01, not 0\.001"):
        run_training(plan(folder, learning_rate=1e-3), run.path, go_on=True)
    words = vars(plan(folder, steps=1, learning_rate=1e-3)) | {"model": str(run.checkpoints / "checkpoint-3")}
    new = run_training(Training(**words), tmp_path / "new")
    losses = [[row["loss"] for row in each.read_metrics() if "loss" in row] for each in (run, new)]
    assert losses[1][0] < losses[0][0]


def test_what_is_no_training_cannot_be_resumed(folder, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="is no training that octoscale train began"):
        run_training(plan(folder), tmp_path, go_on=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(folder, tmp_path, monkeypatch):
    save = torch.save
    calls = []

    def full(*args, **options):
        calls.append(1)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*args, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot write checkpoint-6: .*No space left.* last good .*checkpoint-3"):
        run_training(plan(folder), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-3"]
    monkeypatch.undo()
    run = run_training(plan(folder), tmp_path / "run", go_on=True)
    assert run.read_json(run.summary)["resumed_after_step"] == 3


def test_a_checkpoint_without_fp8_state_is_refused(folder, tmp_path):
    run_training(plan(folder, steps=3), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-3"
    (checkpoint / trainer_module.FP8_STATE).unlink()
    with pytest.raises(ValueError, match=r"fp8\.json is missing"):
        run_training(plan(folder), tmp_path / "run", go_on=True)
    (checkpoint / CHECKSUMS).unlink()  # as an older version writes it
    with pytest.raises(ValueError, match=r"holds no fp8.json"):
        run_training(plan(folder), tmp_path / "run", go_on=True)


def test_a_rank_takes_its_own_state_only_on_the_mesh_that_wrote_it(tmp_path, monkeypatch):
    """With other tensor parallel ranks, those of one replica would choose other scales."""
    sizes = {"replicate": 1, "fsdp": 1, "tp": 2}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("fp8", "fp8-rank0", "fp8-rank1"):
        write_json(tmp_path / f"{name}.json", {"whose": name})
    for mesh, asked, whose in (
        (None, sizes, "fp8"),  # of an older version
        (sizes, sizes, "fp8-rank1"),
        (sizes, {**sizes, "fsdp": 2, "tp": 1}, "fp8"),
        (sizes, {}, "fp8"),
    ):
        if mesh is not None:
            write_json(tmp_path / "mesh.json", mesh)
        assert read_state(tmp_path, asked) == {"whose": whose}


def test_the_state_holds_the_histories_of_delayed_scaling(uninterrupted):
    """Oracle: 3 steps of 14 layers and three roles, positive numbers."""
    checkpoint = uninterrupted["delayed, fp16"].checkpoints / f"checkpoint-{STEPS}"
    histories = json.loads((checkpoint / trainer_module.FP8_STATE).read_text())["histories"]
    assert len(histories) == 14
    for roles in histories.values():
        assert set(roles) == {"weight", "input", "grad_output"}
        assert all(len(past) == 3 and min(past) > 0 for past in roles.values())


def test_a_damaged_checkpoint_is_not_gone_on_with_and_nothing_is_taken_back(folder, tmp_path):
    run = run_training(plan(folder, steps=3), tmp_path / "run")
    before = run.metrics.read_bytes()
    damaged = run.checkpoints / "checkpoint-3" / "optimizer.pt"
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"optimizer\.pt is not what was written there: delete .*checkpoint-3"):
        run_training(plan(folder), run.path, go_on=True)
    assert run.metrics.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", r"run\.json is damaged"),
        ("run.json", "[]", r"run\.json is damaged: it holds no object"),
        ("run.json", '{"plan": 5}', "is no training that octoscale train began"),
        ("summary.json", '{"steps": "3"}', r"summary\.json is damaged: steps is '3'"),
        ("summary.json", "\xff", r"summary\.json is damaged"),
    ],
)
def test_a_damaged_run_is_not_gone_on_with(name, text, message, folder, tmp_path):
    run = run_training(plan(folder, steps=1), tmp_path / "run")
    (run.path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        run_training(plan(folder), run.path, go_on=True)
