"""The command arena. Oracles: the files; one line of what is wrong."""

import json

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

WORDS = ("--tokens", 64, "--window", 32, "--scaling", "amax", "--scaling", "amax:mx")


def test_a_contest_is_a_table_a_figure_and_a_page(run, checkpoint, text, tmp_path):
    words = ("arena", checkpoint, "--text", text, *WORDS, "--out", "a")
    code, out, err = run(*words, "--json")
    assert code == 0, err
    printed, content = json.loads(out), json.loads((tmp_path / "a" / "arena.json").read_text())
    assert {name: printed[name] for name in content} == content
    assert printed["figures"] == ["a/arena.png", "a/arena.svg"]
    assert printed["made"]["words"]["window"] == 32
    assert [row["scaling"] for row in content["rows"]] == ["bf16", "amax", "amax:mx"]
    assert "read llama amax:mx" in err
    files = {path.name for path in (tmp_path / "a").iterdir()} - {".octoscale.lock"}
    assert files == {"README.md", "arena.csv", "arena.json", "arena.png", "arena.svg", "made.json", "cells"}
    code, out, err = run(*words)
    assert (code, "read llama" in err) == (0, False)
    assert "| amax:mx | 32 values, rounded down |" in out
    assert out.endswith("table, figure and their page: a/README.md\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds 0,1", "--seeds is for trainings: add --train STEPS, or leave it out"),
        ("--batch 3", "--batch is for trainings"),
        ("--learning-rate 1e-3", "--learning-rate is for trainings"),
        ("--validation 0.2", "--validation is for trainings"),
        ("--scaling amax --bias=-1", "--bias is for the contestant cscale, not for amax: leave it out"),
        ("--scaling bf16", "scaling bf16 is no contestant: each is compared with bf16, by --dtype"),
        ("--scaling stored", "scaling stored is no contestant"),
        ("--scaling amax:3", "unknown scaling 'amax:3'"),
        ("--scaling amax --scaling amax", "a scaling is named twice: amax"),
        ("--dtype int8", "unknown dtype 'int8': one of bf16, fp16, fp32"),
        ("--bias 3:1", "cannot read the biases '3:1'"),
        ("--train 0", "--train 0: must be at least 1 step"),
        ("--train 2 --seeds 0;1", "cannot read the seeds '0;1'"),
        ("--train 2 --seeds 1,1", "cannot read the seeds '1,1'"),
        ("--train 2 --seeds 4294967296", "cannot read the seeds"),
        ("--train 2 --batch 0", "batch=0: must be at least 1"),
        ("--train 2 --learning-rate nan", "learning rate nan: must be above 0"),
        ("--train 2 --validation 1", "validation=1.0: the part of the data"),
        ("--tokens 0", "--tokens 0: must be at least 1"),
        ("--tokens 63 --window 32", "63 tokens are less than two windows of 32, and one has no interval"),
        ("--window 1", "--window 1: a window needs at least 2 tokens"),
        ("--text nowhere.txt", "no such text file: nowhere.txt"),
        ("--window 32 --skip nothing", "skip pattern 'nothing' matches no linear layer"),
    ],
)
def test_what_cannot_be_had_is_one_line(run, checkpoint, text, tmp_path, words, message):
    code, out, err = run("arena", checkpoint, "--text", text, *words.split())
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("octoscale: error: ")]
    assert message in line
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_contest_says_how_to_go_on(run, checkpoint, text, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("octoscale.paper.kept.run_validation", stopped)
    code, out, err = run("arena", checkpoint, "--text", text, *WORDS, "--out", "a")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; what was measured is kept in a: the same command goes on"
