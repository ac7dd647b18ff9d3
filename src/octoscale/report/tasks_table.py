"""What scalings reached on tasks, as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from octoscale.validation.scores import flatten


def tasks_table(summary: Mapping[str, Any]) -> Table:
    """What each scaling reached on each task, with the standard error over its items, and the paired difference."""
    tasks = {name: flatten(task["scores"]) for name, task in summary["tasks"].items()}
    scalings = dict.fromkeys(scaling for scores in tasks.values() for scaling in scores)
    what = f"{summary['model']}: " if "model" in summary else ""
    table = Table(title=f"{what}tasks, in %; differences are paired, with 95 % intervals")
    for column, justify in (("task", "left"), ("items", "right"), ("scaling", "left"), ("score", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("difference", justify="right")
    table.add_column("gained, lost", justify="right")
    for name, scores in tasks.items():
        task = summary["tasks"][name]
        heads = [f"{name} ({task['metric']})", f"{task['items']:,}"]
        for scaling in scalings:
            if scaling in scores:
                table.add_row(*heads, scaling, *_score_cells(scores[scaling], task["metric"]))
                heads = ["", ""]
    return table


def _score_cells(score: Mapping[str, Any], metric: str) -> list[str]:
    """The score, and the difference with what became right and wrong."""
    error, found = score.get("standard_error"), score.get("difference")
    text = f"{100 * score[metric]:.2f}" + (f" ± {100 * error:.2f}" if error is not None else "")
    if not isinstance(found, dict) or not {"estimate", "low", "high"} <= found.keys():
        return [text, "", ""]
    low, high = (f"{100 * found[end]:+.2f}" for end in ("low", "high"))
    moved = f"{found['gained']}, {found['lost']}" if {"gained", "lost"} <= found.keys() else ""
    return [text, f"{100 * found['estimate']:+.2f} ({low} to {high})", moved]
