"""Markdown, CSV and JSON of a table say the same. Oracles: csv and json themselves."""

import csv
import json

from octoscale.paper.write import Column, Numbers, Table, markdown, table_to_json, write

TABLE = Table(
    name="table4",
    title="Table 4. Made up",
    columns=(
        Column(key="model", title="model"),
        Column(key="items", title="items"),
        Column(key="amax", title="AMAX | FP8", digits=2),
    ),
    rows=[{"model": "a,b", "items": 3, "amax": 66.66666666666667}, {"model": "c", "items": None, "left": 1}],
    notes=("Of nothing.",),
)


def test_the_three_files_agree(tmp_path):
    write(TABLE, tmp_path)
    content = json.loads((tmp_path / "table4.json").read_text())
    with (tmp_path / "table4.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert content["rows"] == [
        {"model": "a,b", "items": 3, "amax": 66.66666666666667},
        {"model": "c", "items": None, "amax": None},
    ]
    assert rows == [
        {"model": "a,b", "items": "3", "amax": "66.66666666666667"},
        {"model": "c", "items": "", "amax": ""},
    ]
    lines = (tmp_path / "table4.md").read_text().splitlines()
    assert lines == [
        "### Table 4. Made up",
        "",
        "| model | items | AMAX \\| FP8 |",
        "| --- | --: | --: |",
        "| a,b | 3 | 66.67 |",
        "| c | - | - |",
        "",
        "Of nothing.",
    ]
    assert (tmp_path / "table4.md").read_text() == markdown(table_to_json(TABLE))


def test_numbers_of_a_figure_are_json_with_a_line_a_series(tmp_path):
    panels = [{"model": "x", "seed": None, "series": [{"step": [1, 2], "loss": [0.5, None]}, {"step": []}], "none": []}]
    write(Numbers(name="fig10", title="Figure 10", panels=panels, notes=("So.",)), tmp_path)
    text = (tmp_path / "fig10.json").read_text()
    assert json.loads(text) == {"name": "fig10", "title": "Figure 10", "panels": panels, "notes": ["So."]}
    assert '\n    {"step": [1, 2], "loss": [0.5, null]},\n' in text
