"""Orders in which people keep layers out of FP8, from what costs nothing to look at: so that advice can be compared.

    rankings(estimates)["lowest SQNR"]       module names, the first to be kept first

Ties stand in the model's order, so that the same model gives the same order.
"""

from collections.abc import Callable, Sequence

from octoscale.advise.estimate import CastSums, LayerEstimate

#: The name of the order that advice itself takes.
ESTIMATE = "estimated cost"
#: Those that people use.
CHEAP = ("lowest SQNR", "most saturated and flushed", "first and last layers")


def rankings(estimates: Sequence[LayerEstimate]) -> dict[str, list[str]]:
    """Each order by its name, the estimate's first; the estimates stand in the model's order."""
    modules = [estimate.module for estimate in estimates]
    cheap = (
        _by(estimates, lambda each: -min(cast.sqnr_db for cast in each.casts.values())),
        _by(estimates, lambda each: sum(map(_clipped, each.casts.values()))),
        [modules[place] for place in _from_both_ends(len(modules))],
    )
    return {ESTIMATE: _by(estimates, lambda each: each.cost), **dict(zip(CHEAP, cheap, strict=True))}


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """The rank correlation of two lists, ties at their mean rank; NaN where one of them has a single value."""
    x, y = _ranks(a), _ranks(b)
    mean = (len(x) - 1) / 2
    covariance = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    spread = [sum((p - mean) ** 2 for p in ranks) for ranks in (x, y)]
    return covariance / (spread[0] * spread[1]) ** 0.5 if all(spread) else float("nan")


def _by(estimates: Sequence[LayerEstimate], key: Callable[[LayerEstimate], float]) -> list[str]:
    return [each.module for each in sorted(estimates, key=key, reverse=True)]  # stable, ties too


def _clipped(cast: CastSums) -> float:
    return (cast.saturated + cast.flushed) / cast.numel if cast.numel else 0.0


def _from_both_ends(count: int) -> list[int]:
    """0, count - 1, 1, count - 2, ..."""
    return [place // 2 if place % 2 == 0 else count - 1 - place // 2 for place in range(count)]


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end + 1 < len(order) and values[order[end + 1]] == values[order[begin]]:
            end += 1
        for place in order[begin : end + 1]:
            ranks[place] = (begin + end) / 2
        begin = end + 1
    return ranks
