"""Which constant scales does a model survive? The range of CSCALE biases, as in the paper's Tables 3 and 6.

    range_of(scores)                                    of what a run measured
    bias_range({-2: judged, -1: judged}, criterion)     of verdicts

The range is the longest run of neighbouring biases that pass beyond noise (criterion.py): a lone survivor beyond a gap
is luck. Beside it stand the biases that the intervals leave undecided, and the run that passes by the estimates alone,
which is the paper's own criterion.

A bias between two measured ones of one verdict has that verdict too, unmeasured: a sweep that bisects measures few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from octoscale.validation.criterion import PERPLEXITY_TOLERANCE, Criterion, Judged, criterion_of, values_of
from octoscale.validation.scores import Score, bias_of

Run = tuple[int, int]
Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class BiasRange:
    """The biases low..high pass `criterion` beyond `noise`; low and high are None if no bias does.

    by_estimate: the biases low..high that pass by the estimates alone. undecided: those of which more items would have
    to say. judged: what was measured of each bias.
    """

    low: int | None
    high: int | None
    criterion: str
    noise: str = ""
    by_estimate: Run | None = None
    undecided: tuple[int, ...] = ()
    judged: Mapping[int, Judged] = field(default_factory=dict)
    unit: str = ""

    def __str__(self) -> str:
        if not self.judged:
            return f"no bias passes ({self.criterion})"
        run = None if self.low is None or self.high is None else (self.low, self.high)
        text = (
            f"{_pass(run)} beyond noise ({self.criterion}; {self.noise}){self._unmeasured(run)}{self._open_ends(run)}"
        )
        apart = [bias for bias in self.judged if self._passes_apart(bias)]
        if apart:
            text += f"; beyond a gap {in_runs(apart)} would pass, too"
        if run != self.by_estimate:
            text += f"; by the estimates alone {_pass(self.by_estimate)}"
        if self.undecided:
            text += f"; undecided: {in_runs(self.undecided)}{self._remedy()}"
        return text

    def to_json(self) -> dict[str, Any]:
        """As summary.json holds it; `text` is what a reader sees."""
        return {**asdict(self), "text": str(self)}

    def _passes_apart(self, bias: int) -> bool:
        """Whether a bias passes without being part of the range."""
        inside = self.low is not None and self.high is not None and self.low <= bias <= self.high
        return self.judged[bias].verdict == "passes" and not inside

    def _unmeasured(self, run: Run | None) -> str:
        """How many biases of the range lie between measured ones."""
        low, high = run or (0, -1)
        missing = high - low + 1 - sum(low <= bias <= high for bias in self.judged)
        return f", {missing} of them unmeasured" if missing else ""

    def _open_ends(self, run: Run | None) -> str:
        """Which edges of the range were not found: nothing was measured beyond them."""
        ends = (min(self.judged), max(self.judged))
        names = [name for name, end, edge in zip(("lower", "upper"), ends, run or (), strict=False) if end == edge]
        if not names:
            return ""
        return f", and {'both edges lie' if len(names) == 2 else f'the {names[0]} edge lies'} beyond what was measured"

    def _remedy(self) -> str:
        """How many items would decide, where no bias passes."""
        needed = ((self.judged[bias].needed, bias) for bias in self.undecided if bias in self.judged)
        known = sorted((number, bias) for number, bias in needed if number is not None)
        if self.low is not None or not known:
            return ""
        return f" (about {known[0][0]:,} {self.unit} would decide {known[0][1]})"


def range_of(scores: Sequence[Score]) -> BiasRange:
    """The range that these scores show; without a reference, or constant scales, none and why."""
    criterion = criterion_of(scores)
    if isinstance(criterion, str):
        return BiasRange(low=None, high=None, criterion=criterion)
    constant = {bias: score for score in scores if (bias := bias_of(score.scaling)) is not None}
    return bias_range({bias: criterion.judge(values_of(constant[bias])) for bias in sorted(constant)}, criterion)


def bias_range(judged: Mapping[int, Judged], criterion: Criterion) -> BiasRange:
    """The range that these verdicts show; none, and why, without any."""
    if not judged:
        return BiasRange(low=None, high=None, criterion="there is no cscale bias")
    verdicts = _filled({bias: judged[bias].verdict for bias in judged})
    low_high = _longest_run([bias for bias in verdicts if verdicts[bias] == "passes"])
    by_estimate = _filled({bias: judged[bias].by_estimate for bias in judged})
    return BiasRange(
        low=low_high and low_high[0],
        high=low_high and low_high[1],
        criterion=criterion.words,
        noise=criterion.noise,
        by_estimate=_longest_run([bias for bias in by_estimate if by_estimate[bias]]),
        undecided=tuple(bias for bias in verdicts if verdicts[bias] == "undecided"),
        judged=judged,
        unit=criterion.unit,
    )


def basin(perplexities: Mapping[int, float | None], reference: float) -> Run | None:
    """The biases low..high whose perplexity, as an estimate, is within 0.5 % of the reference's."""
    limit = reference * (1 + PERPLEXITY_TOLERANCE)
    passes = _filled({bias: value is not None and value <= limit for bias, value in perplexities.items()})
    return _longest_run([bias for bias in passes if passes[bias]])


def _filled(known: Mapping[int, Value]) -> dict[int, Value]:
    """What is known of some biases, and of those between two neighbours of which the same is known."""
    biases = sorted(known)
    filled = {bias: known[bias] for bias in biases}
    for low, high in pairwise(biases):
        if known[low] == known[high]:
            filled |= dict.fromkeys(range(low, high), known[low])
    return dict(sorted(filled.items()))


def _longest_run(passing: Sequence[int]) -> Run | None:
    """The longest run of neighbours; of equally long ones the first."""
    best: Run | None = None
    for low in passing:
        high = low
        while high + 1 in passing:
            high += 1
        if best is None or high - low > best[1] - best[0]:
            best = (low, high)
    return best


def _pass(run: Run | None) -> str:
    return "no bias passes" if run is None else f"biases {run[0]} to {run[1]} pass"


def in_runs(biases: Sequence[int]) -> str:
    """`-14 to -6, 12` for ascending biases."""
    starts = [bias for bias in biases if bias - 1 not in biases]
    ends = [bias for bias in biases if bias + 1 not in biases]
    return ", ".join(f"{low} to {high}" if high > low else str(low) for low, high in zip(starts, ends, strict=True))
