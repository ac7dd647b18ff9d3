"""Histograms in TensorBoard's event files. Oracles: the rows of the run; tensorboard reads its own events."""

import pytest
from checkpoints import save_tiny_llama

from octoscale.kernels.base import EXPONENT_OFFSET, NUM_EXPONENT_BINS
from octoscale.runs.scales import read_scales
from octoscale.training.run import run_training
from octoscale.training.settings import Training
from octoscale.training.tensorboard import send_exponents

pytestmark = pytest.mark.filterwarnings("ignore")  # Trainer's and tensorboard's own

DOWN = "model.layers.{}.mlp.down_proj"


@pytest.fixture(scope="module")
def reader():
    return pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="the extra train")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint and a text."""
    folder = tmp_path_factory.mktemp("tensorboard")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    return {"model": str(save_tiny_llama(folder / "llama")), "text": str(folder / "text.txt")}


def plan(files, **changes):
    words = {"window": 32, "steps": 3, "batch": 2, "accumulate": 2, "every": 2, "save_every": 0}
    return Training(**files, **words, report_to=["tensorboard"], **changes)


def read(reader, folder):
    events = reader.EventAccumulator(str(folder), size_guidance={"histograms": 0})  # all of them
    events.Reload()
    return {tag: events.Histograms(tag) for tag in events.Tags()["histograms"]}


def counts_of(histogram):
    """exponent -> count; a bucket reaches from the limit before it to its own."""
    limits, counts = histogram.bucket_limit, histogram.bucket
    return {round(limit) - 1: round(count) for limit, count in zip(limits, counts, strict=True) if count}


def test_chosen_modules_send_the_exponents_that_were_recorded(reader, files, tmp_path):
    run = run_training(plan(files, histograms_of=["layers.0.*.down_proj", "q_proj"]), tmp_path / "run")
    sent = read(reader, run.path / "tensorboard")
    modules = [DOWN.format(0), *(f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1))]
    roles = ("weight", "input", "grad_output")
    assert set(sent) == {f"exponents/{role}/{module}" for role in roles for module in modules}
    rows = read_scales(run.path)
    for module in modules:
        for role in roles:
            events = sent[f"exponents/{role}/{module}"]
            assert [event.step for event in events] == [1, 3]  # the steps 0 and 2 are recorded, every=2
            for event in events:
                recorded = rows.filter(module=module, role=role, step=event.step - 1)["exponents"].to_list()
                assert role == "weight" or len(recorded) == 2  # micro-batches
                bins = [sum(column) for column in zip(*recorded, strict=True)]
                expected = {place - EXPONENT_OFFSET: count for place, count in enumerate(bins) if count and place}
                assert counts_of(event.histogram_value) == expected
                assert event.histogram_value.num == sum(expected.values())


def test_without_the_option_there_are_scalars_only(reader, files, tmp_path):
    run = run_training(plan(files), tmp_path / "run")
    assert read(reader, run.path / "tensorboard") == {}


def test_a_pattern_that_matches_nothing_is_an_error_before_anything_is_written(files, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra train")
    with pytest.raises(ValueError, match=r"--histograms 'down_prj' matches no FP8 layer; near names: down_proj"):
        run_training(plan(files, histograms_of=["q_proj", "down_prj"]), tmp_path / "run")
    with pytest.raises(ValueError, match="--histograms 'down_proj' matches no FP8 layer"):
        run_training(plan(files, histograms_of=["down_proj"], skip=["down_proj"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Writer:
    def __init__(self):
        self.sent = []

    def add_histogram_raw(self, tag, **histogram):
        self.sent.append((tag, histogram))


def bins(counts):
    made = [0] * NUM_EXPONENT_BINS
    for exponent, count in counts.items():
        made[exponent + EXPONENT_OFFSET] = count
    return made


def test_buckets_are_exponents_and_say_where_they_begin():
    """By hand: 3 values in [1/4, 1/2), 1 in [1, 2); zeros, inf and NaN have no exponent."""
    writer = Writer()
    send_exponents(writer, "t", bins({-2: 3, 0: 1, -127: 50, 128: 7}), 4)
    ((tag, sent),) = writer.sent
    assert (tag, sent["global_step"], sent["num"], sent["min"], sent["max"]) == ("t", 4, 4, -2, 1)
    assert sent["bucket_limits"] == [-2, -1, 0, 1]
    assert sent["bucket_counts"] == [0, 3, 0, 1]
    assert sent["sum"] == 3 * -1.5 + 0.5
    assert sent["sum_squares"] == 3 * 2.25 + 0.25


def test_what_has_no_exponent_is_no_histogram():
    writer = Writer()
    send_exponents(writer, "t", bins({-127: 50, 128: 7}), 4)
    send_exponents(writer, "t", bins({}), 4)
    assert writer.sent == []
