"""Table 6: fine-tuning of GPT. The constant biases with which training keeps 99.5 % of the accuracy."""

from octoscale.paper.lab import Lab
from octoscale.paper.numbers import TABLE_6
from octoscale.paper.rows import ITEMS, RANGE, SEED, WHO, paper_range, range_row
from octoscale.paper.settings import TITLES
from octoscale.paper.table3 import NOTE
from octoscale.paper.tasks import tasks_of
from octoscale.paper.write import Column, Table
from octoscale.validation.settings import parse_biases


def table6(lab: Lab) -> Table:
    """The table, measured where it is not yet."""
    columns = (*WHO, SEED, ITEMS, Column(key="high", title=lab.high, digits=2), *RANGE)
    rows = []
    for model in lab.settings.models_of("table6"):
        for task in tasks_of("table6", lab.settings):
            for seed in lab.settings.seed_list:
                high = lab.ask_trained(model, task, lab.high, seed)
                constants = {
                    bias: lab.ask_trained(model, task, f"cscale:{bias}", seed)
                    for bias in parse_biases(lab.settings.train_bias)
                }
                who = {"model": model, "task": task.name, "seed": seed}
                rows.append({**who, **range_row(high, constants), **paper_range(TABLE_6, model, task.name)})
    return Table(name="table6", title=f"Table 6. {TITLES['table6']}", columns=columns, rows=rows, notes=(NOTE,))
