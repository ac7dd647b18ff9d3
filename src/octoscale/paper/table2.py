"""Table 2: inference of GPT. What FP8-AMAX costs, and FP8-CSCALE on average over the constant biases that pass."""

from statistics import fmean
from typing import Any

from octoscale.paper.answers import judge
from octoscale.paper.lab import Lab
from octoscale.paper.numbers import TABLE_2
from octoscale.paper.rows import AGAINST, ITEMS, PAPER, PAPER_RATIO, SEED, WHO, against, beside, chance_notes
from octoscale.paper.settings import TITLES
from octoscale.paper.swept import Swept, swept
from octoscale.paper.write import Column, Table
from octoscale.validation.bias_range import in_runs


def table2(lab: Lab) -> Table:
    """The table, measured where it is not yet."""
    columns = (
        *(*WHO, SEED, ITEMS),
        Column(key="high", title=lab.high, digits=2),
        Column(key="amax", title="AMAX", digits=2),
        Column(key="cscale", title="CSCALE", digits=2),
        Column(key="cscale_biases", title="mean over"),
        *AGAINST,
        *PAPER,
        Column(key="paper_cscale", title="paper: CSCALE", digits=2),
        PAPER_RATIO,
    )
    every = list(swept(lab, "table2"))
    notes = [_NOTE, *(note for found in every for note in chance_notes(found.who, found.high))]
    rows = [_row(found) for found in every]
    return Table(name="table2", title=f"Table 2. {TITLES['table2']}", columns=columns, rows=rows, notes=notes)


def _row(found: Swept) -> dict[str, Any]:
    row = {**found.who, **against(found.high, found.amax)}
    passing = {
        bias: answers.score
        for bias, answers in found.constants.items()
        if answers.score is not None and judge(found.high, answers).by_estimate
    }
    mean = 100 * fmean(passing.values()) if passing else None
    biases = in_runs(sorted(passing)) or "no bias passes"
    return row | {"cscale": mean, "cscale_biases": biases} | beside(TABLE_2, found.model, found.task.name)


_NOTE = (
    "Accuracies in %. CSCALE is the mean over the constant biases whose accuracy is at least 99.5 % of high "
    "precision's, as in the paper. The interval is that of the difference item by item."
)
