"""Table 3: inference of GPT. The constant biases that keep 99.5 % of the accuracy in high precision."""

from octoscale.paper.lab import Lab
from octoscale.paper.numbers import TABLE_3
from octoscale.paper.rows import ITEMS, RANGE, SEED, WHO, chance_notes, paper_range, range_row
from octoscale.paper.settings import TITLES
from octoscale.paper.swept import swept
from octoscale.paper.write import Column, Table


def table3(lab: Lab) -> Table:
    """The table, measured where it is not yet."""
    columns = (*WHO, SEED, ITEMS, Column(key="high", title=lab.high, digits=2), *RANGE)
    every = list(swept(lab, "table3"))
    notes = [NOTE, *(note for found in every for note in chance_notes(found.who, found.high))]
    rows = [
        {
            **found.who,
            **range_row(found.high, found.constants),
            **paper_range(TABLE_3, found.model, found.task.name),
        }
        for found in every
    ]
    return Table(name="table3", title=f"Table 3. {TITLES['table3']}", columns=columns, rows=rows, notes=notes)


NOTE = (
    "A bias passes by the estimate if its accuracy is at least 99.5 % of high precision's, as in the paper; beyond "
    "noise if the whole 95 % interval of the difference, item by item, says so. Undecided are those of which more "
    "items would have to say. A range is the longest run of neighbours."
)
