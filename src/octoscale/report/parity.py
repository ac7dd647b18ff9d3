"""A parity as tables for the terminal and for documents, from what parity.json holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from octoscale.numerics.formats import RESULTS
from octoscale.report.advice import Rows
from octoscale.report.parity_contents import FLOAT32
from octoscale.system.printable import printable

#: What each part needs of parity.json.
_OF_KINDS, _OF_LENGTHS = {"kinds", "exponents", "dtype"}, {"lengths"}
_OF_NOTE = {"model", "text", "tokens", "window", "dtype", "rows", "scaling", "backend", "reason"}


#: Distances from exact outputs that have a column, as exponents of two; the last columns.
_SHOWN, _OF_CASTS = (-1, 0, 4), ("of the casts' error, %", "worst")


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
    """A row for each product of a kind of layers, and each way of summing it but float32's: that is next to exact."""
    exponents = [exponent for exponent in _SHOWN if exponent in parity["exponents"]]
    away = (f"over {2.0**exponent:g} ulp, %" for exponent in exponents)
    rows = []
    for row in parity["kinds"]:
        if row["sums"] != FLOAT32:
            name = row["kind"] if row["result"] == RESULTS[0] else f"{row['kind']}, {row['result']}"
            above = dict(zip(parity["exponents"], row["above"], strict=True))
            counts = (row["changed"], *(above[exponent] for exponent in exponents))
            shares = [_percent(count / max(1, row["outputs"])) for count in counts]
            rows.append([name, row["sums"], *shares, *(_percent(row["of_casts"][x]) for x in ("median", "worst"))])
    title = f"outputs that become another {parity['dtype']} number than with float32's sums, and that lie farther from "
    title += "exact ones; the error of the sums beside that of the casts, in the median layer and the worst"
    return Rows(title=title, columns=("layers", "sums", "changed, %", *away, *_OF_CASTS), rows=rows)


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
