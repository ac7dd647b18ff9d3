"""Where contestants are measured, each cell once (paper/kept.py), and what became of each, value by value.

    ring = Ring(settings, folder)
    ring.read("amax")               Result(values=the loss of each window, ...)
    ring.best_constant()            of the constants that there are

A value is the mean loss of a window of the text, or the loss of validation after a training with one seed. High
precision is measured first: what is wrong with the words, or the model, ends the command there. What refuses a
contestant after that is a result, in words.

A constant is never chosen by what it is judged by. Of a text that is read, the windows with even numbers have the
constant that is best on the odd ones, and the other way round; of trainings all seeds have the one that is best in a
training with another seed.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from octoscale.arena.cell import reading, training
from octoscale.arena.contestants import with_constant
from octoscale.arena.settings import Arena
from octoscale.paper.cell import Cell
from octoscale.paper.kept import Bars, KeptCells, no_bars
from octoscale.runs.folder import RunFolder
from octoscale.system.errors import UserError
from octoscale.validation.settings import Validation


@dataclass(frozen=True, kw_only=True)
class Result:
    """scaling: as it was measured; of a best constant with its number, or its two. values: losses, in their order.

    failure: why there are none, a result that is not finite or a refusal; values are then empty. seconds: of a text, or
    of a training, the mean; None if nothing ended.
    """

    scaling: str
    values: tuple[float, ...] = ()
    failure: str | None = None
    seconds: float | None = None


class Ring(KeptCells):
    """The cells of a contest. check: as in `KeptCells`."""

    def __init__(
        self, settings: Arena, folder: Path, *, check: Callable[[], None] = lambda: None, bars: Bars = no_bars
    ) -> None:
        super().__init__(folder / "cells", settings.dtype, check=check, bars=bars)
        self.settings = settings

    def measure(self, scaling: str) -> Result:
        """What became of a scaling, be it high precision."""
        if not self.settings.trains:
            return _of_a_text(scaling, self.result(reading(self.settings, scaling)))
        return self._trained(scaling, self.settings.seed_list)

    def best_constant(self) -> Result:
        """What became of the best constant of the settings' biases."""
        biases = self.settings.biases
        if len(biases) == 1:
            return self.measure(with_constant(biases[0], trains=self.settings.trains))
        if not self.settings.trains:
            return crossed({bias: self.measure(with_constant(bias, trains=False)) for bias in biases})
        tried = {bias: self._trained(with_constant(bias, trains=True), [self.settings.spare_seed]) for bias in biases}
        best = _best({bias: found.values for bias, found in tried.items()})
        return _none_of(tried) if best is None else self.measure(with_constant(best, trains=True))

    def said(self, run: RunFolder, words: Validation) -> dict[str, Any]:
        """The loss of each window; why there are not all of them."""
        (failure,) = run.read_json(run.summary).get("failures", {}).values() or (None,)
        asked = {"scaling": words.scalings[0]}
        if failure is not None:
            return asked | {"failure": failure}
        return asked | {"losses": [row["loss"] for row in run.read_metrics()]}

    def _trained(self, scaling: str, seeds: Sequence[int]) -> Result:
        found = {seed: self.result(training(self.settings, scaling, seed)) for seed in seeds}
        failures = (f"{value['failure']} (seed {seed})" for seed, value in found.items() if "failure" in value)
        failure = next(failures, None)
        if failure is not None:
            return Result(scaling=scaling, failure=failure)
        losses = tuple(float(value["validation_loss"]["after"]) for value in found.values())
        return Result(scaling=scaling, values=losses, seconds=fmean(value["seconds"] for value in found.values()))

    def _make(self, cell: Cell) -> dict[str, Any]:
        try:
            made = super()._make(cell)
        except UserError as error:
            if cell.words.wanted == (self.high,):
                raise
            return {"cell": cell.label, "failure": f"refused: {error}"}
        shutil.rmtree(self.folder / cell.name / "model", ignore_errors=True)  # nothing asks what was trained
        return made


def crossed(found: Mapping[int, Result]) -> Result:
    """Each of two halves of the windows, those with even and odd numbers, with the constant that is best on the other.

    found: by the constant. The seconds are the mean of the two readings.
    """
    ended = {bias: result for bias, result in found.items() if result.values}
    if not ended:
        return _none_of(found)
    count = len(next(iter(ended.values())).values)
    halves = [range(count)[0::2], range(count)[1::2]]
    chosen = [_best({bias: [result.values[at] for at in half] for bias, result in ended.items()}) for half in halves]
    of_window = [ended[bias] for bias in reversed(chosen) if bias is not None]
    used = list(dict.fromkeys(of_window))
    return Result(
        scaling=" and ".join(result.scaling for result in used),
        values=tuple(of_window[at % 2].values[at] for at in range(count)),
        seconds=fmean(result.seconds for result in used if result.seconds is not None),
    )


def _of_a_text(scaling: str, value: Mapping[str, Any]) -> Result:
    if "failure" in value:
        return Result(scaling=scaling, failure=value["failure"])
    return Result(scaling=scaling, values=tuple(map(float, value["losses"])), seconds=value["seconds"])


def _best(values: Mapping[int, Sequence[float]]) -> int | None:
    """The constant with the smallest mean loss, of those that have one; the smallest constant where several have it."""
    means = {bias: fmean(losses) for bias, losses in values.items() if losses}
    return min(means, key=lambda bias: (means[bias], bias)) if means else None


def _none_of(found: Mapping[int, Result]) -> Result:
    """What is said where no constant came to an end."""
    first = next(result.failure for result in found.values())
    return Result(scaling="cscale", failure=f"none of {len(found)} constants came to an end: {first}")
