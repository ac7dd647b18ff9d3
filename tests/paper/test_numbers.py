"""The paper's own numbers. Oracle: a second transcription of whole rows, as the paper prints them."""

import pytest

from octoscale.models.sizes import HUB_IDS, PAPER_SIZES
from octoscale.paper import numbers
from octoscale.paper.numbers import Accuracies
from octoscale.training.settings import PAPER_ROWS


def printed(text, sizes, tasks):
    """Rows `1.3B | 82.82 / 82.68 / 82.72 | ...` by size and task."""
    found = {}
    for line in text.strip().splitlines():
        size, *cells = (part.strip() for part in line.split("|"))
        (name,) = (name for name in sizes if name.endswith(f"-{size.lower()}"))
        rows = [
            Accuracies(**dict(zip(("high", "amax", "cscale"), map(float, c.split("/")), strict=False))) for c in cells
        ]
        found[name] = dict(zip(tasks, rows, strict=True))
    return found


ROWS = [
    ("TABLE_2", "gpt-111m", "111M | 72.61 / 72.39 / 72.49 | 85.76 / 85.78 / 85.73 | 84.26 / 84.38 / 84.59"),
    ("TABLE_2", "gpt-13b", "13B | 88.26 / 88.27 / 88.26 | 91.22 / 91.21 / 91.20 | 94.61 / 94.61 / 94.50"),
    ("TABLE_4", "llama2-7b", "7B | 46.6/46.3 | 76.0/75.8 | 74.6/74.5 | 46.3/45.7 | 79.1/78.7 | 69.1/69.1"),
    ("TABLE_4", "llama2-70b", "70B | 69.6/69.3 | 83.8/83.8 | 81.1/80.9 | 57.3/57.7 | 82.8/82.6 | 78.0/78.5"),
    ("TABLE_5", "gpt-1.3b", "1.3B | 82.82 / 82.58 | 89.32 / 89.32 | 91.36 / 91.28"),
    ("TABLE_5", "gpt-6.7b", "6.7B | 87.17 / 87.26 | 91.19 / 91.06 | 94.53 / 94.84"),
]


@pytest.mark.parametrize(("table", "size", "row"), ROWS)
def test_rows_are_those_that_the_paper_prints(table, size, row):
    llama = table == "TABLE_4"
    tasks = (
        ["mmlu", "hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande"] if llama else ["mnli", "qqp", "sst2"]
    )
    assert printed(row, [size], tasks)[size] == getattr(numbers, table)[size]


def test_ranges_are_those_that_the_paper_prints():
    assert numbers.TABLE_3["gpt-590m"] == {"mnli": (-3, 2), "qqp": (-4, 2), "sst2": (-1, 2)}
    assert [row["mnli"] for row in numbers.TABLE_6.values()] == [(-3, 2), (-2, 2), (-2, 1), (-1, 1), (-1, 0)]


def test_every_size_has_its_rows_and_its_checkpoint():
    assert [*numbers.GPT_SIZES, *numbers.LLAMA_SIZES] == [*PAPER_SIZES] == [*HUB_IDS]
    assert [row.size for row in PAPER_ROWS] == [*numbers.GPT_SIZES]
    for table in (numbers.TABLE_2, numbers.TABLE_3, numbers.TABLE_5, numbers.TABLE_6):
        assert [*table] == [*numbers.GPT_SIZES]


def test_what_amax_costs_in_the_paper_is_no_more_than_three_points():
    """Oracle: its claim, that FP8-AMAX keeps the accuracy of FP16; a digit that was mistyped would break it."""
    for table in (numbers.TABLE_2, numbers.TABLE_4, numbers.TABLE_5):
        for row in table.values():
            assert all(abs(cell.high - cell.amax) < 0.65 for cell in row.values())
