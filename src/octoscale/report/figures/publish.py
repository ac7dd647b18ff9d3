"""Figures of a run for a paper or slides: `octoscale figures RUN --style paper --format pdf`.

They go to runs/mine/figures/paper, or to a folder that is named. What the run does not allow is said, with what would
have to be recorded; a figure that was asked for by its name, and cannot be drawn, is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octoscale.report.contents import RunContents
from octoscale.report.figures.of_run import FIGURES, Drawing, draw_figures, makers
from octoscale.report.figures.style import FORMATS, REPORT, Make, get_style
from octoscale.system.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the figures are, what became of each, and of those that could not be drawn what they need."""

    folder: Path
    drawing: Drawing
    needs: dict[str, str]


def publish(
    contents: RunContents,
    *,
    style: str,
    formats: Sequence[str] = (),
    only: Sequence[str] = (),
    module: str | None = None,
    out: Path | None = None,
    overwrite: bool = False,
) -> Published:
    """Draw the figures of a run in a style and some formats; by default all, in the style's own formats.

    only: names of figures. module: whose exponents are drawn. out: the folder, in which files of these names stay as
    they are unless `overwrite`; without one, those in the run's own folder are replaced.
    UserError for an unknown style, format, figure or module, for one that the run has no data for, and if there is
    nothing to draw; FileExistsError for a file that would be replaced.
    """
    own = get_style(style).formats
    formats = tuple(formats) or own
    _check("format", formats, FORMATS)
    _check("figure", only, tuple(FIGURES))
    made = makers(contents, module)
    needs = {name: figure.needs for name, figure in FIGURES.items() if name not in made}
    for name in only:
        if name in needs:
            raise UserError(f"{contents.path} has nothing for {name}: {needs[name]}")
    made = {name: stems for name, stems in made.items() if not only or name in only}
    if not made:
        raise UserError(f"{contents.path} has nothing to draw: {'; '.join(contents.missing or needs.values())}")
    if module is not None and "exponents" not in made:
        raise UserError("--module is for the figure exponents: add --only exponents")
    folder = out or (contents.figures if style == REPORT else contents.figures / style)
    if out is not None and not overwrite:
        _check_new(made, folder, formats)
    drawing = draw_figures(made, folder, style=style, formats=formats)
    return Published(folder=folder, drawing=drawing, needs={} if only else needs)


def _check(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}: one of {', '.join(known)}")


def _check_new(made: dict[str, dict[str, Make]], folder: Path, formats: Sequence[str]) -> None:
    """FileExistsError if one of the files is there already."""
    files = [folder / f"{stem}.{format}" for stems in made.values() for stem in stems for format in formats]
    there = next((path for path in files if path.exists() or path.is_symlink()), None)
    if there is not None:
        raise FileExistsError(f"{there} is there already: choose another folder, or --overwrite")
