"""The rows of a contest: high precision, and each contestant with its gap, its bytes and its time."""

import math
from collections.abc import Mapping
from statistics import fmean

from octoscale.arena.contestants import contestant
from octoscale.arena.cost import Cost, Layer, cost_of
from octoscale.arena.ring import Result, Ring
from octoscale.arena.settings import Arena
from octoscale.arena.words import gap_of, notes_of, verdict_of
from octoscale.models.sizes import SIZES
from octoscale.numerics.recipe import parse_scaling
from octoscale.paper.write import Column, Table, Value

NAME = "arena"


def table_of(ring: Ring, layers: list[Layer]) -> Table:
    """The table, measured where it is not yet; high precision first."""
    settings = ring.settings
    base = ring.measure(settings.dtype)
    rows = [_base_row(settings, base, layers)]
    for scaling in settings.scalings:
        is_best = contestant(scaling).is_best_constant
        result = ring.best_constant() if is_best else ring.measure(scaling)
        rows.append(_row(settings, scaling, base, result, layers))
    training = "training from scratch" if settings.model in SIZES else "fine-tuning"
    what = f"{settings.train:,} steps of {training}" if settings.train else "reading a text"
    return Table(
        name=NAME,
        title=f"Arena: {settings.model}, {what}",
        columns=_columns(settings),
        rows=rows,
        notes=notes_of(settings, base, layers, cost_of(layers, settings.dtype).values, ring.identity),
    )


def unit_of(settings: Arena) -> str:
    """What a pair is, in the plural."""
    return "seeds" if settings.trains else "windows"


def _columns(settings: Arena) -> tuple[Column, ...]:
    score, unit = ("loss", "nats") if settings.trains else ("perplexity", "%")
    digits = 4 if settings.trains else 2
    return (
        Column(key="scaling", title="scaling"),
        Column(key="scales", title="one scale for"),
        Column(key="score", title=score, digits=4),
        Column(key="gap", title=f"gap, {unit}", digits=digits),
        Column(key="low", title="95 %: from", digits=digits),
        Column(key="high", title="to", digits=digits),
        Column(key="verdict", title="verdict"),
        Column(key="bits", title="bits a weight", digits=3),
        Column(key="megabytes", title="weights, MB", digits=2),
        Column(key="seconds", title="seconds", digits=1),
    )


def _base_row(settings: Arena, base: Result, layers: list[Layer]) -> Mapping[str, Value]:
    scores = {"score": _score(settings, base), "seconds": base.seconds}
    return {"scaling": base.scaling, "scales": "-", "verdict": "the baseline", **scores} | _bytes(
        cost_of(layers, settings.dtype)
    )


def _row(settings: Arena, scaling: str, base: Result, result: Result, layers: list[Layer]) -> Mapping[str, Value]:
    gap = gap_of(base, result, is_text=not settings.trains)
    row: dict[str, Value] = {
        "scaling": result.scaling,
        "scales": contestant(scaling).scales,
        "verdict": verdict_of(base, result, gap, unit_of(settings)),
        "seconds": result.seconds,
    }
    if gap is not None:
        row |= {"score": _score(settings, result), "gap": gap.estimate, "low": gap.low, "high": gap.high}
    recipe = parse_scaling(settings.texts_of(scaling)[0], settings.formats, settings.skip)
    return row | _bytes(cost_of(layers, recipe))


def _score(settings: Arena, result: Result) -> float:
    """The perplexity of a text, or the mean loss of trainings."""
    loss = fmean(result.values)
    return loss if settings.trains else math.exp(loss)


def _bytes(cost: Cost) -> dict[str, Value]:
    return {"bits": cost.bits_per_value, "megabytes": cost.megabytes}
