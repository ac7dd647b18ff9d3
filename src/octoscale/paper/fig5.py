"""Figure 5: accuracy against the constant bias, a panel a model, task and seed: a plateau between two cliffs."""

from typing import Any

from octoscale.paper.answers import Answers, judge
from octoscale.paper.lab import Lab
from octoscale.paper.rows import percent
from octoscale.paper.settings import TITLES
from octoscale.paper.swept import Swept, swept
from octoscale.paper.write import Numbers


def fig5(lab: Lab) -> Numbers:
    """The numbers, measured where they are not yet."""
    panels = [_panel(found) for found in swept(lab, "fig5")]
    return Numbers(name="fig5", title=f"Figure 5. {TITLES['fig5']}", panels=panels, notes=(_NOTE,))


def _panel(found: Swept) -> dict[str, Any]:
    lines = [_point(found.high, found.high) | {"scaling": found.high.scaling}]
    lines += [_point(found.high, found.amax) | {"scaling": "amax"}]
    points = [{"bias": bias} | _point(found.high, answers) for bias, answers in found.constants.items()]
    return {**found.who, "items": found.high.items, "lines": lines, "points": points}


def _point(high: Answers, answers: Answers) -> dict[str, Any]:
    """A score in %, and how far its difference to high precision reaches to either side, 95 %."""
    point: dict[str, Any] = {"score": percent(answers.score)}
    if answers is high or answers.failure is not None or high.score is None:
        return point
    found = judge(high, answers)
    if found.low is None or found.high is None:
        return point
    return point | {"low": 100 * (high.score + found.low), "high": 100 * (high.score + found.high)}


_NOTE = (
    "Bars: the 95 % interval of the difference to high precision, item by item. A bias without a score gave infinity, "
    "or NaN."
)
