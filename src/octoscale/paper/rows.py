"""What the rows of several tables have in common: two scalings side by side, the paper's own row, a range of biases."""

from collections.abc import Mapping
from typing import Any

from octoscale.models.sizes import paper_size
from octoscale.paper.answers import Answers, criterion_of, judge
from octoscale.paper.numbers import Accuracies, Biases
from octoscale.paper.write import Column
from octoscale.validation.bias_range import BiasRange, bias_range, in_runs
from octoscale.validation.criterion import ACCURACY_SHARE, Judged

_BOUND = f"{ACCURACY_SHARE:.1%}".replace("%", " %")

#: Who was asked what.
WHO = (Column(key="model", title="model"), Column(key="task", title="task"))
SEED = Column(key="seed", title="seed")
ITEMS = Column(key="items", title="items")

#: FP8-AMAX against high precision, in % and points.
AGAINST = (
    Column(key="ratio", title="AMAX / high, %", digits=2),
    Column(key="standard_error", title="standard error", digits=2),
    Column(key="difference", title="AMAX - high", digits=2),
    Column(key="low", title="95 %: from", digits=2),
    Column(key="high_end", title="to", digits=2),
    Column(key="verdict", title=f"{_BOUND} of high"),
)
PAPER = (
    Column(key="paper_high", title="paper: high", digits=2),
    Column(key="paper_amax", title="paper: AMAX", digits=2),
)
PAPER_RATIO = Column(key="paper_ratio", title="paper: ratio, %", digits=2)

#: The biases of a range, from .. to as texts.
RANGE = (
    Column(key="by_estimate", title="pass by the estimate"),
    Column(key="beyond_noise", title="pass beyond noise"),
    Column(key="undecided", title="undecided"),
    Column(key="measured", title="measured"),
    Column(key="paper", title="paper"),
)


def percent(share: float | None) -> float | None:
    """In % what is a share."""
    return None if share is None else 100 * share


def against(high: Answers, amax: Answers) -> dict[str, Any]:
    """Two scalings of the same items: the columns `AGAINST`, and the scores."""
    row: dict[str, Any] = {"items": high.items, "high": percent(high.score), "amax": percent(amax.score)}
    row["standard_error"] = percent(high.standard_error)
    if high.score and amax.score is not None:
        row["ratio"] = 100 * amax.score / high.score
    if amax.failure is not None:
        return row | {"verdict": f"fails: {amax.failure}"}
    if not high.values:
        return row | {"verdict": "cannot be told: the score is no mean over items"}
    found = judge(high, amax)
    ends = {"low": percent(found.low), "high_end": percent(found.high)}
    return row | {"difference": percent(found.estimate), **ends, "verdict": in_words(found, high.items)}


def in_words(found: Judged, items: int) -> str:
    """A verdict as a reader sees it."""
    if found.verdict != "undecided":
        return "above" if found.verdict == "passes" else "below"
    needed = f"; about {found.needed:,} would do" if found.needed else ""
    return f"cannot be told with {items:,} items{needed}"


def chance_notes(who: Mapping[str, Any], high: Answers) -> list[str]:
    """A note where a model is no better than always saying the most frequent class: FP8 has nothing to spoil there."""
    if high.score is None or high.most_frequent is None or high.score > high.most_frequent:
        return []
    of = ", ".join(str(value) if key != "seed" else f"seed {value}" for key, value in who.items() if value is not None)
    found, always = (f"{100 * share:.2f} %" for share in (high.score, high.most_frequent))
    note = f"{of}: {found} in high precision is no more than who always says the same gets, {always}"
    return [f"{note}: of what FP8 costs, nothing can be seen there."]


def beside(table: Mapping[str, Mapping[str, Accuracies]], model: str, task: str) -> dict[str, Any]:
    """The paper's own row, for a model of a size that it has and a task that it asked; else nothing."""
    found = table.get(paper_size(model) or "", {}).get(task)
    if found is None:
        return {}
    row = {"paper_high": found.high, "paper_amax": found.amax, "paper_ratio": 100 * found.amax / found.high}
    return row | ({} if found.cscale is None else {"paper_cscale": found.cscale})


def range_row(high: Answers, constants: Mapping[int, Answers]) -> dict[str, Any]:
    """The biases that pass, of those that were measured: the columns `RANGE` but for the paper's."""
    found = range_of(high, constants)
    beyond = None if found.low is None or found.high is None else (found.low, found.high)
    return {
        "items": high.items,
        "high": percent(high.score),
        "by_estimate": interval(found.by_estimate),
        "beyond_noise": interval(beyond),
        "undecided": in_runs(found.undecided) or "none",
        "measured": in_runs(sorted(constants)),
    }


def range_of(high: Answers, constants: Mapping[int, Answers]) -> BiasRange:
    """The range of constant biases that keep 99.5 % of the score in high precision."""
    return bias_range({bias: judge(high, constants[bias]) for bias in sorted(constants)}, criterion_of(high))


def paper_range(table: Mapping[str, Mapping[str, Biases]], model: str, task: str) -> dict[str, Any]:
    """The paper's own range, if it has one."""
    found = table.get(paper_size(model) or "", {}).get(task)
    return {} if found is None else {"paper": interval(found)}


def interval(run: Biases | None) -> str:
    """`[-3, 2]` as the paper writes it."""
    return "none" if run is None else f"[{run[0]}, {run[1]}]"
