"""What a run measured step by step: lines for the view "Run", from metrics.jsonl.

A training has one group of lines over its steps: loss, learning rate, norm of the gradient, loss scale, validation
loss. A validation has one group a scaling: the loss of each window. A line of more points than a screen has columns is
binned: the mean of each bin, and its lowest and highest value as a band.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from octoscale.report.contents import RunContents
from octoscale.report.fields import is_count, is_number
from octoscale.report.page.columns import pack

#: Points of a line.
MOST_POINTS = 2048

#: Names in metrics.jsonl -> what the page calls them.
_OF_TRAINING = {
    "loss": "loss",
    "eval_loss": "validation loss",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "loss_scale": "loss scale",
}


def series(contents: RunContents) -> list[dict[str, Any]]:
    """The lines, each with its name, the scaling that it is of, what its x counts, and its points."""
    rows = contents.training_rows
    scaling = str(rows[0].get("scaling", "")) if rows else ""
    lines = [
        _line(name, scaling, "step", [(row["step"], row[key]) for row in rows if key in row])
        for key, name in _OF_TRAINING.items()
    ]
    others = [row for row in contents.metrics if "window" in row and "loss" in row and row.get("phase") != "train"]
    for scaling in dict.fromkeys(str(row.get("scaling", "")) for row in others):
        points = [(row["window"], row["loss"]) for row in others if row.get("scaling", "") == scaling]
        lines.append(_line("loss of the window", scaling, "window", points))
    return [line for line in lines if line["points"]]


def _line(name: str, scaling: str, unit: str, points: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """A line, binned if it is long; null stands for a value that was not finite."""
    points = [(x, y if is_number(y) else np.nan) for x, y in points if is_count(x)]
    xs, ys = np.array(points, dtype=np.float64).reshape(-1, 2).T
    size = -(-len(points) // MOST_POINTS)
    line: dict[str, Any] = {"name": name, "scaling": scaling, "unit": unit, "points": len(points)}
    if size <= 1:
        return line | {"x": pack(xs, "f64"), "y": pack(ys, "f32")}
    starts = np.arange(0, len(points), size)
    widths = np.diff([*starts, len(points)])
    mean = np.add.reduceat(ys, starts) / widths
    low, high = np.minimum.reduceat(ys, starts), np.maximum.reduceat(ys, starts)
    packed = {key: pack(values, "f32") for key, values in (("y", mean), ("low", low), ("high", high))}
    return line | {"x": pack(xs[starts], "f64"), "binned": size} | packed
