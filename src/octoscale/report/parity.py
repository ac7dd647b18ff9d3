"""A parity as tables for the terminal and for documents, from what parity.json holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from octoscale.report.advice import Rows
from octoscale.report.parity_contents import FLOAT32
from octoscale.system.printable import printable

#: What each part needs of parity.json.
_OF_KINDS, _OF_LENGTHS = {"kinds", "dtype"}, {"lengths"}
_OF_NOTE = {"model", "text", "tokens", "window", "dtype", "rows", "scaling", "backend", "reason"}


def parity_tables(parity: Mapping[str, Any]) -> list[Rows]:
    """Outputs by kind of layer, and errors by the length of a sum; only those that there is something for."""
    needs = {_kinds: _OF_KINDS, _lengths: _OF_LENGTHS}
    tables = [make(parity) for make, fields in needs.items() if parity.keys() >= fields]
    return [table for table in tables if table.rows]


def parity_lines(parity: Mapping[str, Any]) -> list[str]:
    """What stands below the tables: the answer, and what was read."""
    return [*parity.get("answer", ()), note(parity)]


def note(parity: Mapping[str, Any]) -> str:
    """What was read, and how; empty where the parity does not say it, because it is damaged."""
    if not parity.keys() >= _OF_NOTE:
        return ""
    return printable(
        f"{parity['rows']:,} tokens of {parity['tokens']:,} of {parity['text']}, in windows of {parity['window']:,}, "
        f"under {parity['scaling']}; the model in {parity['dtype']}. Backend: {parity['backend']} ({parity['reason']})."
    )


def _kinds(parity: Mapping[str, Any]) -> Rows:
    """A row for each product of a kind of layers, and each way of summing it."""
    columns = (
        "layers",
        "sums",
        "changed, %",
        "from float32",
        "from exact",
        "largest",
        "of the casts' error, %",
        "worst",
    )
    rows = []
    for row in parity["kinds"]:
        if row["sums"] == FLOAT32:  # next to no error
            continue
        name = row["kind"] if row["result"] == "output" else f"{row['kind']}, {row['result']}"
        cells = [name, row["sums"], f"{100 * row['changed'] / max(1, row['outputs']):.3g}"]
        cells += [
            f"{value:.3g}" for value in (*(row["mean"][x] for x in ("float32", "exact")), row["largest"]["exact"])
        ]
        rows.append([*cells, *(_percent(row["of_casts"][name]) for name in ("median", "worst"))])
    title = (
        f"outputs that become another {parity['dtype']} number; mean and largest difference of the sums in its ulp; "
    )
    title += "their error beside that of the casts, in the median layer and the worst"
    return Rows(title=title, columns=columns, rows=rows)


def _lengths(parity: Mapping[str, Any]) -> Rows:
    """A row for each family of operands and each way; a column a length that any of them has."""
    lengths = sorted({length for family in parity["lengths"] for length in family["lengths"]})
    rows = []
    for family in parity["lengths"]:
        errors = {row["sums"]: row["error"] for row in family["series"]} | {"the casts to FP8": family["casts"]}
        for name, values in errors.items():
            there = dict(zip(family["lengths"], values, strict=True))
            cells = [_percent(there[length]) if length in there else "-" for length in lengths]
            rows.append([family["operands"], name, *cells])
    title = "the error of sums of so many products, in % of the sums (root of the mean square), on made operands"
    return Rows(title=title, columns=("operands", "sums", *(f"{length:,}" for length in lengths)), rows=rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g}"


def pipes(table: Rows, rows: Sequence[Sequence[str]] | None = None) -> str:
    """A table, or some of its rows, as Markdown; the first two columns are texts."""
    lines = [f"| {' | '.join(table.columns)} |", "|---|---|" + "--:|" * (len(table.columns) - 2)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in (table.rows if rows is None else rows))])
