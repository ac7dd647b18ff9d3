"""A run as notebooks want it: its rows as polars frames, its results, and its figures by name.

    run = octoscale.load_run("runs/mine")
    run.scales.filter(role="grad_output").sort("flushed")
    run.figures                                  ('perplexity', 'scale_bias', 'exponents-amax', 'clipping')
    run.figure("scale_bias", style="paper").savefig("scales.pdf")

A run that goes on, was killed, is of an older version or has a damaged part is loaded as far as it can be read; what is
missing is said. Loaded is what was on disk then: load it again to see more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from octoscale.report.contents import RunContents, read_run
from octoscale.report.figures.of_run import FIGURES, makers
from octoscale.report.figures.style import REPORT, StyledFigure, get_style
from octoscale.system.errors import UserError
from octoscale.system.printable import printable


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Run:
    """What a run's files say.

    header, summary: of run.json and summary.json. metrics: a row a measurement, columns as they were logged, null where
    a line lacks one, or was not finite. scales: a row a tensor a step (docs/TOUR.md has the columns). advice, parity:
    of a run of that command. missing: a line for what is not there, or damaged.
    """

    path: Path
    header: dict[str, Any]
    summary: dict[str, Any]
    metrics: pl.DataFrame
    scales: pl.DataFrame
    advice: dict[str, Any]
    parity: dict[str, Any]
    missing: tuple[str, ...]
    contents: RunContents

    @cached_property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that there are data for."""
        return tuple(stem for stems in makers(self.contents).values() for stem in stems)

    def figure(self, name: str, *, style: str = REPORT, module: str | None = None) -> StyledFigure:
        """One of `figures`, drawn; `exponents` is the first of them. Nothing is written.

        style: report, paper or slides. module: whose exponents are drawn, if not those that flush most. UserError,
        naming what there is or what would have to be recorded, for another name or module.
        """
        get_style(style)
        if module is not None and name.partition("-")[0] != "exponents":
            raise UserError(f"module={module!r} is for the figure exponents, not {name}: leave it out")
        made = makers(self.contents, module)
        stems = {stem: make for found in made.values() for stem, make in found.items()}
        stems |= {kind: next(iter(found.values())) for kind, found in made.items() if kind not in stems}
        if name not in stems:
            raise UserError(why_not_drawn(name, [*stems], self.path))
        return stems[name](style=style)

    def __repr__(self) -> str:
        """What it is, in a few lines."""
        lines = [
            f"{self.path}: {self.scales.height:,} rows of scales, {self.metrics.height:,} measurements",
            f"figures: {', '.join(self.figures) or 'none'}",
            *(f"missing: {line}" for line in self.missing),
        ]
        return printable("\n".join(lines))


def load_run(folder: Path | str) -> Run:
    """Read the folder of a run. FileNotFoundError if it is none; ValueError if nothing of it can be read."""
    contents = read_run(folder, whole=True)
    return Run(
        path=contents.path,
        header=contents.header,
        summary=contents.summary,
        metrics=metrics_table(contents.metrics),
        scales=contents.scales,
        advice=contents.advice,
        parity=contents.parity,
        missing=tuple(contents.missing),
        contents=contents,
    )


def why_not_drawn(name: str, drawn: Sequence[str], path: Path) -> str:
    """What a run lacks for a figure, or what figures there are."""
    kind = name if name in FIGURES else "exponents" if name.startswith("exponents-") else ""
    if kind and not any(stem == kind or stem.startswith(f"{kind}-") for stem in drawn):
        return f"{path} has nothing for {name}: {FIGURES[kind].needs}"
    return f"no figure {name!r}: one of {', '.join(drawn or FIGURES)}"


def metrics_table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Measurements as a table: numbers, and step as a whole one; what a column cannot hold as null."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names])


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    """All texts, all truth values, or numbers."""
    name = _unicode(name)
    kinds = {type(value) for value in values if value is not None}
    if kinds == {str}:
        return pl.Series(name, [None if value is None else _unicode(value) for value in values], dtype=pl.String)
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    numbers = [float(value) if type(value) in (int, float) and abs(value) < 2.0**1000 else None for value in values]
    column = pl.Series(name, numbers, dtype=pl.Float64)
    return column.cast(pl.Int64) if name == "step" else column


def _unicode(text: str) -> str:
    """The text, with halves of characters, which JSON may hold and a frame may not, as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
