"""What a model answered to a task under one scaling, item by item; and how two scalings compare.

judge(high, amax).verdict        passes, fails, undecided
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octoscale.runs.folder import RunFolder
from octoscale.system.errors import UserError
from octoscale.validation.criterion import Criterion, Judged, accuracy_criterion
from octoscale.validation.scores import flatten


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Scores are shares, in 0..1.

    most_frequent: the share that whoever always says the same gets right; None where that is not known. values: the
    metric of each item, in the task's order; none where the score is no mean over items. failure: why there is no
    score, which then is None.
    """

    scaling: str
    metric: str = ""
    score: float | None = None
    standard_error: float | None = None
    items: int = 0
    most_frequent: float | None = None
    values: tuple[float, ...] = ()
    failure: str | None = None


def answers_of(run: RunFolder, task: str, scaling: str) -> dict[str, Any]:
    """What a run says of the one task and the one scaling that it asked, as a cell keeps it."""
    summary = run.read_json(run.summary)
    failure = summary.get("failures", {}).get(scaling)
    if failure is not None:
        return {"scaling": scaling, "failure": failure}
    found = summary["tasks"][task]
    scores = flatten(found["scores"])[scaling]
    (path,) = run.items.glob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        "scaling": scaling,
        "metric": found["metric"],
        "score": scores[found["metric"]],
        "standard_error": scores["standard_error"],
        "items": found["items"],
        "most_frequent": _most_frequent(rows),
        "values": _packed(_values(rows, found["metric"]) if scores["standard_error"] is not None else []),
    }


def from_cell(value: Mapping[str, Any]) -> Answers:
    """What `answers_of` made."""
    fields = {name: value[name] for name in Answers.__dataclass_fields__ if name in value}
    return Answers(**{**fields, "values": tuple(map(float, value.get("values", ())))})


def judge(high: Answers, other: Answers) -> Judged:
    """Whether a scaling keeps 99.5 % of the score in high precision: by the estimate, and beyond noise.

    Without a score of its own it fails. UserError where the two did not answer the same number of items, or where a
    task has no items to compare.
    """
    if other.failure is not None:
        return Judged(verdict="fails", by_estimate=False)
    return criterion_of(high).judge(other.values)


def criterion_of(high: Answers) -> Criterion:
    """What a scaling must reach: 99.5 % of the score in high precision. UserError for a task without items."""
    if high.score is None or not high.values:
        raise UserError(f"a score of {high.metric} is no mean over items: no interval says how sure it is")
    return accuracy_criterion(high.scaling, high.score, high.values)


def _values(rows: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """The metric of each item; none if an item lacks it."""
    return [float(row[metric]) for row in rows] if all(metric in row for row in rows) else []


def _most_frequent(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The share that whoever always says the same can get right."""
    counts = Counter(row.get("gold") for row in rows)
    return None if None in counts else max(counts.values()) / len(rows)


def _packed(values: Sequence[float]) -> str | list[float]:
    """A text of 0 and 1 where nothing else occurs: short, and a digit an item."""
    return "".join(str(int(value)) for value in values) if set(values) <= {0.0, 1.0} else list(values)
