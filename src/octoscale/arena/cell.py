"""One measurement of a contest: a text that is read, or a training, under one scaling; named as those of paper/cell.py.

Its words are those of the command that does the same, octoscale validate or octoscale train.
"""

from pathlib import Path

from octoscale.arena.settings import Arena
from octoscale.paper.cell import SAVE_EVERY, Cell, last_part, weights_of
from octoscale.system.checksums import crc_of


def reading(settings: Arena, scaling: str) -> Cell:
    """The text, read under one scaling."""
    label = f"read {last_part(settings.model)} {scaling}"
    return Cell(words=settings.reading(scaling), label=label, beside=_beside(settings))


def training(settings: Arena, scaling: str, seed: int) -> Cell:
    """A training on the text under one scaling."""
    label = f"train {last_part(settings.model)} {scaling} seed{seed}"
    words = settings.training(scaling, seed, save_every=SAVE_EVERY)
    return Cell(words=words, label=label, beside=_beside(settings))


def _beside(settings: Arena) -> dict[str, str]:
    """The checksums of the text, and of a local checkpoint."""
    path = Path(settings.text)
    return {"text": f"{crc_of(path):08x}" if path.is_file() else settings.text, **weights_of(settings.model)}
