"""What is said of a contest: how far a contestant lies from high precision, whether that can be told, and what to know.

    gap_of(base, result, is_text=True)       Gap(estimate=3.1, low=0.7, high=5.6), in % of perplexity
    verdict_of(base, result, gap, "windows") "worse than bf16"

Losses are compared pair by pair (validation/paired.py): window by window of the same text, or seed by seed of trainings
that begin with the same weights and read in the same order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from octoscale.arena.contestants import BEST_CONSTANT
from octoscale.arena.cost import Layer
from octoscale.arena.ring import Result
from octoscale.arena.settings import Arena
from octoscale.validation.paired import Difference, paired_mean

_HUGE = 700.0  # of a loss; the exponential of more than 709 is no double


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What a contestant loses against high precision; low and high end the 95 % interval, None without one.

    In % of perplexity, or of trainings in nats of loss. needed: about how many windows would tell a gap of this size;
    None where it is told, and of trainings, whose few seeds know little of their scatter.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    needed: int | None = None


def gap_of(base: Result, result: Result, *, is_text: bool) -> Gap | None:
    """Of two results; None where one has no values."""
    if not (base.values and result.values):
        return None
    shown: Callable[[float], float] = _percent if is_text else float
    differences = [after - before for before, after in zip(base.values, result.values, strict=True)]
    if len(differences) == 1:
        return Gap(estimate=shown(differences[0]))
    found = paired_mean(differences)
    needed = found.items_for(abs(found.estimate)) if is_text and not _is_told(found) else None
    return Gap(estimate=shown(found.estimate), low=shown(found.low), high=shown(found.high), needed=needed)


def verdict_of(base: Result, result: Result, gap: Gap | None, unit: str) -> str:
    """A verdict as a reader sees it. unit: what a pair is, in the plural."""
    if gap is None:
        return str(result.failure)
    if gap.low is None or gap.high is None:
        return f"one {unit.removesuffix('s')} has no interval"
    if gap.low == gap.high == 0:
        return f"the same as {base.scaling}"
    if gap.low > 0 or gap.high < 0:
        return f"{'worse' if gap.low > 0 else 'better'} than {base.scaling}"
    needed = f"; about {gap.needed:,} would do" if gap.needed else ""
    return f"cannot be told from {base.scaling} with {len(base.values):,} {unit}{needed}"


def notes_of(settings: Arena, base: Result, layers: list[Layer], values: int, machine: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the table. values: weights of the layers that go to FP8. machine: where it was."""
    beside = ", nor are the float32 weights that are trained" if settings.trains else ""
    bits = (
        f"Bits: of a weight's code, and of its share of the scales, in {len(layers)} layers with {values:,} weights "
        "together; a scale is a power of two and takes 8 bits, a constant none. "
        f"What stays in {settings.dtype} is not counted{beside}."
    )
    timed = "a training, without its validations" if settings.trains else "the text, read once"
    seconds = (
        f"Seconds: {timed}, on this machine: {machine['cpu']}, {machine['threads']} threads, {machine['reason']}. They "
        "say nothing of another one, nor of a GPU with units for such scales."
    )
    asked = _of_trainings(settings) if settings.trains else _of_a_text(settings, base)
    told = "Each interval stands for itself: of twenty, one is expected to miss."
    return [f"{asked} {told}", *_of_the_constant(settings), bits, seconds]


def _of_a_text(settings: Arena, base: Result) -> str:
    window = settings.reading(base.scaling).window
    return (
        f"The perplexity of {settings.text} in {len(base.values):,} windows of {window} tokens. The gap is what it "
        f"lies above that of {base.scaling}, with the 95 % interval of the paired difference, window by window. "
        "So many windows as a verdict names would do if the gap is as it seems."
    )


def _of_trainings(settings: Arena) -> str:
    words = settings.training(settings.dtype, settings.seed_list[0])
    seeds = ", ".join(map(str, settings.seed_list))
    return (
        f"Each is trained for {words.steps:,} steps of {words.batch} windows of {words.window} tokens of "
        f"{settings.text}, with a learning rate of {words.learning_rate:g} and the seeds {seeds}. The loss is that of "
        f"the last part of the text ({words.validation:g} of it), in nats a token; the gap is the mean difference to "
        f"{settings.dtype}, seed by seed, with its 95 % interval."
    )


def _of_the_constant(settings: Arena) -> list[str]:
    """How the best constant was found, if it was looked for."""
    if BEST_CONSTANT not in settings.scalings or len(settings.biases) == 1:
        return []
    among = ", ".join(map(str, settings.biases))
    of_trainings = (
        f"cscale: of the constants {among} the one that is best in a training with seed {settings.spare_seed}, which "
        "is counted nowhere else; it is that of weights and inputs, and gradients have each their own scale."
    )
    of_a_text = (
        f"cscale: the best of the constants {among}. Windows with even numbers have the one that is best on the odd "
        "ones, and the other way round: none is judged by what it was chosen by."
    )
    return [of_trainings if settings.trains else of_a_text]


def _is_told(found: Difference) -> bool:
    return found.low > 0 or found.high < 0 or found.low == found.high


def _percent(difference: float) -> float:
    """A difference of losses as % of perplexity."""
    return 100 * math.expm1(min(difference, _HUGE))
