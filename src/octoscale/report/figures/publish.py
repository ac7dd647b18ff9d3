"""Figures for a paper or slides: `octoscale figures RUN --style paper --format pdf`.

Of a run they go to runs/mine/figures/paper, or to a folder that is named; so do those of a folder of `octoscale
reproduce`, the figures of the paper, and the one of `octoscale arena`. What cannot be drawn is said, with what would
have to be recorded; a figure that was asked for by its name, and cannot be drawn, is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from octoscale.report.arena_contents import read_arena
from octoscale.report.contents import RunContents
from octoscale.report.figures import paper
from octoscale.report.figures.arena import arena_figure
from octoscale.report.figures.of_run import FIGURES, SHOWS, Drawing, draw_figures, makers
from octoscale.report.figures.style import FORMATS, REPORT, Make, get_style
from octoscale.report.paper_contents import FIGURES as OF_PAPER
from octoscale.report.paper_contents import PaperContents
from octoscale.system.errors import UserError

#: The name of the one figure of a contest, and the stem of its files.
ARENA_FIGURE = "arena"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where the figures are, what became of each, and of those that could not be drawn what they need."""

    folder: Path
    drawing: Drawing
    needs: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """In which style and formats which figures are wanted, and where.

    formats: by default the style's own. only: names of figures; by default all. out: the folder, in which files of
    these names stay as they are unless `overwrite`; without one, those in the run's own folder are replaced.
    """

    style: str
    formats: Sequence[str] = ()
    only: Sequence[str] = ()
    out: Path | None = None
    overwrite: bool = False

    def check(self, figures: Sequence[str]) -> None:
        """UserError for an unknown style, format or figure."""
        get_style(self.style)
        _check("format", self.formats, FORMATS)
        _check("figure", self.only, figures)


def publish(contents: RunContents, request: Request, module: str | None = None) -> Published:
    """Draw the figures of a run. module: whose exponents are drawn.

    UserError for an unknown style, format, figure or module, for one that the run has no data for, and if there is
    nothing to draw; FileExistsError for a file that would be replaced.
    """
    request.check(tuple(FIGURES))
    there = makers(contents, module)
    needs = {name: figure.needs for name, figure in FIGURES.items() if name not in there}
    made = _wanted(contents.path, there, needs, request)
    if not made:
        raise UserError(f"{contents.path} has nothing to draw: {'; '.join(contents.missing or needs.values())}")
    if module is not None and "exponents" not in made:
        raise UserError("--module is for the figure exponents: add --only exponents")
    return _draw(made, contents.figures, SHOWS, needs, request)


def publish_paper(contents: PaperContents, request: Request) -> Published:
    """Draw the figures of the paper that a folder of `octoscale reproduce` holds. Errors as `publish`."""
    request.check(OF_PAPER)
    made = {name: dict(paper.makers(name, content)) for name, content in contents.figures.items()}
    needs = {name: _lacks(contents, name) for name in OF_PAPER if name not in made}
    shows = {name: str(content["title"]) for name, content in contents.figures.items()}
    return _draw(_wanted(contents.path, made, needs, request), contents.path / "figures", shows, needs, request)


def publish_arena(folder: Path, request: Request) -> Published:
    """Draw the figure of a contest that a folder of `octoscale arena` holds. Errors as `publish`."""
    request.check((ARENA_FIGURE,))
    content = read_arena(folder)
    made = {ARENA_FIGURE: {ARENA_FIGURE: partial(arena_figure, content)}}
    shows = {ARENA_FIGURE: str(content["title"])}
    return _draw(made, folder / "figures", shows, {}, request)


def _lacks(contents: PaperContents, name: str) -> str:
    """Why a reproduction has no such figure."""
    why = contents.left_out.get(name)
    return f"it {why}" if why else f"octoscale reproduce {name} --out {contents.path}"


_Made = Mapping[str, Mapping[str, Make]]


def _wanted(where: Path, made: _Made, needs: Mapping[str, str], request: Request) -> _Made:
    """The figures that were asked for. UserError for one that is not among them."""
    for name in request.only:
        if name in needs:
            raise UserError(f"{where} has nothing for {name}: {needs[name]}")
    return {name: stems for name, stems in made.items() if not request.only or name in request.only}


def _draw(
    made: _Made, figures: Path, shows: Mapping[str, str], needs: Mapping[str, str], request: Request
) -> Published:
    formats = tuple(request.formats) or get_style(request.style).formats
    folder = request.out or (figures if request.style == REPORT else figures / request.style)
    if request.out is not None and not request.overwrite:
        _check_new(made, folder, formats)
    drawing = draw_figures(made, folder, shows=shows, style=request.style, formats=formats)
    return Published(folder=folder, drawing=drawing, needs={} if request.only else dict(needs))


def _check(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"unknown {what} {name!r}: one of {', '.join(known)}")


def _check_new(made: _Made, folder: Path, formats: Sequence[str]) -> None:
    """FileExistsError if one of the files is there already."""
    files = [folder / f"{stem}.{format}" for stems in made.values() for stem in stems for format in formats]
    there = next((path for path in files if path.exists() or path.is_symlink()), None)
    if there is not None:
        raise FileExistsError(f"{there} is there already: choose another folder, or --overwrite")
