"""Options that nothing would read. Oracle: one line that names the option; the same words without it are taken."""

import pytest

from octoscale.validation.settings import Validation

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

IN_VAIN = [
    ("validate M", "--limit 3", "--limit is for --tasks, or the questions of --task"),
    ("validate M", "--num-fewshot 3", "--num-fewshot is for --tasks"),
    ("validate M", "--batch-size 3", "--batch-size is for --tasks"),
    ("validate M --task a.jsonl", "--include .", "--include is a folder for what --tasks names"),
    ("validate M --tasks piqa", "--window 32", "--window is for a text"),
    ("validate M --tasks piqa", "--tokens 320", "--tokens is for a text"),
    (
        "validate M --scaling bf16",
        "--formats fnuz",
        "--formats is for FP8 scalings without formats of their own, not for",
    ),
    ("validate M --scaling bf16", "--formats ocp", "--formats is for FP8 scalings"),
    ("validate M --scaling amax:formats=fnuz", "--formats ocp", "--formats is for FP8 scalings without formats"),
    ("validate M --scaling bf16", "--skip down_proj", "--skip keeps layers out of FP8"),
    ("validate M --scaling bf16", "--every 4", "--every is for records of FP8 layers"),
    ("validate M --scaling stored", "--skip down_proj", "--skip keeps layers out of FP8"),
    ("validate M --scaling stored", "--formats fnuz", "--formats is for FP8 scalings"),
    ("sweep M", "--limit 3", "--limit is for --tasks, or the questions of --task"),
    ("sweep M --roles weight,input", "--all", "--roles measures every pair of biases: leave --all out"),
    ("train M", "--examples 3", "--examples is for --task"),
    ("train M --task sst2", "--tokens 300", "--tokens is for a text"),
    ("train M --task sst2", "--text pydoc", "a training reads --text or --task, not both"),
    ("train M --task sst2", "--validation 0.2", "here the hub's own split is what is validated with"),
    ("train M --task a.tsv --eval-task b.tsv", "--validation 0.2", "here b.tsv is what is validated with"),
    ("train M --scaling bf16", "--formats fnuz", "--formats is for FP8 scalings"),
    ("train M --scaling bf16", "--skip down_proj", "--skip keeps layers out of FP8"),
    ("train M --scaling bf16", "--every 4", "--every is for records of FP8 layers"),
    ("train M", "--histograms down_proj", "--histograms are sent to TensorBoard: add --report-to tensorboard"),
    ("train M --report-to wandb", "--histograms down_proj", "--histograms are sent to TensorBoard"),
    (
        "train M --report-to tensorboard --scaling bf16",
        "--histograms x",
        "--histograms are of FP8 layers, and bf16 has",
    ),
    ("train M --report-to tensorboard --every 0", "--histograms x", "--histograms needs recorded ones, and --every 0"),
]


@pytest.fixture
def begun(monkeypatch):
    """The plans that a command would carry out."""
    plans: list = []
    monkeypatch.setattr("octoscale.cli.train._train", lambda plan, *_: plans.append(plan))
    monkeypatch.setattr("octoscale.cli.measure._carry_out", lambda plan, *_, **__: plans.append(plan))
    return plans


@pytest.mark.parametrize(("words", "option", "message"), IN_VAIN)
def test_an_option_in_vain_is_one_line(run, checkpoint, begun, words, option, message):
    words = [str(checkpoint) if word == "M" else word for word in words.split()]
    code, out, err = run(*words, *option.split())
    assert (code, out, begun) == (2, "", [])
    assert err.splitlines()[-1].startswith("octoscale: error: ")
    assert message in err.splitlines()[-1]
    assert run(*words)[0] == 0
    assert len(begun) == 1


def test_an_option_that_is_read_is_taken(run, checkpoint, begun):
    for words in (
        "validate M --scaling bf16 --scaling amax --formats fnuz --skip down_proj --every 4",
        "validate M --scaling bf16 --every 0",
        "validate M --scaling amax:formats=fnuz --scaling cscale:1 --formats ocp",
        "train M --task a.tsv --validation 0.2 --examples 9 --skip down_proj",
        "train M --tokens 300 --text pydoc --validation 0.2 --every 3 --formats fnuz",
    ):
        code, _, err = run(*[str(checkpoint) if word == "M" else word for word in words.split()])
        assert code == 0, err
    assert len(begun) == 5


def test_the_default_scalings_follow_the_precision():
    """The baseline is the precision that was asked for."""
    for dtype in ("bf16", "fp16", "fp32"):
        assert Validation(model="m", dtype=dtype).scalings == (dtype, "amax")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"dtype": "fp32", "scalings": ["bf16"]},
            "scaling bf16 is no FP8, and dtype fp32 is another precision: --dtype bf16",
        ),
        ({"scalings": ["amax", "fp32"]}, "scaling fp32 is no FP8, and dtype bf16 is another precision: --dtype fp32"),
        ({"limit": 0}, "limit=0: must be at least 1"),
        ({"limit": -1}, "limit=-1: must be at least 1"),
        ({"by_layer": True, "task": "questions.jsonl"}, "tasks are asked in batches"),
    ],
)
def test_a_plan_that_contradicts_itself(words, message):
    with pytest.raises(ValueError, match=message):
        Validation(model="m", **words)


def test_precisions_may_be_compared():
    assert Validation(model="m", dtype="fp32", scalings=["fp32", "bf16", "amax"]).dtype == "fp32"


def test_validate_in_float32_has_a_float32_baseline(run, checkpoint, text):
    code, out, err = run(
        "validate", checkpoint, "--dtype", "fp32", "--text", text, "--window", 32, "--tokens", 64, "--json"
    )
    assert code == 0, err
    assert '"fp32":' in out
    assert '"bf16":' not in out


@pytest.mark.parametrize("scaling", ["amax", "bf16"])
def test_fp8_weights_do_not_train(scaling, run, checkpoint, text, tmp_path):
    assert run("quantize", checkpoint, tmp_path / "fp8")[0] == 0
    code, _, err = run("train", tmp_path / "fp8", "--text", text, "--scaling", scaling, "--out", tmp_path / "run")
    assert code == 2
    assert "holds FP8 weights, which do not train: name the checkpoint it was made from" in err
    assert not (tmp_path / "run").exists()


def test_sweep_of_stored_scales_names_a_command_that_helps(run, checkpoint, tmp_path):
    assert run("quantize", checkpoint, tmp_path / "fp8")[0] == 0
    code, _, err = run("sweep", tmp_path / "fp8")
    assert code == 2
    assert "holds FP8 weights with their scales: there is none to look for; validate measures it" in err
