"""The results of gpu_check.py as a page of Markdown; what was not measured has no figure there."""

from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]

REHEARSAL = "**A rehearsal of the script on a CPU. No figure here is one of a GPU.**"
PASSES = ("forward", "backward")


def page_of(found: Row) -> str:
    """All parts that are there."""
    parts = ["# FP8 on " + found["machine"].get("device", "a CPU: rehearsal"), "", *_machine(found["machine"]), ""]
    if found["rehearsal"]:
        parts[1:1] = ["", REHEARSAL]
    for name, section in SECTIONS.items():
        if name in found:
            parts += [*section(found[name]), ""]
    return "\n".join(parts)


def _machine(about: Row) -> list[str]:
    return [f"- {name}: {value}" for name, value in about.items()]


def _checks(rows: Sequence[Row]) -> list[str]:
    failed = sum(not row["holds"] for row in rows)
    said = f"{failed} of {len(rows)} do **not** hold." if failed else f"All {len(rows)} hold."
    cells = ([row["what"], "yes" if row["holds"] else "**no**", row["found"]] for row in rows)
    return ["## Correctness", "", said, "", *_table(("what", "holds", "found"), "lll", cells)]


def _limits(rows: Sequence[Row]) -> list[str]:
    (limit,) = rows
    edge = " x ".join(map(str, limit["GEMM"]))
    rates = limit["operations a second"]
    cells = [[f"GEMM {edge}, {name}", f"{rate / 1e12:,.4g} TFLOP/s"] for name, rate in rates.items()]
    cells.append(["copy, read and written", f"{limit['bytes a second'] / 1e9:,.4g} GB/s"])
    return ["## Limits, measured", "", *_table(("what", "rate"), "lr", cells)]


def _layers(rows: Sequence[Row]) -> list[str]:
    """TFLOP/s, and of the limit of that pass what share; FP8 with the cast of its input or gradient."""
    head = ["size", "layer", "rows x in x out"]
    head += [f"{of} {name}" for name in PASSES for of in ("bf16", "FP8")] + ["FP8 over bf16, time", "cast of x"]
    cells = []
    for row in rows:
        seconds = row["seconds"]
        shape = f"{row['rows']} x {row['in_features']} x {row['out_features']}"
        rates = [_rate(row, f"{of} {name}") for name in PASSES for of in ("bf16", "fp8")]
        fp8, bf16 = (sum(seconds[f"{of} {name}"] for name in PASSES) for of in ("fp8", "bf16"))
        cells.append([row["size"], row["kind"], shape, *rates, f"{fp8 / bf16:.2f}", _share(row, "cast")])
    said = "TFLOP/s, and the share of what the limits above allow for that pass (roofline)."
    return ["## Linear layers", "", said, "", *_table(head, "lll" + "r" * 6, cells)]


def _rate(row: Row, name: str) -> str:
    operations = 2.0 * row["rows"] * row["in_features"] * row["out_features"] * (2 if "backward" in name else 1)
    return f"{operations / row['seconds'][name] / 1e12:,.4g} ({_share(row, name)})"


def _share(row: Row, name: str) -> str:
    return f"{100 * row['limits'][name] / row['seconds'][name]:.0f} %"


def _steps(rows: Sequence[Row]) -> list[str]:
    head = ("size", "scaling", "tokens", "seconds", "tokens/s", "TFLOP/s", "GB planned", "GB held", "loss")
    return ["## Training steps", "", *_table(head, "ll" + "r" * 7, map(_step, rows))]


def _step(row: Row) -> list[str]:
    known = [row["size"], row["scaling"], str(row["tokens"])]
    planned = f"{row['bytes planned'] / 1e9:,.1f}"
    if "left out" in row:
        return [*known, row["left out"], "", "", planned, "", ""]
    held = "" if row["bytes held"] is None else f"{row['bytes held'] / 1e9:,.1f}"
    first, last = row["losses"]
    rate = f"{row['operations a second'] / 1e12:,.4g}"
    figures = [f"{row['seconds']:.4g}", f"{row['tokens a second']:,.0f}", rate]
    return [*known, *figures, planned, held, f"{first} to {last}"]


def _table(head: Sequence[str], sides: str, rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["--:" if side == "r" else "---" for side in sides]
    return [f"| {' | '.join(head)} |", f"|{'|'.join(lines)}|", *(f"| {' | '.join(row)} |" for row in rows)]


SECTIONS = {"checks": _checks, "limits": _limits, "layers": _layers, "steps": _steps}
