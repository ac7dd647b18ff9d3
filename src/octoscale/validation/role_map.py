"""What a constant for the weights and another one for the inputs do together: a map of pairs of biases.

    pair_map(scores, criterion, ("weight", "input"))       as summary.json holds it, with a text that sums it up

A verdict is that of criterion.py, as for one bias; here there is no range, as pairs have no order.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from octoscale.validation.criterion import Criterion, Judged, values_of
from octoscale.validation.scores import Score

_PAIR = re.compile(r"cscale:weight=(-?\d+),input=(-?\d+)")

Pair = tuple[int, int]


def pair_of(scaling: str) -> Pair | None:
    """(3, -1) for `cscale:weight=3,input=-1`, None for any other scaling."""
    found = _PAIR.fullmatch(scaling)
    return (int(found[1]), int(found[2])) if found else None


def pair_map(scores: Sequence[Score], criterion: Criterion | str, roles: Sequence[str]) -> dict[str, Any]:
    """Each pair's verdict, and in `worse` how much worse than the reference it is, in % or points; null: not finite.

    roles: which one a reader sees upwards, and which one to the right. criterion: in words, if there is none.
    """
    if isinstance(criterion, str):
        return {"roles": list(roles), "cells": [], "text": f"no pair passes ({criterion})"}
    scored = {pair: score for score in scores if (pair := pair_of(score.scaling)) is not None}
    judged = {pair: criterion.judge(values_of(scored[pair])) for pair in sorted(scored)}
    return {
        "roles": list(roles),
        "what": criterion.what,
        "against": criterion.against,
        "cells": [_cell(pair, found, criterion) for pair, found in judged.items()],
        "text": _text(judged, criterion),
    }


def _cell(pair: Pair, judged: Judged, criterion: Criterion) -> dict[str, Any]:
    weight, input = pair
    worse = None if judged.estimate is None else criterion.percent_worse(judged.estimate)
    difference = {"estimate": judged.estimate, "low": judged.low, "high": judged.high}
    return {"weight": weight, "input": input, "verdict": judged.verdict, "worse": worse, **difference}


def _text(judged: Mapping[Pair, Judged], criterion: Criterion) -> str:
    """How many pairs pass, and the best one."""
    passing, undecided = (sum(x.verdict == verdict for x in judged.values()) for verdict in ("passes", "undecided"))
    text = (
        f"{passing} of {len(judged)} pairs pass beyond noise ({criterion.words}; {criterion.noise}), "
        f"{undecided} are undecided; by the estimates alone {sum(x.by_estimate for x in judged.values())} pass"
    )
    worse = {p: criterion.percent_worse(x.estimate) for p, x in judged.items() if x.estimate is not None}
    if not worse:
        return text
    weight, input = min(worse, key=lambda pair: (worse[pair], pair))
    return f"{text}; the best is weight={weight}, input={input}"
