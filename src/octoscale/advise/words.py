"""An advice in words, and as advice.json holds it: numbers that are not finite are null there."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from octoscale.advise.cost import Cost, Mean, excess_of
from octoscale.advise.estimate import LayerEstimate
from octoscale.advise.findings import Findings
from octoscale.advise.keeping import Found, Worth
from octoscale.advise.outliers import FAR, Outlier


def answer_of(findings: Findings, limit: float, scaling: str) -> list[str]:
    """The advice in sentences: what to keep, what that is worth on the text that verifies, and layers to know of."""
    kept, at_most = findings.kept, max(len(kept) for kept, _ in findings.found.steps)
    whole = f"FP8 ({scaling}) raises the perplexity by {cost_text(findings.whole)}"
    if kept is None:
        best = min((cost.expected for _, cost in findings.found.steps), key=lambda expected: expected.mean)
        lines = [f"No list of {at_most} layers reaches the bound of {share(limit)}: {whole}."]
        lines.append(f"Of the lists that were tried, the best leaves {mean_text(best)}, on the text of the search.")
    elif not kept:
        found = mean_text(findings.whole_in_search.expected)
        lines = [f"Nothing to keep on the text of the search, where FP8 ({scaling}) raises the perplexity by {found}."]
        lines.append(f"On the other text by {cost_text(findings.whole)}. That is {_against(findings.whole, limit)}.")
    else:
        assert findings.left is not None
        lines = [f"Keep {'this layer' if len(kept) == 1 else f'these {len(kept)} layers'} in high precision: "]
        lines[0] += f"{', '.join(kept)}."
        lines.append(f"On the other text {whole}; with the list kept, by {cost_text(findings.left)}.")
        lines.append(f"That is {_against(findings.left, limit)}.")
    return lines + _warnings(findings.outliers)


def cost_text(cost: Cost) -> str:
    """A cost as the excess of the perplexity: what is expected, and what the text had, both with 95 % intervals."""
    if not math.isfinite(cost.expected.mean):
        return "more than a number can say (infinity or NaN)"
    return f"{mean_text(cost.expected)}; measured {mean_text(cost.measured)}"


def mean_text(mean: Mean) -> str:
    """A mean as the excess of the perplexity, with its 95 % interval."""
    return f"{share(mean.excess)} ({share(excess_of(mean.low))} to {share(excess_of(mean.high))})"


def share(value: float) -> str:
    """0.0123 -> 1.23 %."""
    return f"{100 * value:.3g} %"


def to_json(findings: Findings, limit: float, scaling: str) -> dict[str, Any]:
    """All that was found, as plain data."""
    kept = findings.kept
    return {
        "answer": answer_of(findings, limit, scaling),
        "keep": None if kept is None else list(kept),
        "limit": limit,
        "loss": findings.before,
        "cost": {
            "search": findings.whole_in_search.to_json(),
            "verify": findings.whole.to_json(),
        },
        "cost_left": None
        if findings.left is None or findings.left_in_search is None
        else {"search": findings.left_in_search.to_json(), "verify": findings.left.to_json()},
        "rankings": {name: {"keep": list(names), **cost.to_json()} for name, (names, cost) in findings.others.items()},
        "scalings": {name: cost.to_json() for name, cost in findings.scalings.items()},
        "outliers": [_outlier(outlier) for outlier in findings.outliers],
        "layers": [_layer(estimate, findings.worth) for estimate in findings.estimates],
        "steps": _steps(findings.found),
        "num_passes": findings.num_passes,
    }


def _warnings(outliers: Sequence[Outlier]) -> list[str]:
    if not outliers:
        return []
    first = f"Scales {FAR} binades or more from their kind's: amax pays nothing for it, a constant scale breaks there:"
    return [first, *map(str, outliers)]


def _against(cost: Cost, limit: float) -> str:
    """What the text that verifies says of the bound."""
    bound, expected = f"the bound of {share(limit)}", cost.expected
    if excess_of(expected.high) <= limit:
        return f"under {bound}"
    if expected.excess <= limit:
        return f"under {bound}, but the interval reaches above it: more --tokens would tell"
    if excess_of(expected.low) <= limit:
        return f"above {bound}, but the interval holds it: more --tokens would tell"
    return f"above {bound}: it does not suffice there"


def _outlier(outlier: Outlier) -> dict[str, Any]:
    return {
        "module": outlier.module,
        "away": dict(outlier.away),
        "is_pair": outlier.is_pair,
        "fed_by": list(outlier.fed_by),
    }


def _layer(estimate: LayerEstimate, worth: Mapping[str, Worth]) -> dict[str, Any]:
    """One layer: what is estimated, what was measured if it was, and what its casts did."""
    row: dict[str, Any] = {"module": estimate.module, "layer": estimate.row.layer, "kind": estimate.row.kind}
    count = max(1, estimate.num_tokens)
    row["estimate"] = {part: value / count for part, value in estimate.second.items()}
    if estimate.module in worth:
        row["alone"] = worth[estimate.module].alone.to_json()
        row["bought"] = worth[estimate.module].bought.to_json()
    for role, cast in estimate.casts.items():
        size = max(1, cast.numel)
        row[role] = {
            "sqnr_db": cast.sqnr_db if math.isfinite(cast.sqnr_db) else None,
            "saturated": cast.saturated / size,
            "flushed": cast.flushed / size,
            "scale_bias": [min(cast.scale_biases), max(cast.scale_biases)] if cast.scale_biases else None,
            "amax": cast.amax,
        }
    return row


def _steps(found: Found) -> list[dict[str, Any]]:
    return [{"keep": list(kept), **cost.to_json()} for kept, cost in found.steps]
