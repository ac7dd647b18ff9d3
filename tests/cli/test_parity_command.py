"""The command parity, and --accumulate of validate and reproduce. Oracles: the files; one line of what is wrong."""

import json

import pytest
from checkpoints import contents

from octoscale.kernels import ops
from octoscale.numerics.accumulators import ACCUMULATORS
from octoscale.parity.settings import Parity
from octoscale.system.errors import UserError
from octoscale.system.lock import LOCK
from octoscale.validation.run import run_validation
from octoscale.validation.settings import Validation

pytest.importorskip("octoscale.kernels.native", reason="the C++ core was not built")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

WORDS = ("--tokens", 64, "--window", 32, "--rows", 4, "--longest", 64)


def test_a_parity_is_files_and_figures(run, checkpoint, text, tmp_path):
    words = ("parity", checkpoint, "--text", text, *WORDS, "--out", "a")
    code, out, err = run(*words, "--json")
    assert code == 0, err
    files = contents(tmp_path / "a")
    stems = ("parity", "parity_layers", "parity_lengths")
    assert {f"figures/{stem}.{end}" for stem in stems for end in ("png", "svg")} <= files.keys()
    content, printed = json.loads(files["parity.json"]), json.loads(out)
    assert {name: printed[name] for name in content} == content
    assert printed["figures"][-3:] == [f"a/figures/{stem}.png" for stem in stems]
    assert printed["perplexity"] == json.loads(files["summary.json"])["perplexity"]
    assert [*printed["perplexity"]] == ["bf16", "amax", "amax:accumulate=hopper"]
    assert "amax:accumulate=hopper: 2 parts" in err
    code, _, err = run(*words)
    assert code == 2
    assert "a already holds a run: choose another folder, or --overwrite" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--accumulate volta", "unknown accumulator 'volta': one of hopper, ada, blackwell"),
        ("--accumulate hopper,", "unknown accumulator '': one of hopper"),
        ("--accumulate ada,ada", "--accumulate ada,ada: each name once"),
        ("--scaling bf16", "scaling bf16 is no FP8: tensor cores sum it in another way"),
        (
            "--scaling amax:accumulate=ada",
            "scaling amax:accumulate=ada: here --accumulate names whose sums are imitated",
        ),
        ("--scaling delayed", "scaling delayed depends on the steps before: parity takes amax and cscale"),
        ("--scaling amax:3", "unknown scaling 'amax:3'"),
        ("--dtype int8", "unknown dtype 'int8': one of"),
        ("--dtype fp16 --gradients", "--gradients with dtype fp16: float16 flushes them; take bf16 or fp32"),
        ("--rows 0", "rows=0: must be at least 1"),
        ("--longest 63", "longest=63: the products of a sum, from 64 to 1,048,576"),
        ("--longest 1048577", "longest=1048577: the products of a sum, from 64 to 1,048,576"),
        ("--window 32 --tokens 16", "16 tokens do not fill a window of 32: raise --tokens or lower --window"),
        ("--text nowhere.txt", "no such text file: nowhere.txt"),
        ("--resume", "--resume goes on with the run that --out names"),
        ("--window 32 --skip nothing", "skip pattern 'nothing' matches no linear layer"),
    ],
)
def test_what_cannot_be_had_is_one_line(run, checkpoint, text, tmp_path, words, message):
    code, out, err = run("parity", checkpoint, "--text", text, *words.split())
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("octoscale: error: ")]
    assert message in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("parity", "M", *WORDS),
        ("validate", "M", "--accumulate", "hopper", "--window", 32),
        ("validate", "M", "--scaling", "amax:accumulate=ada", "--window", 32),
        ("reproduce", "table5", "--model", "gpt-10m", "--tasks", "sst2", "--accumulate", "hopper"),
    ],
)
def test_without_the_core_it_is_one_line_before_weights_are_loaded(run, checkpoint, tmp_path, monkeypatch, words):
    def lacks(name):
        raise UserError(f"accumulate={name} needs the C++ core, which was not built")

    for place in ("validation.run", "paper.reproduce"):
        monkeypatch.setattr(f"octoscale.{place}.check_imitation", lacks)
    monkeypatch.setattr("octoscale.models.loading.load", None)
    code, out, err = run(*[checkpoint if word == "M" else word for word in words])
    assert (code, out) == (2, "")
    assert "needs the C++ core, which was not built" in err.splitlines()[-1]
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and path.name != LOCK] == []


def test_the_core_that_is_not_there_is_named(monkeypatch):
    """Oracle: an import that fails."""
    monkeypatch.setitem(__import__("sys").modules, "octoscale.kernels.native", None)
    with pytest.raises(UserError, match="accumulate=hopper needs the C\\+\\+ core, which was not built"):
        ops.check_imitation("hopper")


def test_the_help_names_each_tensor_core():
    """Oracle: the table; the help stands where numpy is not loaded yet."""
    names = ", ".join(ACCUMULATORS)
    for settings in (Parity, Validation):
        assert names in settings.__dataclass_fields__["accumulate"].metadata["help"]


def test_an_interrupted_parity_says_how_to_go_on(run, checkpoint, text, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("octoscale.parity.run.forward_products", stopped)
    code, out, err = run("parity", checkpoint, "--text", text, *WORDS, "--out", "a")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; to go on: the same command with --resume --out a"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert not (tmp_path / "a" / "parity.json").exists()


# --accumulate


def test_validate_sums_as_it_is_told(checkpoint, text, tmp_path):
    """Oracle: the same scalings, written out."""
    shared = {"model": str(checkpoint), "text": str(text), "window": 32, "tokens": 64, "every": 0}
    said = Validation(scalings=("bf16", "amax:accumulate=hopper"), **shared)
    found, expected = (
        run.read_json(run.summary)["perplexity"]
        for run in (
            run_validation(Validation(accumulate="hopper", **shared), tmp_path / "a", overwrite=False),
            run_validation(said, tmp_path / "b", overwrite=False),
        )
    )
    assert found == expected
    assert [*found] == ["bf16", "amax:accumulate=hopper"]


@pytest.mark.parametrize(
    ("scalings", "expected"),
    [
        ((), ("bf16", "amax:accumulate=ada")),
        (("cscale:-1", "bf16"), ("cscale:-1,accumulate=ada", "bf16")),
        (("amax:fast=none",), ("amax:fast=none,accumulate=ada",)),
        (("amax:accumulate=ada,fast=none",), ("amax:accumulate=ada,fast=none",)),
    ],
)
def test_each_scaling_of_fp8_gets_the_sums(scalings, expected):
    made = Validation(model="m", scalings=scalings, accumulate="ada")
    assert tuple(made.scalings) == expected
    again = Validation(model="m", scalings=made.scalings, accumulate="ada")
    assert tuple(again.scalings) == expected


@pytest.mark.parametrize(
    ("scalings", "message"),
    [
        (("bf16",), "--accumulate ada is for layers that a scaling puts into FP8, and bf16 puts none: leave it out"),
        (("stored",), "and stored puts none: leave it out"),
        (("amax:accumulate=hopper",), "says whose sums are imitated: leave --accumulate ada out"),
    ],
)
def test_sums_of_nothing_and_of_two_are_refused(scalings, message):
    with pytest.raises(UserError, match=message):
        Validation(model="m", scalings=scalings, accumulate="ada")


def test_a_recipe_file_says_its_scaling_and_not_whose_sums(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('scaling = "cscale:2"\n')
    assert Validation(model="m", recipe=path, accumulate="ada").scalings == ("bf16", "cscale:2,accumulate=ada")
