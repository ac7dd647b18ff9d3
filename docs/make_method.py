"""The figures and the table of docs/method.md: one tensor under several scales, drawn as `octoscale report` draws it.

    python docs/make_method.py            docs/window.png, docs/gradients.png, and the table in docs/method.md

The tensors are drawn at random with a fixed seed, so that all of it is the same each time. A test compares the table.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from make import shrink, with_blocks_of

from octoscale.kernels.ops import quantize
from octoscale.numerics.scaling import Amax, Constant, Rule
from octoscale.report.figures.exponents import draw_exponents, draw_reach
from octoscale.report.figures.parts import label_rows
from octoscale.report.figures.style import REPORT, StyledFigure, get_style, save, styled
from octoscale.runs.scales import SCHEMA

DOCS = Path(__file__).resolve().parent
#: Values in a tensor of the figures.
NUMEL = 1 << 18

#: A row of a figure, and of the table: role, format, rule.
Case = tuple[str, str, Rule]
#: One tensor of activations: too low in the window, as AMAX puts it, too high.
WINDOW: list[Case] = [("input", "e4m3fn", rule) for rule in (Constant(-5), Amax(), Constant(9))]
#: One tensor of gradients, in either format, where AMAX puts it.
GRADIENTS: list[Case] = [("grad_output", name, Amax()) for name in ("e4m3fn", "e5m2")]


def values(spread: float, scale: float) -> torch.Tensor:
    """Numbers around zero whose magnitudes spread over more binades, the larger `spread` is: [NUMEL], float32."""
    source = torch.Generator().manual_seed(0)
    size, sign = (torch.randn(NUMEL, generator=source) for _ in range(2))
    return scale * sign * torch.exp(spread * size)


def rows_of(cases: Sequence[Case], x: torch.Tensor) -> list[pl.DataFrame]:
    """What a run would record of the casts of a tensor: one row each."""
    rows = []
    for role, name, rule in cases:
        cast = quantize(x, name, rule, counts=True, exponents=True)
        seen = cast.observed
        assert seen is not None
        row = {
            "role": role,
            "format": name,
            "scaling": str(rule),
            "scale_bias": int(cast.scale_bias),
            "amax": float(seen.amax),
            "numel": x.numel(),
            "saturated": int(seen.saturated),
            "flushed": int(seen.flushed),
            "exponents": seen.exponents.tolist(),
        }
        rows.append(pl.DataFrame([{column: row.get(column) for column in SCHEMA}], schema=SCHEMA))
    return rows


def window() -> list[pl.DataFrame]:
    """The rows of the first figure."""
    return rows_of(WINDOW, values(1.0, 0.5))


def gradients() -> list[pl.DataFrame]:
    """The rows of the second figure."""
    return rows_of(GRADIENTS, values(2.6, 1e-6))


@styled
def figure_of(rows: Sequence[pl.DataFrame], *, style: str = REPORT) -> StyledFigure:
    """A panel a row, all over the same exponents."""
    figure = get_style(style).figure(0.6 + 1.5 * len(rows))
    panels = [*figure.subplots(len(rows), 1, squeeze=False)[:, 0]]
    ranges = [draw_exponents(axes, row) for axes, row in zip(panels, rows, strict=True)]
    left, right = min(low for low, _ in ranges), max(high for _, high in ranges)
    for axes, row in zip(panels, rows, strict=True):
        draw_reach(axes, row, left, right, figure.style)
        axes.set_title(f"{row['format'][0]}, {row['scaling'][0]}: scale_bias {row['scale_bias'][0]}")
    label_rows(figure, panels, "share of non-zero\nvalues, %", [1.0] * len(panels))
    panels[-1].set_xlabel("exponent of the value, log2|x|")
    return figure


def table() -> str:
    """The shares that are lost, as Markdown."""
    lines = ["| tensor | format | scaling | scale_bias | saturated | flushed |", "|---|---|---|--:|--:|--:|"]
    for what, rows in (("activations", window()), ("gradients", gradients())):
        for row in rows:
            saturated, flushed = (f"{100 * row[name][0] / row['numel'][0]:.2g} %" for name in ("saturated", "flushed"))
            words = [what, row["format"][0], f"`{row['scaling'][0]}`", str(row["scale_bias"][0]), saturated, flushed]
            lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def main(folder: Path = DOCS) -> None:
    """Draw the figures, and put the table into the page."""
    for stem, rows in (("window", window()), ("gradients", gradients())):
        (path,) = save(figure_of(rows), folder, stem, ["png"])
        shrink(path, path)
    page = DOCS / "method.md"
    page.write_text(with_blocks_of(page.read_text(encoding="utf-8"), {"method": table}), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
