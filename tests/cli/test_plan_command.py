"""octoscale plan: its table, its JSON, and what it says of words that do not fit. Oracle: arithmetic on the sizes."""

import json

import pytest
from checkpoints import save_tiny_llama

from octoscale.models.sizes import SIZES

REFUSED = [
    (["lama2-70b"], "unknown model 'lama2-70b': near are llama2-70b"),
    (["gpt-10m", "--memory", "lots"], "--memory lots: a number and its unit"),
    (["gpt-10m", "--gpus", "8", "--parallel", "fsdp=4"], "--parallel fsdp=4 is for 4 ranks, and --gpus says 8"),
    (["gpt-10m", "--parallel", "fsdp=4,pp=2"], "--parallel fsdp=4,pp=2: numbers of ranks"),
    (["gpt-10m", "--parallel", "tp=2"], "tp=2 does not divide the heads of gpt-10m, 5: tp of 1"),
    (["gpt-10m", "--scaling", "bf16", "--amax-group", "world"], "--amax-group is for FP8 layers, and bf16 has none"),
    (["gpt-10m", "--parallel", "fsdp=4", "--accumulate", "6"], "shared by 4 replicas"),
    (["gpt-10m", "--gpus", "4", "--accumulate", "0"], "--accumulate 0: must be at least 1"),
    (["gpt-10m", "--seq", "4096"], "--seq 4096 is longer than the 1024 positions of gpt-10m"),
    (["gpt-10m", "--scaling", "amx"], "unknown scaling 'amx'"),
    (["gpt-10m", "--skip", "nothing_like_it", "--gpus", "1"], "nothing_like_it"),
    (["llama2-70b", "--gpus", "4"], "largest are parameters, gradients and optimizer, 275.9 GB a rank"),
    (["gpt-10m", "--memory", "1GB", "--batch", "64", "--gpus", "2"], "largest are the activations"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_words_that_do_not_fit(run, words, message):
    code, out, err = run("plan", *words)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err


def test_a_plan_as_json(run):
    words = ["--parallel", "fsdp=2", "--seq", "64", "--bandwidth", "10", "--amax-group", "world"]
    code, out, err = run("plan", "gpt-10m", *words, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["gpus"], found["accumulate"], found["chosen"]) == (2, 2, False)
    in_fp8, without = found["training"]["amax"], found["training"]["bf16"]
    assert in_fp8["bytes"]["parameters"] == pytest.approx(4 * found["parameters"] / 2, rel=1e-3)
    assert in_fp8["bytes"]["optimizer"] == pytest.approx(8 * found["parameters"] / 2, rel=1e-3)
    assert in_fp8["bytes"]["casts"] < without["bytes"]["casts"]
    assert in_fp8["moved"]["all-gather"] < without["moved"]["all-gather"]
    casts = SIZES["gpt-10m"].num_layers * (4 + 4)  # inputs and gradients, whose scales are for the world
    assert in_fp8["messages"]["all-reduce"] == 1 + casts
    assert in_fp8["parallel"] == without["parallel"] == "fsdp=2"
    assert in_fp8["seconds"] == pytest.approx(in_fp8["communication"] / 10e9)
    assert found["inference"]["amax"]["bytes"]["peak"] < found["inference"]["bf16"]["bytes"]["peak"]


def test_a_plan_as_a_table(run, tmp_path):
    """Of a folder, and with the mesh that is chosen: one rank holds it."""
    save_tiny_llama(tmp_path / "tiny")
    code, out, err = run("plan", str(tmp_path / "tiny"), "--gpus", "4", "--memory", "1GB", "--scaling", "cscale:-1")
    assert code == 0, err
    assert "the smallest mesh for cscale:-1: 1 rank, --parallel fsdp=1; on all 4" in " ".join(out.split())
    for row in ("saved activations", "casts of weights", "fits in 1", "sent in a step", "messages in a step"):
        assert row in out


def test_without_fp8_there_is_one_column(run):
    code, out, err = run("plan", "gpt-10m", "--scaling", "bf16", "--gpus", "1", "--seq", "64", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["training"]) == list(found["inference"]) == ["bf16"]
