"""How our figures look: colors, lines and names of kinds of layers and roles, sizes, small print, and saving."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from octoscale.conversion.kinds import KINDS
from octoscale.system.printable import printable
from octoscale.system.whole_file import replacing

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
KIND_STYLES: dict[str, KindStyle] = dict(
    zip(
        KINDS,
        (
            KindStyle(label="attn qkv", color="#0072B2", marker="o", line="-"),
            KindStyle(label="attn out", color="#D55E00", marker="s", line="--"),
            KindStyle(label="ff intermediate", color="#009E73", marker="^", line="-."),
            KindStyle(label="ff output", color="#CC79A7", marker="D", line=":"),
            KindStyle(label="other", color="#000000", marker="v", line="-"),
        ),
        strict=True,
    )
)
#: Lines that are told apart without a kind: layers over steps, runs over each other.
LOOKS: tuple[KindStyle, ...] = (
    KindStyle(label="", color="#000000", marker="o", line="-"),
    KindStyle(label="", color="#0072B2", marker="s", line="--"),
    KindStyle(label="", color="#D55E00", marker="^", line="-."),
    KindStyle(label="", color="#009E73", marker="D", line=":"),
    KindStyle(label="", color="#CC79A7", marker="v", line="-"),
    KindStyle(label="", color="#E69F00", marker="x", line="--"),
    KindStyle(label="", color="#56B4E9", marker="+", line="-."),
)
CURVE, SHADE = "#0072B2", "0.91"
LINE_STYLES = (("#000000", "--"), ("#D55E00", "-"), ("#009E73", "-."), ("#CC79A7", ":"), ("#E69F00", (0, (5, 1, 1, 1))))

STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "octoscale",
}
WIDTH = 7.2  # inches: the text width of a page
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def integers(at_most: int = 9) -> MaxNLocator:
    """Ticks at integers only, be it a single one."""
    return MaxNLocator(at_most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def decimal(value: float, _: float) -> str:
    """100, 1, 0.00001: never with an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def plain(text: str) -> str:
    """A name as a figure shows it: no formula between dollars, no control characters."""
    return printable(text).replace("$", r"\$")


def with_footer(figure: Figure, footer: str) -> Figure:
    """Small print below the axes."""
    if footer:
        figure.supxlabel(plain(footer), x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def join(what: str, footer: str) -> str:
    """Two parts of the small print."""
    return f"{what}; {footer}" if footer else what


def save(figure: Figure, folder: Path, stem: str) -> Path:
    """Write the picture in both formats; returns the PNG's path."""
    for suffix, metadata in METADATA.items():
        with replacing(folder / f"{stem}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, dpi=200, metadata=metadata)
    return folder / f"{stem}.png"
