"""What a plan found, as a table and a few lines: bytes a rank, and what a step sends, in how many messages."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

#: The rows of bytes, and how they are called.
ROWS = {
    "parameters": "parameters",
    "casts": "casts of weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "saved activations",
    "gathered": "gathered layers",
    "logits": "logits",
    "cache": "keys and values",
    "peak": "peak",
}


def plan_table(plan: Mapping[str, Any]) -> Table:
    """A column for training and inference, each with FP8 and without; GB a rank."""
    table = Table(box=None, header_style="bold")
    table.add_column("GB a rank")
    columns = [(work, scaling, row) for work in ("training", "inference") for scaling, row in plan[work].items()]
    for work, scaling, _ in columns:
        table.add_column(f"{work}\n{scaling}", justify="right")
    rows = [row for _, _, row in columns]
    table.add_row("ranks", *(str(row["ranks"]) for row in rows))
    table.add_row("mesh", *(row["parallel"].replace(",", "\n") if row["ranks"] > 1 else "-" for row in rows))
    for name, called in ROWS.items():
        table.add_row(called, *(gigabytes(row["bytes"][name]) for row in rows))
    table.add_row(f"fits in {gigabytes(plan['memory'])}", *("yes" if row["fits"] else "no" for row in rows))
    table.add_row("sent in a step", *(gigabytes(row["communication"]) for row in rows))
    table.add_row("messages in a step", *(f"{sum(row['messages'].values()):,}" for row in rows))
    table.add_row(f"at {plan['bandwidth'] / 1e9:g} GB/s", *(f"{row['seconds']:.2f} s" for row in rows))
    return table


def plan_lines(plan: Mapping[str, Any]) -> str:
    """What stands below the table."""
    scaling, row = next(iter(plan["training"].items()))
    autocast = "" if plan["dtype"] == "fp32" else f"under {plan['dtype']} autocast, "
    step = (
        f"{plan['model']}, {plan['parameters'] / 1e9:.2f} B parameters; a step of training: {plan['accumulate']} x "
        f"{plan['batch']} windows of {plan['seq']} tokens, float32 parameters, {autocast}AdamW"
    )
    lines = [step]
    if plan["chosen"]:
        copies = plan["gpus"] // row["ranks"]
        more = f"; on all {plan['gpus']}: --parallel {row['parallel']},replicate={copies}" if copies > 1 else ""
        lines.append(f"the smallest mesh for {scaling}: {ranks_of(row)}, --parallel {row['parallel']}{more}")
    return "\n".join(lines)


def ranks_of(row: Mapping[str, Any]) -> str:
    """How many ranks a mesh has."""
    return "1 rank" if row["ranks"] == 1 else f"{row['ranks']} ranks"


def gigabytes(number: int) -> str:
    """Three digits."""
    return f"{number / 1e9:,.1f}" if number >= 99.95e9 else f"{number / 1e9:.3g}"
