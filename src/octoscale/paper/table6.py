"""Table 6: fine-tuning of GPT. The constant biases with which training keeps 99.5 % of the accuracy.

Each bias is a training of its own, so the two edges of the range are found by bisection, as octoscale sweep finds them
(validation/edges.py): from the largest constant that saturates nothing of what FP8-AMAX met in its training.
"""

import polars as pl

from octoscale.paper.answers import Answers, judge
from octoscale.paper.lab import Lab
from octoscale.paper.numbers import TABLE_6
from octoscale.paper.rows import ITEMS, RANGE, SEED, WHO, chance_notes, paper_range, range_row
from octoscale.paper.settings import TITLES
from octoscale.paper.table3 import NOTE
from octoscale.paper.tasks import Task, tasks_of
from octoscale.paper.write import Column, Table
from octoscale.runs.scales import read_scales
from octoscale.validation.edges import look_around
from octoscale.validation.settings import parse_biases

#: How well a bias does: 0 if it fails, this if it passes beyond noise; between them what is undecided, by the estimate.
_BEST = 3


def table6(lab: Lab) -> Table:
    """The table, measured where it is not yet."""
    columns = (*WHO, SEED, ITEMS, Column(key="high", title=lab.high, digits=2), *RANGE)
    rows, notes = [], [NOTE]
    for model in lab.settings.models_of("table6"):
        for task in tasks_of("table6", lab.settings):
            for seed in lab.settings.seed_list:
                high = lab.ask_trained(model, task, lab.high, seed)
                constants = _look(lab, model, task, seed, high)
                who = {"model": model, "task": task.name, "seed": seed}
                rows.append({**who, **range_row(high, constants), **paper_range(TABLE_6, model, task.name)})
                notes += chance_notes(who, high)
    return Table(name="table6", title=f"Table 6. {TITLES['table6']}", columns=columns, rows=rows, notes=notes)


def _look(lab: Lab, model: str, task: Task, seed: int, high: Answers) -> dict[int, Answers]:
    """The answers after training with each bias, or with those that bisection asks for."""
    biases, found = parse_biases(lab.settings.train_bias), dict[int, Answers]()

    def rank(bias: int) -> int:
        found[bias] = lab.ask_trained(model, task, f"cscale:{bias}", seed)
        judged = judge(high, found[bias])
        return {"fails": 0, "undecided": 1 + judged.by_estimate, "passes": _BEST}[judged.verdict]

    if lab.settings.every_bias:
        for bias in biases:
            rank(bias)
    else:
        start = _unsaturated(lab, model, task, seed)
        near = min(biases, key=lambda bias: abs(bias - start))
        look_around(biases, near, rank, lambda bias: lab.loss(model, task, f"cscale:{bias}", seed), _BEST)
    return dict(sorted(found.items()))


def _unsaturated(lab: Lab, model: str, task: Task, seed: int) -> int:
    """The largest constant that saturates no tensor that the training under FP8-AMAX met; 0 if it met none."""
    rows = read_scales(lab.trained(model, task, "amax", seed).path)
    rows = rows.filter(pl.col("amax").is_finite() & (pl.col("amax") > 0))
    return min(rows["scale_bias"].to_list(), default=0)
