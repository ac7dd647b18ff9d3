"""Each table's rows. Oracle: what was planted, worked out by hand: 8 of 10 items are right in high precision."""

import math

import pytest
from planted_runs import HIGH, PlantedLab, answers

from octoscale.paper.answers import from_cell
from octoscale.paper.fig5 import fig5
from octoscale.paper.settings import Reproduction
from octoscale.paper.table2 import table2
from octoscale.paper.table3 import table3
from octoscale.paper.table4 import table4
from octoscale.paper.table5 import table5
from octoscale.paper.table6 import table6
from octoscale.validation.paired import paired_mean, paired_share

ONE_LESS, ONE_MORE = "0111111100", "1111111110"


def lab(tmp_path, planted, failures=(), **words):
    settings = {
        "every_bias": True,
        "what": "all",
        "models": ("gpt-111m",),
        "tasks": "sst2",
        "bias": "-2:1",
        "train_bias": "-1:1",
    }
    return PlantedLab(Reproduction(**{**settings, **words}), tmp_path, planted, failures)


def bits(text):
    return [letter == "1" for letter in text]


def test_table2(tmp_path):
    planted = {"bf16": HIGH, "amax": ONE_LESS, "cscale:-1": ONE_MORE, "cscale:0": HIGH, "cscale:1": ONE_LESS}
    (row,) = table2(lab(tmp_path, planted)).rows
    interval = paired_share(bits(HIGH), bits(ONE_LESS))
    assert (row["model"], row["task"], row["seed"], row["items"]) == ("gpt-111m", "sst2", 0, 10)
    assert (row["high"], row["amax"]) == (80.0, 70.0)
    assert row["ratio"] == pytest.approx(87.5)
    assert row["standard_error"] == pytest.approx(100 * math.sqrt(0.16 / 9))
    assert row["difference"] == pytest.approx(-10)
    assert (row["low"], row["high_end"]) == (pytest.approx(100 * interval.low), pytest.approx(100 * interval.high))
    assert row["verdict"].startswith("cannot be told with 10 items; about ")
    assert row["cscale"] == pytest.approx((90 + 80) / 2)
    assert row["cscale_biases"] == "-1 to 0"
    assert [row[f"paper_{name}"] for name in ("high", "amax", "cscale")] == [84.26, 84.38, 84.59]
    assert row["paper_ratio"] == pytest.approx(100 * 84.38 / 84.26)


def test_table2_of_a_size_that_the_paper_does_not_have(tmp_path):
    table = table2(lab(tmp_path, {"bf16": HIGH, "amax": HIGH}, models=("gpt-10m",)))
    assert not any(key.startswith("paper") for key in table.rows[0])
    assert (table.rows[0]["cscale"], table.rows[0]["cscale_biases"]) == (None, "no bias passes")


def test_many_items_tell_what_few_do_not(tmp_path):
    high = "1" * 4000 + "0" * 1000
    for number, (worse, verdict) in enumerate([(2, "above"), (200, "below"), (20, "cannot be told with 5,000 items")]):
        planted = {"bf16": high, "amax": "0" * worse + high[worse:]}
        (row,) = table4(lab(tmp_path / str(number), planted, tasks="piqa")).rows
        assert row["verdict"].startswith(verdict)


def test_table3_has_ranges_by_the_estimate_and_beyond_noise(tmp_path):
    high = "1" * 4000 + "0" * 1000
    below = "0" * 400 + high[400:]
    planted = {
        "bf16": high,
        "amax": high,
        "cscale:-2": high[:-1] + "1",
        "cscale:-1": high,
        "cscale:0": "0" * 19 + high[19:],
    }
    (row,) = table3(lab(tmp_path, planted | {"cscale:1": below})).rows
    assert row["by_estimate"] == "[-2, 0]"
    assert row["beyond_noise"] == "[-2, -1]"
    assert row["undecided"] == "0"
    assert row["measured"] == "-2 to 1"
    assert row["paper"] == "[-4, 2]"


def test_a_bias_that_gives_infinity_fails(tmp_path):
    """Only cscale:0 was planted: the others have no score."""
    (row,) = table3(lab(tmp_path, {"bf16": HIGH, "amax": HIGH, "cscale:0": ONE_MORE})).rows
    assert (row["by_estimate"], row["beyond_noise"]) == ("[0, 0]", "none")
    panels = fig5(lab(tmp_path, {})).panels
    assert [point["score"] for point in panels[0]["points"]] == [None, None, pytest.approx(90), None]


def test_table4_asks_the_model_itself(tmp_path):
    found = lab(tmp_path, {"bf16": HIGH, "amax": HIGH}, models=("llama2-7b", "gpt-10m"), tasks="piqa,mmlu")
    rows = table4(found).rows
    assert [(row["model"], row["task"]) for row in rows] == [
        *(("llama2-7b", "piqa"), ("llama2-7b", "mmlu"), ("gpt-10m", "piqa"), ("gpt-10m", "mmlu"))
    ]
    assert [row.get("paper_amax") for row in rows] == [78.7, 46.3, None, None]
    assert not any(label.startswith("train") for label in found.made)


def test_table5_over_seeds(tmp_path):
    planted = {
        "ask gpt-111m sst2 bf16 seed0 as trained bf16": HIGH,
        "ask gpt-111m sst2 bf16 seed1 as trained bf16": ONE_MORE,
        "ask gpt-111m sst2 amax seed0 as trained amax": ONE_LESS,
        "ask gpt-111m sst2 amax seed1 as trained amax": ONE_MORE,
    }
    (row,) = table5(lab(tmp_path, planted, seeds="0,1")).rows
    interval = paired_mean([-0.1, 0.0])
    assert (row["high"], row["amax"]) == (pytest.approx(85), pytest.approx(80))
    assert (row["high_spread"], row["amax_spread"]) == (
        pytest.approx(100 * math.sqrt(0.005)),
        pytest.approx(100 * math.sqrt(0.02)),
    )
    assert row["difference"] == pytest.approx(-5)
    assert (row["low"], row["high_end"]) == (pytest.approx(100 * interval.low), pytest.approx(100 * interval.high))
    assert row["verdict"] == "cannot be told with 2 seeds"
    assert (row["seeds"], row["paper_high"]) == ("0, 1", 85.07)


def test_table5_of_one_seed_has_the_interval_of_its_items(tmp_path):
    (row,) = table5(lab(tmp_path, {"bf16": HIGH, "amax": ONE_LESS})).rows
    assert row["low"] == pytest.approx(100 * paired_share(bits(HIGH), bits(ONE_LESS)).low)
    assert "high_spread" not in row


def test_table6_trains_with_each_bias_and_a_training_that_ends_in_nan_fails(tmp_path):
    found = lab(
        tmp_path, {"bf16": HIGH, "cscale:-1": HIGH, "cscale:0": HIGH, "cscale:1": HIGH}, ["cscale:1"], tasks="mnli"
    )
    (row,) = table6(found).rows
    assert (row["by_estimate"], row["measured"], row["paper"]) == ("[-1, 0]", "-1 to 1", "[-3, 2]")
    assert "ask gpt-111m mnli cscale:1 seed0 as trained cscale:1" not in found.made
    assert [label for label in found.made if label.startswith("train")] == [
        f"train gpt-111m mnli {scaling} seed0" for scaling in ("bf16", "cscale:-1", "cscale:0", "cscale:1")
    ]


def test_cells_that_are_there_are_not_made_again(tmp_path):
    planted = {"bf16": HIGH, "amax": HIGH}
    first = lab(tmp_path, planted)
    table = table2(first)
    again = lab(tmp_path, {})
    assert table2(again).rows == table.rows
    assert again.made == []
    assert fig5(again).panels[0]["lines"][0] == {"scaling": "bf16", "score": 80.0}
    other = lab(tmp_path, planted, limit=5)
    table2(other)
    assert len([label for label in other.made if label.startswith("ask")]) == 6
    assert not [label for label in other.made if label.startswith("train")]


@pytest.mark.parametrize(
    ("high", "beyond", "undecided"), [("1" * 4000 + "0" * 1000, "[-9, 4]", "none"), (HIGH, "none", "-9 to 4")]
)
def test_table6_bisects_from_what_saturates_nothing(tmp_path, monkeypatch, high, beyond, undecided):
    """Oracle: the planted range, -9 to 4, of which fewer than all are trained. Few items leave all of it undecided."""
    planted = {"bf16": high} | {
        f"cscale:{bias}": high if -9 <= bias <= 4 else "0" * len(high) for bias in range(-20, 21)
    }
    found = lab(tmp_path, planted, every_bias=False, train_bias="-20:20")
    monkeypatch.setattr("octoscale.paper.table6._unsaturated", lambda *_: 1)
    (row,) = table6(found).rows
    assert (row["by_estimate"], row["beyond_noise"], row["undecided"]) == ("[-9, 4]", beyond, undecided)
    assert len([label for label in found.made if label.startswith("train")]) < 20


def test_where_a_model_is_no_better_than_one_answer_it_is_said(tmp_path):
    chance = answers(HIGH) | {"most_frequent": 0.8}
    found = lab(tmp_path, {"bf16": HIGH, "amax": HIGH})
    asked = found.ask
    found.ask = lambda *words: from_cell(chance) if words[2] == "bf16" else asked(*words)
    notes = table2(found).notes
    assert notes[1].startswith("gpt-111m, sst2, seed 0: 80.00 % in high precision is no more than who always says")
    chance["most_frequent"] = 0.79
    assert len(table2(found).notes) == 1
