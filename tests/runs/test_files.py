"""What --overwrite deletes of a run's folder, and what it never does. Oracle: the files before and after."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from checkpoints import contents, note, save_tiny_llama

from octoscale.report.contents import read_run
from octoscale.report.figures import of_run as figures
from octoscale.runs.files import MARK, check_own, empty
from octoscale.runs.folder import RunFolder
from octoscale.system.lock import LOCK
from octoscale.system.manifest import MANIFEST
from octoscale.training.run import run_training
from octoscale.training.settings import Training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Trainer's own

OLD_HEADER = {
    "command": ["octoscale", "validate"],
    "started": "2026-01-01T00:00:00+0000",
    "versions": {"octoscale": "0.1.0", "torch": "2.10.0", "transformers": "5.23.0", "python": "3.11.7"},
    "backend": "native",
    "reason": "the C++ core",
    "device": "cpu",
    "threads": 2,
    "seed": 0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with all that a run may hold: records, losses, events, checkpoints, a model, figures."""
    folder = tmp_path_factory.mktemp("trained")
    save_tiny_llama(folder / "llama")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    words = {"window": 32, "steps": 2, "batch": 2, "every": 1, "save_every": 1}
    plan = Training(model=str(folder / "llama"), text=str(folder / "text.txt"), report_to=["tensorboard"], **words)
    run_training(plan, folder / "run")
    figures.draw(folder / "run")
    figures.draw_losses([read_run(folder / "run"), read_run(folder / "run")])
    return folder / "run"


@pytest.fixture
def copy(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_all_that_a_run_holds_is_known(copy):
    names = {name.split("/")[0] for name in contents(copy)}
    assert names == {
        "run.json",
        "metrics.jsonl",
        "notes.jsonl",
        "summary.json",
        "scales",
        "figures",
        "checkpoints",
        "model",
        "tensorboard",
    }
    check_own(copy)
    RunFolder.create(copy, {"seed": 2}, overwrite=True)
    assert contents(copy).keys() == {"run.json"}


STRANGERS = (
    *("thesis.txt", ".hidden", "data/thesis.txt", "scales/mine.parquet", "scales/deeper/part-000000.parquet"),
    *("figures/mine.png", "figures/perplexity.txt", "checkpoints/mine/model.safetensors", "checkpoints/notes.txt"),
    *("checkpoints/checkpoint-2/notes.txt", "model/notes.txt", "model/additional_chat_templates/mine.jinja"),
    *(
        "tensorboard/mine.txt",
        "run.json.bak",
        "page.html",
        ".notes.tmp",
        "scales/.mine.parquet.7.tmp",
        "part-000000.parquet",
    ),
)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_run_with_a_stranger_is_left_as_it_is(copy, stranger):
    note(copy, stranger)
    before = contents(copy)
    with pytest.raises(FileExistsError, match="which octoscale did not write: move it, or choose another") as caught:
        RunFolder.create(copy, {}, overwrite=True)
    assert f"{copy} holds {stranger.split('/')[0]}" in str(caught.value)
    assert contents(copy) == before


@pytest.mark.parametrize("folder", ["empty", "scales/empty", "model/empty", "checkpoints/empty"])
def test_an_empty_folder_is_a_stranger(copy, folder):
    (copy / folder).mkdir()
    with pytest.raises(FileExistsError, match=f"holds {folder}"):
        RunFolder.create(copy, {}, overwrite=True)


@pytest.mark.parametrize("name", ["scales", "model", "run.json", "figures/loss.png", "checkpoints/checkpoint-2"])
def test_a_link_is_a_stranger(copy, name, tmp_path):
    """Checkpoints on another disk, say."""
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"holds {name}"):
        RunFolder.create(copy, {}, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "leftover",
    [
        *(".run.json.4711.tmp", "scales/.part-000007.parquet.4711.tmp", "figures/.loss.png.4711.tmp", LOCK),
        *(".model.tmp/model/half", "checkpoints/.checkpoint-3.tmp/checkpoint-3/half", ".model.old.tmp/config.json"),
    ],
)
def test_what_a_killed_process_left_is_ours(copy, leftover):
    note(copy, leftover)
    RunFolder.create(copy, {}, overwrite=True)
    assert contents(copy).keys() <= {"run.json", LOCK}


OTHER_HEADERS = {
    "empty": "",
    "no JSON": "run",
    "a list": "[]",
    "another program's": json.dumps({"name": "run", "command": ["make"], "versions": {"octoscale": "0.1.0"}}),
    "another mark": json.dumps({"octoscale_run": "mine"}),
    "no version of ours": json.dumps(OLD_HEADER | {"versions": {"torch": "2.10.0"}}),
    "no versions": json.dumps(OLD_HEADER | {"versions": "octoscale"}),
}


@pytest.mark.parametrize("header", OTHER_HEADERS)
def test_a_header_of_others_protects_the_folder(header, tmp_path):
    note(tmp_path, "run.json", OTHER_HEADERS[header])
    note(tmp_path, "summary.json", "{}")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"run\.json was not written by octoscale: choose another folder"):
        RunFolder.create(tmp_path, {}, overwrite=True)
    assert contents(tmp_path) == before


def test_a_run_of_an_older_version_is_known(copy):
    """It has no mark, and its trained model no list."""
    (copy / "run.json").write_text(json.dumps(OLD_HEADER))
    for manifest in copy.rglob(MANIFEST):
        manifest.unlink()
    for path in (*(copy / "model").iterdir(), *(copy / "checkpoints" / "checkpoint-2").iterdir()):
        if "token" in path.name or path.suffix == ".jinja" or path.name in ("seconds.json", "checksums.json"):
            path.unlink()  # older versions saved none
    check_own(copy)
    note(copy, "model/thesis.txt")
    with pytest.raises(FileExistsError, match=r"holds model/thesis\.txt"):
        check_own(copy)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_deletion_that_is_cut_short_mixes_no_runs(copy, number, monkeypatch):
    """Oracle: a header without a plan, which nothing goes on with, until the folder is empty."""

    class Killed(BaseException):
        pass

    calls = []

    def counted(real):
        def call(*args, **options):
            calls.append(real)
            if len(calls) == number:
                raise Killed
            return real(*args, **options)

        return call

    before = contents(copy)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        patched.setattr(Path, "replace", counted(Path.replace))
        with suppress(Killed):
            empty(copy)
    header = json.loads((copy / "run.json").read_text())
    assert contents(copy) == before or header == MARK
    RunFolder.create(copy, {"seed": 1}, overwrite=True)
    assert contents(copy).keys() == {"run.json"}


# Commands


def validation(folder, *more):
    (folder.parent / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    model = folder.parent / "llama"
    if not model.exists():
        save_tiny_llama(model)
    tail = ("--text", str(folder.parent / "text.txt"), "--window", "32", "--out", str(folder), *more)
    return ("validate", str(model), "--scaling", "amax", *tail)


def training(folder, *more):
    words = validation(folder)
    return ("train", words[1], *words[4:], "--steps", "1", "--batch", "1", "--save-every", "0", *more)


COMMANDS = {"validate": validation, "train": training}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_project_with_a_file_run_json_stays(command, tmp_path, run):
    project = tmp_path / "project"
    note(project, "run.json", '{"plan": {"learning_rate": 1}}')
    note(project, "src/thesis.txt")
    before = contents(project)
    for more in (["--overwrite"], []):
        code, _, err = run(*COMMANDS[command](project, *more))
        assert code == 2
        assert len([line for line in err.splitlines() if "error" in line]) == 1
        assert contents(project) == before


def test_resume_without_a_checkpoint_keeps_what_others_wrote(tmp_path, run):
    out = tmp_path / "run"
    assert run(*training(out))[0] == 0
    (out / "summary.json").unlink()
    note(out, "thesis.txt")
    before = contents(out)
    code, _, err = run(*training(out, "--resume"))
    assert (code, "holds thesis.txt, which octoscale did not write" in err) == (2, True)
    assert contents(out) == before
    (out / "thesis.txt").unlink()
    assert run(*training(out, "--resume"))[0] == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_link_to_a_run_stays_and_the_run_is_replaced(command, tmp_path, run):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert run(*COMMANDS[command](tmp_path / "link"))[0] == 0
    first = (tmp_path / "real" / "run.json").read_bytes()
    assert run(*COMMANDS[command](tmp_path / "link", "--overwrite"))[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "run.json").read_bytes() != first
