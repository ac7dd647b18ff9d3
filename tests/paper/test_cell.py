"""A cell's name stands for all that its result depends on. Oracle: two cells have one name, or they do not."""

from dataclasses import replace

import pytest
from checkpoints import save_tiny_llama

from octoscale.paper.cell import asking, reading, training, weights_of
from octoscale.paper.settings import Reproduction
from octoscale.paper.tasks import Task
from octoscale.system.errors import UserError

ROWS = "sentence\tlabel\ngood\t1\nbad\t0\n"
SST2, PIQA = Task(name="sst2", has_classes=True), Task(name="piqa", has_classes=False)


@pytest.fixture
def words(tmp_path):
    """Settings with data of sst2."""
    (tmp_path / "data").mkdir()
    for name in ("sst2", "sst2-train"):
        (tmp_path / "data" / f"{name}.tsv").write_text(ROWS)
    return Reproduction(what="all", include=tmp_path / "data")


@pytest.mark.parametrize("change", [{"limit": 3}, {"batch_size": 2}, {"dtype": "fp32"}, {"formats": "fnuz"}])
def test_other_words_make_another_question(words, change):
    assert asking(words, "gpt-10m", SST2, "amax").name != asking(replace(words, **change), "gpt-10m", SST2, "amax").name


@pytest.mark.parametrize(
    "change", [{"steps": 3}, {"batch": 2}, {"window": 8}, {"learning_rate": 1e-3}, {"examples": 2}, {"formats": "fnuz"}]
)
def test_other_words_make_another_training(words, change):
    first = training(words, "gpt-10m", SST2, "amax", 0)
    assert first.name != training(replace(words, **change), "gpt-10m", SST2, "amax", 0).name


@pytest.mark.parametrize("other", [("gpt-111m", "amax", 0), ("gpt-10m", "bf16", 0), ("gpt-10m", "amax", 1)])
def test_another_model_scaling_or_seed_makes_another_training(words, other):
    model, scaling, seed = other
    assert training(words, "gpt-10m", SST2, "amax", 0).name != training(words, model, SST2, scaling, seed).name


def test_what_a_measurement_does_not_read_is_no_part_of_it(words):
    changed = replace(words, bias="-1:1", seeds="0,1", what="table2", tokens=512, limit=3)
    assert training(words, "gpt-10m", SST2, "amax", 0).name == training(changed, "gpt-10m", SST2, "amax", 0).name


def test_another_byte_of_the_data_makes_another_cell_and_another_place_does_not(words, tmp_path):
    trained, asked = training(words, "gpt-10m", SST2, "amax", 0), asking(words, "gpt-10m", SST2, "amax")
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = replace(words, include=tmp_path / "moved")
    assert training(moved, "gpt-10m", SST2, "amax", 0).name == trained.name
    assert asking(moved, "gpt-10m", SST2, "amax").name == asked.name
    (tmp_path / "moved" / "sst2-train.tsv").write_text(ROWS.replace("good", "food"))
    assert training(moved, "gpt-10m", SST2, "amax", 0).name != trained.name
    assert asking(moved, "gpt-10m", SST2, "amax").name == asked.name
    (tmp_path / "moved" / "sst2.tsv").write_text(ROWS.replace("good", "food"))
    assert asking(moved, "gpt-10m", SST2, "amax").name != asked.name


def test_other_weights_in_a_folder_of_one_name_make_another_cell(words, tmp_path):
    first = asking(words, str(save_tiny_llama(tmp_path / "a" / "llama")), PIQA, "amax")
    second = asking(words, str(save_tiny_llama(tmp_path / "b" / "llama")), PIQA, "amax")
    assert first.name == second.name
    weights = tmp_path / "b" / "llama" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    weights_of.cache_clear()
    assert asking(words, str(tmp_path / "b" / "llama"), PIQA, "amax").name != first.name


def test_a_classifiers_answers_depend_on_its_training(words, tmp_path):
    names = set()
    for steps in (3, 4):
        trained = training(replace(words, steps=steps), "gpt-10m", SST2, "bf16", 0)
        place = tmp_path / trained.name / "model"
        asked = asking(words, "gpt-10m", SST2, "amax", of=trained, place=place)
        assert asked.words.model == str(place)
        assert asked.label == "ask gpt-10m sst2 bf16 seed0 amax"
        assert asking(words, "gpt-10m", SST2, "amax", of=trained, place=place / "moved").name == asked.name
        names.add(asked.name)
    assert len(names) == 2


def test_whether_weights_are_rounded_before_is_part_of_a_cell_and_older_cells_stay_what_they_are(words):
    trained = training(words, "gpt-10m", SST2, "amax", 0)
    rounded = asking(words, "gpt-10m", SST2, "amax", of=trained)
    as_trained = asking(words, "gpt-10m", SST2, "amax", of=trained, as_trained=True)
    assert (rounded.words.autocast, as_trained.words.autocast) == (False, True)
    assert as_trained.name != rounded.name
    assert "autocast" not in rounded.identity
    assert (
        asking(replace(words, dtype="fp32"), "gpt-10m", SST2, "amax", of=trained, as_trained=True).words.autocast
        is False
    )


def test_the_papers_training_is_its_preset(words):
    """Oracle: 2 examples are one step of 512 in each of 3 epochs; the rest is PAPER.md's."""
    cell = training(replace(words, preset="paper"), "gpt-111m", SST2, "amax", 0)
    found = cell.words
    assert (found.steps, found.batch * found.accumulate, found.window) == (3, 512, 120)
    assert (found.scaling, found.dtype, found.formats, found.loss_scale) == ("amax:margin=3", "fp16", "fnuz", "512")
    high = training(replace(words, preset="paper", steps=5), "gpt-111m", SST2, "fp16", 0).words
    assert (high.steps, high.scaling, high.dtype) == (5, "fp16", "fp16")


def test_a_text_is_known_by_its_bytes(words, tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("one")
    names = [reading(replace(words, text=str(tmp_path / name)), "gpt-10m").name for name in ("a.txt", "b.txt")]
    assert names[0] == names[1]
    (tmp_path / "b.txt").write_text("two")
    assert reading(replace(words, text=str(tmp_path / "b.txt")), "gpt-10m").name != names[0]


def test_sums_of_a_tensor_core_make_another_cell_and_no_word_does(words):
    """Each FP8 scaling says whose they are; high precision has none, and its cells serve both."""
    summed = replace(words, accumulate="hopper")
    assert asking(summed, "gpt-10m", SST2, "bf16").name == asking(words, "gpt-10m", SST2, "bf16").name
    for scaling in ("amax", "cscale:-1"):
        cell = asking(summed, "gpt-10m", SST2, scaling)
        (text,) = cell.words.scalings
        assert text == f"{scaling}{',' if ':' in scaling else ':'}accumulate=hopper"
        assert cell.name != asking(words, "gpt-10m", SST2, scaling).name
        assert training(summed, "gpt-10m", SST2, scaling, 0).words.scaling == text
    assert reading(summed, "gpt-10m").words.scalings == ("amax:accumulate=hopper",)
    preset = training(replace(summed, preset="paper"), "gpt-111m", SST2, "amax", 0).words
    assert (preset.scaling, preset.dtype) == ("amax:margin=3,accumulate=hopper", "fp16")


def test_a_cell_that_was_kept_before_there_was_a_word_is_found_again(words):
    """A validation's own word on sums is no part of its name: its scalings say it. A training's is another."""
    asked, trained = asking(words, "gpt-10m", SST2, "amax"), training(words, "gpt-10m", SST2, "amax", 0)
    assert "accumulate" not in asked.identity
    assert trained.identity["accumulate"] == trained.words.accumulate


@pytest.mark.parametrize("name", ["volta", "hopper,ada"])
def test_another_tensor_core_is_refused(words, name):
    with pytest.raises(UserError, match=r"unknown accumulator '.*': one of hopper, ada, blackwell"):
        replace(words, accumulate=name)
