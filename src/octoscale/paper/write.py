"""A table as Markdown, CSV and JSON, and the numbers of a figure as JSON: the same rows, and no times among them.

    write(table, folder)          folder/table2.md, table2.csv, table2.json
    write(numbers, folder)        folder/fig5.json

JSON and CSV hold the values as they are, Markdown as many digits as a column shows. An empty place has no value: a
dash in Markdown, null in JSON.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octoscale.system.whole_file import replacing

Value = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: the key of its values, its title, and after the point so many digits; None for texts and counts."""

    key: str
    title: str
    digits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper as it was measured here. notes: what a reader must know of it."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a figure of the paper shows, as it was measured here: the series of each panel, a dict of plain values."""

    name: str
    title: str
    panels: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()


def write(found: Table | Numbers, folder: Path) -> None:
    """Write it to the folder; each file is whole, or the one that was there before."""
    if isinstance(found, Table):
        _write(folder / f"{found.name}.md", markdown(table_to_json(found)))
        _write(folder / f"{found.name}.csv", csv_text(found))
        _write(folder / f"{found.name}.json", json.dumps(table_to_json(found), indent=2, allow_nan=False) + "\n")
    else:
        _write(folder / f"{found.name}.json", _numbers_text(found))


def table_to_json(table: Table) -> dict[str, Any]:
    """The table as its file holds it."""
    rows = [{column.key: row.get(column.key) for column in table.columns} for row in table.rows]
    return {
        "name": table.name,
        "title": table.title,
        "columns": [asdict(column) for column in table.columns],
        "rows": rows,
        "notes": list(table.notes),
    }


def csv_text(table: Table) -> str:
    """The rows under their keys, values in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([[row.get(column.key) for column in table.columns] for row in table.rows])
    return text.getvalue()


def markdown(content: Mapping[str, Any]) -> str:
    """A table's file as Markdown: its title, its rows, its notes."""
    columns, lines = content["columns"], shown_rows(content)
    marks = ["---" if is_text else "--:" for is_text in text_columns(content)]
    head = [[column["title"] for column in columns], marks]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [*head, *lines]]
    return "\n".join([f"### {content['title']}", "", *rows, "", "\n\n".join(content["notes"])]).rstrip("\n") + "\n"


def shown_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """The places of a table's file as a reader sees them."""
    return [[shown(row[column["key"]], column["digits"]) for column in content["columns"]] for row in content["rows"]]


def text_columns(content: Mapping[str, Any]) -> list[bool]:
    """Of each column, whether a value in it is a text."""
    return [any(isinstance(row[column["key"]], str) for row in content["rows"]) for column in content["columns"]]


def shown(value: Value, digits: int | None) -> str:
    """A value as a reader sees it."""
    if value is None:
        return "-"
    return str(value) if digits is None or isinstance(value, str) else f"{value:.{digits}f}"


def _numbers_text(numbers: Numbers) -> str:
    """JSON with a line a series: long lists do not make long files."""
    content = asdict(numbers)
    panels = [_panel_text(panel) for panel in content.pop("panels")]
    head = json.dumps(content, indent=1, allow_nan=False).removesuffix("\n}")
    return f'{head},\n "panels": [\n' + ",\n".join(panels) + "\n ]\n}\n"


def _panel_text(panel: Mapping[str, Any]) -> str:
    return "  {\n" + ",\n".join(_entries(panel)) + "\n  }"


def _entries(panel: Mapping[str, Any]) -> Iterator[str]:
    for key, value in panel.items():
        if isinstance(value, list) and value:
            items = ",\n".join(f"    {json.dumps(item, allow_nan=False)}" for item in value)
            yield f"   {json.dumps(key)}: [\n{items}\n   ]"
        else:
            yield f"   {json.dumps(key)}: {json.dumps(value, allow_nan=False)}"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
