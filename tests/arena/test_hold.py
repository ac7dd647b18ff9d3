"""A contest from end to end, on a tiny Llama. Oracles: validations and trainings of each scaling alone; the files."""

import csv
import io
import json
import math
from contextlib import contextmanager

import pytest
from checkpoints import contents, save_tiny_llama

from octoscale.arena.run import hold
from octoscale.arena.settings import Arena
from octoscale.kernels import table as kernels
from octoscale.layers.state import NonFiniteError
from octoscale.numerics.granularity import TENSOR
from octoscale.report.data.paired_losses import excesses
from octoscale.system.errors import UserError
from octoscale.training.run import run_training
from octoscale.training.settings import Training
from octoscale.validation import one_scaling
from octoscale.validation.paired import paired_mean
from octoscale.validation.run import run_validation
from octoscale.validation.settings import Validation

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

READ = {"scalings": ("amax", "cscale", "delayed", "amax:mx"), "bias": "-1:0", "window": 32, "tokens": 128}
TRAIN = {"scalings": ("amax:block",), "train": 2, "seeds": "0,1", "batch": 2, "window": 16, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    save_tiny_llama(folder / "llama")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog; so it does. " * 12)
    return folder


def words(inputs, **given):
    return Arena(model=str(inputs / "llama"), text=str(inputs / "text.txt"), **given)


def read(folder):
    return json.loads((folder / "arena.json").read_text())


class Counted:
    """Bars that count the cells which are made, and stop before one of them."""

    def __init__(self, stop_at=None):
        self.labels, self.stop_at = [], stop_at

    @contextmanager
    def __call__(self, cell):
        if len(self.labels) == self.stop_at:
            raise KeyboardInterrupt
        self.labels.append(cell.label.removeprefix("read llama ").removeprefix("train llama "))
        yield None


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A contest that was never stopped: its folder, and which cells were made."""
    folder, bars = tmp_path_factory.mktemp("whole") / "arena", Counted()
    hold(words(inputs, **READ), folder, bars=bars)
    return folder, bars.labels


@pytest.fixture(scope="module")
def validated(inputs, tmp_path_factory):
    """Each scaling alone, by octoscale validate: perplexities, and losses by window."""
    perplexity, metrics = {}, []
    for scaling in ("bf16", "amax", "cscale:-1", "cscale:0", "delayed:history=16", "amax:mx"):
        settings = Validation(
            model=str(inputs / "llama"),
            scalings=(scaling,),
            text=str(inputs / "text.txt"),
            **{name: READ[name] for name in ("window", "tokens")},
        )
        run = run_validation(settings, tmp_path_factory.mktemp("one") / "run", overwrite=False)
        found = run.read_json(run.summary)["perplexity"]
        perplexity[scaling] = found["cscale"][scaling[7:]] if "cscale" in found else found[scaling]
        metrics += run.read_metrics()
    return perplexity, metrics


def test_a_row_is_what_a_validation_of_its_scaling_alone_says(whole, validated):
    perplexity, metrics = validated
    rows = {row["scaling"]: row for row in read(whole[0])["rows"]}
    expected = excesses("bf16", perplexity, metrics)
    assert [*rows][:2] == ["bf16", "amax"]
    for name, scaling in (("bf16", "bf16"), ("amax", "amax"), ("delayed", "delayed:history=16"), ("amax:mx",) * 2):
        assert rows[name]["score"] == pytest.approx(perplexity[scaling], rel=1e-12)
        if name != "bf16":
            ends = expected[scaling]
            assert (rows[name]["gap"], rows[name]["low"], rows[name]["high"]) == (
                pytest.approx(100 * ends.estimate),
                pytest.approx(100 * ends.low),
                pytest.approx(100 * ends.high),
            )
    assert rows["amax"]["score"] != rows["amax:mx"]["score"]
    assert rows["bf16"]["gap"] is None
    assert all(row["seconds"] > 0 for row in rows.values())


def test_the_best_constant_is_chosen_on_the_other_half(whole, validated):
    losses = {
        name: [row["loss"] for row in validated[1] if row["scaling"] == name] for name in ("cscale:-1", "cscale:0")
    }
    best = [min(losses, key=lambda name, half=half: (sum(losses[name][half::2]), name)) for half in (0, 1)]
    mixed = [losses[best[1 - at % 2]][at] for at in range(4)]
    (row,) = [row for row in read(whole[0])["rows"] if row["scaling"].startswith("cscale")]
    assert row["score"] == pytest.approx(math.exp(sum(mixed) / 4), rel=1e-12)
    assert row["scaling"] == " and ".join(dict.fromkeys(best[::-1]))


def test_bits_are_those_of_the_layers_by_hand(whole):
    """A layer of the tiny Llama: q and o 32 x 32, k and v 16 x 32, gate and up 64 x 32, down 32 x 64. Of two layers."""
    values = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)
    bits = {row["scaling"].partition(":")[0] + row["scales"]: row for row in read(whole[0])["rows"]}
    found = {row["bits"] for row in bits.values()}
    assert found == {16, 8, 8 + 8 * 14 / values, 8.25}
    (mx,) = [row for row in read(whole[0])["rows"] if row["scaling"] == "amax:mx"]
    assert mx["megabytes"] == pytest.approx(values * 8.25 / 8e6)


def test_what_was_stopped_goes_on_and_ends_with_the_same(inputs, whole, tmp_path):
    folder, labels = whole
    stopped, again, nothing = Counted(stop_at=3), Counted(), Counted()
    with pytest.raises(KeyboardInterrupt):
        hold(words(inputs, **READ), tmp_path / "arena", bars=stopped)
    assert not (tmp_path / "arena" / "arena.json").exists()
    hold(words(inputs, **READ), tmp_path / "arena", bars=again)
    assert stopped.labels + again.labels == labels == ["bf16", "amax", "cscale:-1", "cscale:0", "delayed", "amax:mx"]
    contest, other = read(folder), read(tmp_path / "arena")
    for content in (contest, other):
        for row in content["rows"]:
            del row["seconds"]  # of another run of the same
    assert contest == other
    before = contents(tmp_path / "arena")
    hold(words(inputs, **READ), tmp_path / "arena", bars=nothing)
    assert nothing.labels == []
    assert contents(tmp_path / "arena") == before


def test_the_csv_is_the_table_and_what_it_was_made_with_is_noted(inputs, whole):
    content = read(whole[0])
    rows = list(csv.DictReader(io.StringIO((whole[0] / "arena.csv").read_text())))
    assert [row["scaling"] for row in rows] == [row["scaling"] for row in content["rows"]]
    assert [row["gap"] for row in rows][1:] == [str(row["gap"]) for row in content["rows"]][1:]
    made = json.loads((whole[0] / "made.json").read_text())["arena"]
    assert made["words"]["scalings"] == list(READ["scalings"])
    assert {"cpu", "threads", "reason", "octoscale", "torch", "transformers"} <= made["machine"].keys()
    assert (content["against"], content["unit"], content["trains"]) == ("bf16", "windows", False)


def test_a_training_is_that_of_its_scaling_alone(inputs, tmp_path):
    """Oracle: octoscale train with the same words; Student's interval over the seeds."""
    hold(words(inputs, **TRAIN), tmp_path / "arena")
    losses = {}
    for scaling in ("bf16", "amax:block"):
        for seed in (0, 1):
            given = {name: TRAIN[name] for name in ("batch", "window", "learning_rate")}
            settings = Training(
                model=str(inputs / "llama"), text=str(inputs / "text.txt"), scaling=scaling, seed=seed, steps=2, **given
            )
            run = run_training(settings, tmp_path / f"{scaling}{seed}")
            losses.setdefault(scaling, []).append(run.read_json(run.summary)["validation_loss"]["after"])
    base, row = read(tmp_path / "arena")["rows"]
    expected = paired_mean([b - a for a, b in zip(losses["bf16"], losses["amax:block"], strict=True)])
    assert base["score"] == sum(losses["bf16"]) / 2
    assert row["score"] == sum(losses["amax:block"]) / 2
    assert (row["gap"], row["low"], row["high"]) == (expected.estimate, expected.low, expected.high)
    assert read(tmp_path / "arena")["title"].endswith("2 steps of fine-tuning")
    assert not list((tmp_path / "arena" / "cells").rglob("*.safetensors"))  # nobody asks what was trained


def test_the_constant_of_trainings_is_chosen_with_a_seed_of_its_own(inputs, tmp_path):
    bars = Counted()
    hold(
        words(inputs, **TRAIN | {"scalings": ("cscale",), "bias": "-9,0", "seeds": "1"}), tmp_path / "arena", bars=bars
    )
    tried = ["cscale:weight=-9,input=-9 seed0", "cscale:weight=0,input=0 seed0"]
    assert bars.labels[:3] == ["bf16 seed1", *tried]
    losses = {}
    for path in (tmp_path / "arena" / "cells").glob("train-*seed0-*.json"):
        value = json.loads(path.read_text())["value"]
        losses[value["cell"].removeprefix("train llama ")] = value["validation_loss"]["after"]
    best = min(tried, key=lambda label: losses[label]).replace("seed0", "seed1")
    assert bars.labels[3:] == [best]
    (row,) = read(tmp_path / "arena")["rows"][1:]
    assert row["scaling"] == best.removesuffix(" seed1")
    assert row["verdict"] == "one seed has no interval"


def test_what_a_backend_refuses_is_a_row(inputs, tmp_path, monkeypatch):
    """Oracle: the words of the backend, here one that is made to know a scale a tensor alone."""
    backend = type(kernels.choose("cpu").backend)
    monkeypatch.setattr(backend, "granularities", property(lambda _: (TENSOR,)))
    hold(words(inputs, **READ | {"scalings": ("amax:row", "amax")}), tmp_path / "arena")
    _, refused, amax = read(tmp_path / "arena")["rows"]
    assert refused["verdict"].startswith("refused: quantize: the backend ")
    assert "takes scales of granularity tensor, not row" in refused["verdict"]
    assert (refused["score"], refused["gap"], refused["seconds"]) == (None, None, None)
    assert refused["bits"] > 8
    assert amax["score"] is not None


def test_what_is_not_finite_is_a_row_and_in_high_precision_an_error(inputs, tmp_path, monkeypatch):
    compute = one_scaling.perplexity

    def broken(only):
        def perplexity(model, windows, *args):
            if only(model):
                raise NonFiniteError("layer 3: the input holds infinity")
            return compute(model, windows, *args)

        return perplexity

    def is_fp8(model):
        return any("Fp8" in type(module).__name__ for module in model.modules())

    monkeypatch.setattr(one_scaling, "perplexity", broken(is_fp8))
    hold(words(inputs, **READ | {"scalings": ("amax", "cscale")}), tmp_path / "arena")
    rows = read(tmp_path / "arena")["rows"]
    failure = "layer 3: the input holds infinity"
    assert [row["verdict"] for row in rows[1:]] == [failure, f"none of 2 constants came to an end: {failure}"]
    monkeypatch.setattr(one_scaling, "perplexity", broken(lambda model: True))
    with pytest.raises(FloatingPointError, match="is at fault, not FP8: in bf16"):
        hold(words(inputs, **READ), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "nowhere.txt"}, "no such text file: nowhere.txt"),
        ({"model": "nowhere"}, "unknown model 'nowhere'"),
        ({"scalings": ("amax:3",)}, "unknown scaling 'amax:3'"),
        ({"scalings": ("amax", "amax")}, "a scaling is named twice: amax"),
        ({"scalings": ("cscale", "cscale:0")}, "a scaling is named twice: cscale:0"),
        ({"formats": "x"}, "unknown format set 'x'"),
        ({"skip": ("nothing",)}, "skip pattern 'nothing' matches no linear layer"),
        ({"window": 65, "tokens": 130}, "a window of 65 tokens is longer than the model's 64 positions"),
    ],
)
def test_what_cannot_be_met_is_refused_before_anything_is_written(inputs, tmp_path, changes, message):
    given = {"model": str(inputs / "llama"), "text": str(inputs / "text.txt"), **READ} | changes
    with pytest.raises((UserError, OSError), match=message):
        hold(Arena(**given), tmp_path / "arena")
    assert not (tmp_path / "arena").exists()


def test_a_model_in_fp8_is_refused(inputs, tmp_path):
    from checkpoints import quantize

    quantize(inputs / "llama", tmp_path / "fp8", scaling="amax")
    with pytest.raises(UserError, match="holds FP8 weights with their scales: name the checkpoint it was made from"):
        hold(Arena(model=str(tmp_path / "fp8"), text=str(inputs / "text.txt")), tmp_path / "arena")


@pytest.mark.parametrize("names", [["letter.txt"], ["cells", "run.json"], ["cells", "made.json"]])
def test_a_folder_of_something_else_is_left_alone(inputs, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="holds files that are not of an arena"):
        hold(words(inputs, **READ), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
