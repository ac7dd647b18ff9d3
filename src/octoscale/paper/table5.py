"""Table 5: fine-tuning of GPT. What is trained and asked in FP8-AMAX, against high precision, over seeds."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from octoscale.paper.answers import Answers
from octoscale.paper.lab import Lab
from octoscale.paper.numbers import TABLE_5
from octoscale.paper.rows import AGAINST, ITEMS, PAPER, PAPER_RATIO, WHO, against, beside, chance_notes, percent
from octoscale.paper.settings import TITLES
from octoscale.paper.tasks import tasks_of
from octoscale.paper.write import Column, Table
from octoscale.validation.criterion import ACCURACY_SHARE
from octoscale.validation.paired import paired_mean


def table5(lab: Lab) -> Table:
    """The table, measured where it is not yet."""
    columns = (
        *(*WHO, ITEMS, Column(key="seeds", title="seeds")),
        Column(key="high", title=lab.high, digits=2),
        Column(key="high_spread", title="spread", digits=2),
        Column(key="amax", title="AMAX", digits=2),
        Column(key="amax_spread", title="spread", digits=2),
        *(*AGAINST, *PAPER, PAPER_RATIO),
    )
    rows, notes = [], [_NOTE]
    for model in lab.settings.models_of("table5"):
        for task in tasks_of("table5", lab.settings):
            pairs = [
                (lab.ask_trained(model, task, lab.high, seed), lab.ask_trained(model, task, "amax", seed))
                for seed in lab.settings.seed_list
            ]
            seeds = ", ".join(map(str, lab.settings.seed_list))
            who = {"model": model, "task": task.name, "seeds": seeds}
            notes += chance_notes({"model": model, "task": task.name}, pairs[0][0])
            rows.append({**who, **over_seeds(pairs), **beside(TABLE_5, model, task.name)})
    return Table(name="table5", title=f"Table 5. {TITLES['table5']}", columns=columns, rows=rows, notes=notes)


def over_seeds(pairs: Sequence[tuple[Answers, Answers]]) -> Mapping[str, Any]:
    """High precision and FP8-AMAX, seed by seed: means, spreads, and the interval of their difference.

    Of one seed the interval is that over its items; of several that over the seeds.
    """
    if len(pairs) == 1:
        return against(*pairs[0])
    failed = next((amax.failure for _, amax in pairs if amax.failure is not None), None)
    high = [answers.score or 0.0 for answers, _ in pairs]
    row: dict[str, Any] = {
        "items": pairs[0][0].items,
        "high": percent(fmean(high)),
        "high_spread": percent(stdev(high)),
    }
    row["standard_error"] = percent(pairs[0][0].standard_error)
    if failed is not None:
        return row | {"verdict": f"fails: {failed}"}
    amax = [answers.score or 0.0 for _, answers in pairs]
    found = paired_mean([b - a for a, b in zip(high, amax, strict=True)])
    row |= {"amax": percent(fmean(amax)), "amax_spread": percent(stdev(amax)), "difference": percent(found.estimate)}
    row |= {"low": percent(found.low), "high_end": percent(found.high), "ratio": 100 * fmean(amax) / fmean(high)}
    bound = (ACCURACY_SHARE - 1) * fmean(high)
    verdict = "above" if found.low >= bound else "below" if found.high < bound else None
    return row | {"verdict": verdict or f"cannot be told with {len(pairs)} seeds"}


_NOTE = (
    "Accuracies in %, each model asked as it was trained: with float32 parameters, under the scaling of its training. "
    "Spread: the standard deviation over the seeds. The interval is that of the difference over the seeds; where there "
    "is one seed, item by item, which says nothing of another seed. The standard error is that of the first seed's "
    "items."
)
