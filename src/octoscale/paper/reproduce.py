"""From the words to the files: the tables and figures that are wanted, one by one, from cells that are kept.

    reproduce(Reproduction(what="table4", tasks="piqa"), Path("runs/reproduce"))

    table4.md, .csv, .json    a table              (write.py)
    fig5.json                 a figure's numbers   (report/figures/paper.py draws them)
    made.json                 of each the words, the machine and the date; and what was left out
    seconds.csv               how long each cell took
    cells/                    the measurements     (kept.py)

All but made.json and seconds.csv are the same bytes whenever, and however often, the command ran.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from octoscale.kernels.ops import check_imitation
from octoscale.models.loading import config_of
from octoscale.models.quiet import quietly
from octoscale.numerics.accumulators import get_accumulator
from octoscale.numerics.recipe import parse_scaling
from octoscale.paper.fig5 import fig5
from octoscale.paper.fig6 import fig6
from octoscale.paper.fig10 import fig10
from octoscale.paper.fig789 import fig7, fig8, fig9
from octoscale.paper.kept import Bars, no_bars
from octoscale.paper.lab import Lab, is_classifier
from octoscale.paper.settings import TITLES, TRAINED, TUNED, Reproduction
from octoscale.paper.table2 import table2
from octoscale.paper.table3 import table3
from octoscale.paper.table4 import table4
from octoscale.paper.table5 import table5
from octoscale.paper.table6 import table6
from octoscale.paper.tasks import Task, check_data, tasks_of
from octoscale.paper.write import Numbers, Table, write
from octoscale.system.errors import UserError
from octoscale.system.lock import LOCK, exclusive_run
from octoscale.system.whole_file import replacing, write_json
from octoscale.training.settings import paper_preset
from octoscale.validation.tasks import expand

MADE = "made.json"

_MAKERS: dict[str, Callable[[Lab], Table | Numbers]] = {
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "fig5": fig5,
    "fig6": fig6,
    "fig7": fig7,
    "fig8": fig8,
    "fig9": fig9,
    "fig10": fig10,
}

#: The smallest number of models from which a figure has one to show.
_PLACES = {"fig8": 2, "fig9": 3}


@quietly()
def reproduce(settings: Reproduction, folder: Path, *, bars: Bars = no_bars) -> list[str]:
    """Make what is wanted in `folder`, and go on with what is there; returns the names of what was made.

    Raises UserError, before anything is measured or written, for words that cannot be met.
    """
    missing = _missing(settings)
    names = [name for name in settings.wanted if name not in missing]
    if missing and not (settings.is_all and names):
        raise UserError("; ".join(f"{name} {why}" for name, why in missing.items()))
    _check_all_asked(settings, names)
    _check_own(folder)
    with exclusive_run(folder):
        lab = Lab(settings, folder, check=lambda: _check(settings, names), bars=bars)
        for name in names:
            lab.used.clear()
            found = _MAKERS[name](lab)
            sums = _sums(settings)
            write(replace(found, notes=(*found.notes, *sums)) if sums else found, folder)
            _note(lab, name, missing)
        _note_seconds(lab)
    return names


def _sums(settings: Reproduction) -> list[str]:
    """A note that says whose sums these are, where they are imitated."""
    if not settings.accumulate:
        return []
    return [f"FP8 products are summed as by {get_accumulator(settings.accumulate).instruction}."]


def _missing(settings: Reproduction) -> dict[str, str]:
    """What cannot be made of these words, and why."""
    missing = {}
    for name in settings.wanted:
        models = settings.models_of(name)
        if len(models) < _PLACES.get(name, 1):
            missing[name] = f"shows model {_PLACES[name]} by size, and there are {len(models)}: give more --model"
        elif name != "fig6" and not tasks_of(name, settings):
            kind = "asks through lm-eval: --tasks piqa" if name == "table4" else "fine-tunes for classes: --tasks sst2"
            missing[name] = f"{kind}, say, not {settings.tasks}"
    return missing


def _check_all_asked(settings: Reproduction, names: list[str]) -> None:
    """UserError for a task that was named, and that nothing asks."""
    asked = {task.name for name in names if name != "fig6" for task in tasks_of(name, settings)}
    for task in settings.task_names:
        if not asked & expand([task]).keys():
            raise UserError(f"{' and '.join(names)} cannot ask {task}: leave it out")


def _check_own(folder: Path) -> None:
    """FileExistsError for a folder with files of something else."""
    names = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
    if (names and "cells" not in names) or names & {"run.json", "arena.json"}:
        raise FileExistsError(f"{folder} holds files that are not of a reproduction: choose another folder")


def _check(settings: Reproduction, names: list[str]) -> None:
    """UserError for models, scalings and data that cannot be had, before the first cell is made."""
    parse_scaling("amax", settings.codes)
    if settings.accumulate:
        check_imitation(settings.accumulate)
    models = dict.fromkeys(model for name in names for model in settings.models_of(name))
    for model in models:
        config_of(model)
    for model in (model for name in names if name in TUNED and settings.preset for model in settings.models_of(name)):
        paper_preset(model, settings.batch)
    to_ask: dict[Task, bool] = {}
    for name in names:
        for task in tasks_of(name, settings) if name != "fig6" else ():
            trains = name in TRAINED or not all(is_classifier(model) for model in settings.models_of(name))
            to_ask[task] = to_ask.get(task, False) or (name in TUNED and task.has_classes and trains)
    for task, trains in to_ask.items():
        check_data(task, settings.include, to_train=trains)


def _note(lab: Lab, name: str, missing: Mapping[str, str]) -> None:
    """What a table or figure was made with: the words, the machine, and when its first cell was; beside the others."""
    path = lab.folder.parent / MADE
    made = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    words = json.loads(json.dumps(asdict(lab.settings), default=str))
    dates = [str(lab.result(cell)["date"]) for cell in lab.used.values()]
    made[name] = {"words": words, "command": lab.command, "date": min(dates), "machine": lab.identity}
    made = {known: made[known] for known in TITLES if known in made}
    write_json(path, made | {"left_out": dict(missing)})


def _note_seconds(lab: Lab) -> None:
    """How long each cell took that the folder holds."""
    rows = sorted((str(value["cell"]), value.get("seconds", "")) for value in lab.results())
    with replacing(lab.folder.parent / "seconds.csv") as temporary:
        temporary.write_text("".join(f"{cell},{seconds}\n" for cell, seconds in [("cell", "seconds"), *rows]))


assert _MAKERS.keys() == TITLES.keys()
