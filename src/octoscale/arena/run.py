"""From the words to the files: a contest, from cells that are kept.

    hold(Arena(model="smollm2-135m", text="wiki.test.raw", tokens=8192), Path("runs/arena"))

    arena.csv, arena.json     the table
    made.json                 the words, the command, the machine and the date
    cells/                    the measurements (paper/kept.py)

After a kill the same command goes on. Other words measure beside what is there, and the table is that of the last ones.
All but the seconds is the same whenever, and however often, the command ran. report/ draws the figure, and writes the
page.
"""

import json
from dataclasses import asdict
from pathlib import Path

from octoscale.arena.cost import Layer, layers_of
from octoscale.arena.ring import Ring
from octoscale.arena.settings import Arena
from octoscale.arena.table import NAME, table_of, unit_of
from octoscale.kernels.ops import check_imitation
from octoscale.models.loading import is_stored, skeleton
from octoscale.models.quiet import quietly
from octoscale.models.texts import read_text
from octoscale.numerics.recipe import Recipe, check_names, parse_scaling
from octoscale.paper.kept import Bars, no_bars
from octoscale.paper.write import csv_text, table_to_json
from octoscale.system.errors import UserError
from octoscale.system.lock import LOCK, exclusive_run
from octoscale.system.whole_file import replacing, write_json

#: The words, the machine and the date.
MADE = "made.json"


@quietly()
def hold(settings: Arena, folder: Path, *, bars: Bars = no_bars) -> None:
    """Measure in `folder` what is not there yet, and write the table.

    Raises UserError or OSError, before anything is measured or written, for words that cannot be met;
    FloatingPointError where high precision has no finite result.
    """
    recipes = _recipes(settings)
    _check_own(folder)
    read_text(settings.text)
    layers = _layers(settings, recipes[0])
    with exclusive_run(folder):
        ring = Ring(settings, folder, bars=bars)
        table = table_of(ring, layers)
        of = {"model": settings.model, "against": settings.dtype, "unit": unit_of(settings), "trains": settings.trains}
        with replacing(folder / f"{NAME}.csv") as temporary:
            temporary.write_text(csv_text(table), encoding="utf-8")
        write_json(folder / f"{NAME}.json", table_to_json(table) | of)
        _note(ring, folder)


def _recipes(settings: Arena) -> list[Recipe]:
    """All that may be measured. UserError for a scaling that cannot be read, or stands there twice."""
    texts = [text for scaling in settings.scalings for text in settings.texts_of(scaling)]
    recipes = [parse_scaling(text, settings.formats, settings.skip) for text in texts]
    check_names(recipes)
    found = [recipe for recipe in recipes if isinstance(recipe, Recipe)]
    for accumulate in {recipe.accumulate for recipe in found} - {""}:
        check_imitation(accumulate)
    assert len(found) == len(recipes), "the settings refuse what is no FP8"
    return found


def _layers(settings: Arena, recipe: Recipe) -> list[Layer]:
    """Those that go to FP8. UserError for a model that has none, or holds FP8 weights."""
    if is_stored(settings.model):
        raise UserError(f"{settings.model} holds FP8 weights with their scales: name the checkpoint it was made from")
    return layers_of(skeleton(settings.model), recipe)


def _check_own(folder: Path) -> None:
    """FileExistsError for a folder with files of something else."""
    names = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
    is_another = "run.json" in names or (MADE in names and f"{NAME}.json" not in names)
    if is_another or (names and "cells" not in names):
        raise FileExistsError(f"{folder} holds files that are not of an arena: choose another folder")


def _note(ring: Ring, folder: Path) -> None:
    """What the table was made with, and when its first cell was."""
    dates = [str(value["date"]) for cell in ring.used.values() if "date" in (value := ring.result(cell))]
    words = json.loads(json.dumps(asdict(ring.settings), default=str))
    made = {"words": words, "command": ring.command, "date": min(dates), "machine": ring.identity}
    write_json(folder / MADE, {NAME: made})
