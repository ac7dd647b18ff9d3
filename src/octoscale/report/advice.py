"""An advice as tables for the terminal, and as a page of Markdown: both from what advice.json holds.

The tables are lists of rows of texts first, which rich and Markdown then draw each in their way.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from octoscale.system.printable import printable
from octoscale.system.whole_file import replacing

#: How many layers the table shows.
NUM_SHOWN = 12


#: What each part needs of advice.json.
_OF_COSTS, _OF_LAYERS, _OF_SCALINGS = (
    {"cost", "cost_left", "keep", "rankings"},
    {"layers"},
    {"recipe", "cost", "scalings"},
)
_OF_NOTE = {"text", "verify_text", "tokens", "window", "dtype", "num_passes", "backend", "reason"}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table before it is drawn: the first column is text, the others numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def advice_tables(advice: Mapping[str, Any]) -> list[Rows]:
    """What lists of layers leave, the costliest layers, and other scalings; only those that there is something for.

    A table whose fields the advice lacks, because they are damaged, is left out.
    """
    needs = {_costs: _OF_COSTS, _layers: _OF_LAYERS, _scalings: _OF_SCALINGS}
    tables = [make(advice) for make, fields in needs.items() if advice.keys() >= fields]
    return [table for table in tables if table.rows]


def terminal_table(table: Rows) -> Table:
    """The same for the terminal."""
    drawn = Table(title=table.title)
    for index, column in enumerate(table.columns):
        drawn.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def advice_lines(advice: Mapping[str, Any]) -> list[str]:
    """What stands below the tables: the answer, and what was read."""
    return [*advice.get("answer", ()), note(advice)]


def write_markdown(advice: Mapping[str, Any], path: Path) -> None:
    """Replace a file by the advice as a page."""
    with replacing(path) as temporary:
        temporary.write_text(markdown(advice), encoding="utf-8")


def markdown(advice: Mapping[str, Any]) -> str:
    """The page: the answer, the tables, what was read."""
    parts = [f"# FP8 for {_plain(advice['model'])}: advice", *map(_plain, advice["answer"])]
    parts += ["![What FP8 costs each layer, by depth](figures/advice.png)"]
    for table in advice_tables(advice):
        parts += [f"## {table.title[0].upper()}{table.title[1:]}", _pipes(table)]
    return "\n\n".join([*parts, note(advice)]) + "\n"


def note(advice: Mapping[str, Any]) -> str:
    """What was read, and how; empty where the advice does not say it, because it is damaged."""
    if not advice.keys() >= _OF_NOTE:
        return ""
    other = advice["verify_text"] or f"the next part of {advice['text']}"
    return printable(
        f"Searched on {advice['text']}, verified on {other}: up to {advice['tokens']:,} tokens each, in windows of "
        f"{advice['window']}; the model in {advice['dtype']}; {advice['num_passes']} forward passes of a text. "
        f"Backend: {advice['backend']} ({advice['reason']})."
    )


def _costs(advice: Mapping[str, Any]) -> Rows:
    """What is left of the cost with each list."""
    rows = [("nothing", "0", *_both(advice["cost"]["search"]), *_both(advice["cost"]["verify"]))]
    left = advice["cost_left"]
    if left is not None and advice["keep"]:
        size = str(len(advice["keep"]))
        rows.append(("this list", size, *_both(left["search"]), *_both(left["verify"])))
    rows += [(name, str(len(cost["keep"])), "-", "-", *_both(cost)) for name, cost in advice["rankings"].items()]
    columns = ("kept by", "layers", "expected", "measured", "verified: expected", "measured")
    return Rows(title="how much FP8 raises the perplexity, in %, with its 95 % interval", columns=columns, rows=rows)


def _layers(advice: Mapping[str, Any]) -> Rows:
    """The costliest layers, by the estimate."""
    ordered = sorted(advice["layers"], key=lambda layer: -layer["estimate"]["both"])[:NUM_SHOWN]
    rows = []
    for layer in ordered:
        alone = layer.get("alone")
        cells = [layer["module"], f"{100 * layer['estimate']['both']:.3g}"]
        cells += ["-", "-", "-"] if alone is None else [*_both(alone), _percent(layer["bought"])]
        for role in ("weight", "input"):
            of = layer[role]
            cells.append("-" if of["sqnr_db"] is None else f"{of['sqnr_db']:.1f}")
            cells += [f"{100 * of['saturated']:.2g}", f"{100 * of['flushed']:.2g}", _span(of["scale_bias"])]
        rows.append(cells)
    roles = [
        f"{role[0]} {what}" for role in ("weight", "input") for what in ("SQNR", "sat. %", "flushed %", "scale_bias")
    ]
    title = (
        "the costliest layers: alone in FP8, and what keeping one buys, in %; ? not told from zero; w: weight, i: input"
    )
    return Rows(title=title, columns=("layer", "estimate", "expected", "measured", "buys", *roles), rows=rows)


def _scalings(advice: Mapping[str, Any]) -> Rows:
    rows = [(advice["recipe"], *_both(advice["cost"]["verify"]))]
    rows += [(name, *_both(cost)) for name, cost in advice["scalings"].items()]
    return Rows(title="other scalings, nothing kept", columns=("scaling", "expected, %", "measured, %"), rows=rows)


def _both(cost: Mapping[str, Any]) -> list[str]:
    return [_percent(cost["expected"]), _percent(cost["measured"])]


def _percent(cost: Mapping[str, Any]) -> str:
    """Half an interval is as wide below as above, to three digits."""
    if cost["loss"] is None:
        return "not finite"
    margin = cost["high"] - cost["loss"]
    if cost["perplexity_excess"] is None or cost["loss"] > 1:
        return f"x {math.exp(min(cost['loss'], 700.0)):.3g}"
    unclear = "" if cost["is_clear"] else "?"
    return f"{100 * cost['perplexity_excess']:+.3f}±{100 * margin:.3f}{unclear}"


def _span(span: Sequence[int] | None) -> str:
    if span is None:
        return "-"
    low, high = span
    return str(low) if low == high else f"{low}..{high}"


def _pipes(table: Rows) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" + "|--:" * (len(table.columns) - 1) + "|"]
    lines += ["| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return printable(" ".join(text.split()))
