"""A parity in words, and as parity.json holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import RESULTS
from octoscale.parity.differences import EXPONENTS, Differences
from octoscale.parity.ways import FLOAT32
from octoscale.runs.scales import LayerName

#: The length at which the report of DeepSeek-V3 (arXiv 2412.19437, section 3.5.2) states an error.
DEEPSEEK_LENGTH = 4096


@dataclass(frozen=True)
class Place:
    """A product of a layer, by its result."""

    layer: LayerName
    result: str


#: Of each product, the differences of each way.
Found = Mapping[Place, Mapping[str, Differences]]


def operands_to_json(found: Found) -> dict[str, Any]:
    """Kinds of layers with all that was found, and each layer with the share of its casts' error alone."""
    keys = [(result, kind) for result in RESULTS for kind in KINDS]
    of_kind = {key: {p: ways for p, ways in found.items() if (p.result, p.layer.kind) == key} for key in keys}
    return {
        "exponents": list(EXPONENTS),
        "kinds": [row for (result, kind), part in of_kind.items() for row in _kind_rows(result, kind, part)],
        "layers": [
            {
                "module": place.layer.module,
                "layer": place.layer.layer,
                "kind": place.layer.kind,
                "result": place.result,
                "of_casts": {name: differences.of_casts for name, differences in ways.items()},
            }
            for place, ways in found.items()
        ],
    }


def _kind_rows(result: str, kind: str, found: Found) -> list[dict[str, Any]]:
    """A row a way: of all outputs, and the share of the casts' error in the median layer and in the worst."""
    rows = []
    for name in next(iter(found.values()), {}):
        whole = Differences()
        for ways in found.values():
            whole.add(ways[name])
        shares = [share for ways in found.values() if (share := ways[name].of_casts) is not None]
        ends = {"median": median(shares), "worst": max(shares)} if shares else {"median": None, "worst": None}
        rows.append({"result": result, "kind": kind, "sums": name, **whole.to_json(), "of_casts": ends})
    return rows


def answer_of(content: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences: one on each tensor core's outputs, one on the length of sums."""
    names = [name for name in dict.fromkeys(row["sums"] for row in content["kinds"]) if name != FLOAT32.name]
    lines = [_of_outputs(name, content) for name in names]
    return lines + [line for name in names if (line := _of_length(name, content["lengths"]))]


def _of_outputs(name: str, content: Mapping[str, Any]) -> str:
    rows = [row for row in content["kinds"] if row["sums"] == name and row["result"] == RESULTS[0]]
    changed, outputs = (sum(row[key] for row in rows) for key in ("changed", "outputs"))
    layers = [row for row in content["layers"] if row["result"] == RESULTS[0] and row["of_casts"][name] is not None]
    text = (
        f"{name}: {percent(changed / max(1, outputs))} of the outputs are another {content['dtype']} number than with "
    )
    text += "float32's sums"
    if not layers:
        return f"{text}."
    worst = max(layers, key=lambda row: row["of_casts"][name])
    middle = median(row["of_casts"][name] for row in layers)
    text += f"; the sums' error is {percent(middle)} of that of the casts to FP8 in the median layer"
    return f"{text}, {percent(worst['of_casts'][name])} in the worst, {worst['module']}."


def _of_length(name: str, curves: Sequence[Mapping[str, Any]]) -> str:
    """The errors of two families of operands at DeepSeek's length; "" where it was not reached."""
    found = []
    for curve in curves[:2]:
        series = next((row for row in curve["series"] if row["sums"] == name), None)
        if series is not None and DEEPSEEK_LENGTH in curve["lengths"]:
            at = curve["lengths"].index(DEEPSEEK_LENGTH)
            sizes = f"{percent(series['error'][at])}, and {percent(series['largest'][at])} at most"
            found.append(f"{sizes} ({curve['says']})")
    return f"{name}: sums of {DEEPSEEK_LENGTH:,} products are wrong by {'; '.join(found)}." if found else ""


def percent(share: float) -> str:
    """0.0123 -> 1.23 %."""
    return f"{100 * share:.3g} %"
