"""Table 4: inference of Llama through lm-eval. What FP8-AMAX costs a model as it is, task by task."""

from octoscale.paper.lab import Lab
from octoscale.paper.numbers import TABLE_4
from octoscale.paper.rows import AGAINST, ITEMS, PAPER, PAPER_RATIO, WHO, against, beside
from octoscale.paper.settings import TITLES
from octoscale.paper.tasks import tasks_of
from octoscale.paper.write import Column, Table


def table4(lab: Lab) -> Table:
    """The table, measured where it is not yet."""
    columns = (
        *(*WHO, Column(key="metric", title="metric"), ITEMS),
        Column(key="high", title=lab.high, digits=2),
        Column(key="amax", title="AMAX", digits=2),
        *(*AGAINST, *PAPER, PAPER_RATIO),
    )
    rows = []
    for model in lab.settings.models_of("table4"):
        for task in tasks_of("table4", lab.settings):
            high, amax = (lab.ask(model, task, scaling, None) for scaling in (lab.high, "amax"))
            who = {"model": model, "task": task.name, "metric": high.metric}
            rows.append({**who, **against(high, amax), **beside(TABLE_4, model, task.name)})
    return Table(name="table4", title=f"Table 4. {TITLES['table4']}", columns=columns, rows=rows, notes=(_NOTE,))


_NOTE = (
    "Accuracies in %, of the metric that is named. The interval is that of the difference item by item: it says "
    "whether AMAX keeps 99.5 % of high precision's."
)
