"""How our figures look: the styles, as data; a figure that is drawn in one; colors, lines and names of kinds and roles.

    report      beside the tables of `octoscale report`, and in docs/: the width of a page, sans serif
    paper       for a two-column paper: a column's or a page's width, 8 points, with the words below it in its caption
    slides      one 16:9 picture each, to be read from the last row

In all of them no two lines are alike in grey print, and colors are those that every reader can tell apart. A style is a
row of STYLES; nothing else states the width of a figure or the size of its letters.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

from matplotlib import style as matplotlib_style
from matplotlib.figure import Figure

from octoscale.conversion.kinds import KINDS
from octoscale.system.errors import UserError
from octoscale.system.whole_file import replacing

P = ParamSpec("P")

#: Makes a figure in the style that its keyword `style` names.
Make = Callable[..., "StyledFigure"]

LineStyle = Literal["-", "--", "-.", ":"]

ROLE_LABELS = {"weight": "weights", "input": "activations", "grad_output": "gradients"}


@dataclass(frozen=True, kw_only=True)
class KindStyle:
    """How a kind of layer is called, after the paper's plots, and drawn: no two alike in grey print."""

    label: str
    color: str
    marker: str
    line: LineStyle


#: Colors of Okabe and Ito, which all readers can tell apart.
BLACK, BLUE, VERMILION, GREEN = "#000000", "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"

KIND_STYLES: dict[str, KindStyle] = dict(
    zip(
        KINDS,
        (
            KindStyle(label="attn qkv", color=BLUE, marker="o", line="-"),
            KindStyle(label="attn out", color=VERMILION, marker="s", line="--"),
            KindStyle(label="ff intermediate", color=GREEN, marker="^", line="-."),
            KindStyle(label="ff output", color=PURPLE, marker="D", line=":"),
            KindStyle(label="other", color=BLACK, marker="v", line="-"),
        ),
        strict=True,
    )
)
#: Lines that are told apart without a kind: layers over steps, runs over each other.
LOOKS: tuple[KindStyle, ...] = (
    KindStyle(label="", color=BLACK, marker="o", line="-"),
    KindStyle(label="", color=BLUE, marker="s", line="--"),
    KindStyle(label="", color=VERMILION, marker="^", line="-."),
    KindStyle(label="", color=GREEN, marker="D", line=":"),
    KindStyle(label="", color=PURPLE, marker="v", line="-"),
    KindStyle(label="", color=ORANGE, marker="x", line="--"),
    KindStyle(label="", color=SKY, marker="+", line="-."),
)
CURVE, SHADE = BLUE, "0.91"
LINE_STYLES = ((BLACK, "--"), (VERMILION, "-"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, (0, (5, 1, 1, 1))))
#: A cell without a number.
HATCHED: dict[str, Any] = {"hatch": "////", "facecolor": "none", "edgecolor": "0.6", "linewidth": 0}


@dataclass(frozen=True, kw_only=True)
class Style:
    """Sizes are in inches, letters in points.

    page, column: the width of a figure of panels beside each other, and of one that needs less. height: of every
    figure; None: as its content asks, up to `tallest`. flatter: how many times as high as in a report a figure of the
    page's width is, and one of a column's. small, tiny: letters of what stands in a panel, and below the axes.
    stroke: how many times as thick lines are as in a report. notes: whether the words below the axes are in the
    picture; else they are for its caption. formats: the files that are written unless others are asked for.
    """

    name: str
    page: float
    column: float
    height: float | None = None
    tallest: float
    text: float
    small: float
    tiny: float
    stroke: float = 1.0
    flatter: tuple[float, float] = (1.0, 1.0)
    notes: bool = True
    formats: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Matplotlib with the settings of this style and its own defaults, whatever the user's are."""
        strokes = {name: width * self.stroke for name, width in _STROKES.items()}
        own = {**_EVERYWHERE, **strokes, "font.size": self.text, **self.settings}
        with matplotlib_style.context(own, after_reset=True):
            yield

    def figure(self, height: float, *, wide: bool = True) -> "StyledFigure":
        """An empty figure; the height is that of a report's, in inches."""
        width, flatter = (self.page, self.flatter[0]) if wide else (self.column, self.flatter[1])
        return StyledFigure(self, (width, self.height or min(height * flatter, self.tallest)))


#: Widths of lines and sizes of marks, in points, of a report.
_STROKES = {
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "lines.markeredgewidth": 1.0,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
}
_EVERYWHERE: dict[str, Any] = {
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "octoscale",
}
#: Letters as outlines in SVG, and as TrueType in PDF: they look the same wherever they are shown.
_EMBEDDED: dict[str, Any] = {"pdf.fonttype": 42, "svg.fonttype": "path"}

REPORT, PAPER, SLIDES = "report", "paper", "slides"

STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style(
            name=REPORT,
            page=7.2,
            column=7.2,
            tallest=100.0,
            text=8.5,
            small=7.5,
            tiny=7,
            formats=("png", "svg"),
            settings={"axes.titlesize": 9, "svg.fonttype": "none", "savefig.dpi": 200},
        ),
        Style(
            name=PAPER,
            page=6.9,
            column=3.3,
            tallest=9.0,
            text=8,
            small=7,
            tiny=7,
            stroke=0.8,
            flatter=(0.8, 0.7),
            notes=False,
            formats=("pdf", "svg", "png"),
            settings={
                **_EMBEDDED,
                "axes.titlesize": 8,
                "font.family": "STIXGeneral",
                "mathtext.fontset": "stix",
                "savefig.dpi": 300,
            },
        ),
        Style(
            name=SLIDES,
            page=13.333,
            column=13.333,
            height=7.5,
            tallest=7.5,
            text=18,
            small=15,
            tiny=13,
            stroke=2.0,
            formats=("png", "svg", "pdf"),
            settings={
                **_EMBEDDED,
                "axes.titlesize": 18,
                "figure.constrained_layout.h_pad": 0.1,
                "savefig.dpi": 144,
            },
        ),
    )
}
FORMATS = ("pdf", "svg", "png")

#: What a file says about who made it when: nothing, so that the same run draws the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class StyledFigure(Figure):
    """A figure that keeps its style, whatever the settings are when it is saved; a notebook shows it as it is.

    style: what it was drawn in. note: the words below its axes, whether they are in the picture or for its caption.
    """

    def __init__(self, style: Style, size: tuple[float, float]) -> None:
        super().__init__(figsize=size)
        self.style, self.note = style, ""

    def savefig(self, *args: Any, **options: Any) -> None:
        """As matplotlib's, in the style of the figure."""
        with self.style.applied():
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        """What IPython shows."""
        picture = io.BytesIO()
        self.savefig(picture, format="png", metadata=_METADATA["png"])
        return picture.getvalue()


def get_style(name: str) -> Style:
    """A style by its name. UserError for an unknown one."""
    if name not in STYLES:
        raise UserError(f"unknown style {name!r}: one of {', '.join(STYLES)}")
    return STYLES[name]


def styled(make: Callable[P, StyledFigure]) -> Callable[P, StyledFigure]:
    """A function that makes a figure, under the settings of the style that its keyword `style` names."""

    @wraps(make)
    def made(*args: P.args, **options: P.kwargs) -> StyledFigure:
        with get_style(str(options.get("style", REPORT))).applied():
            return make(*args, **options)

    return made


def save(figure: StyledFigure, folder: Path, stem: str, formats: Sequence[str] = ()) -> list[Path]:
    """Write the picture in the formats, or in those of its style; returns the paths."""
    paths = []
    for format in formats or figure.style.formats:
        with replacing(folder / f"{stem}.{format}") as temporary:
            figure.savefig(temporary, format=format, metadata=_METADATA[format])
        paths.append(folder / f"{stem}.{format}")
    return paths
