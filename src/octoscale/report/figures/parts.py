"""What figures share besides their style: ticks, the legend, names of axes, and the words below."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from octoscale.report.figures.style import StyledFigure
from octoscale.report.figures.words import POINTS, shown, width_of, wrapped


def integers(at_most: int = 9) -> MaxNLocator:
    """Ticks at integers only, be it a single one."""
    return MaxNLocator(at_most, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def decimal(value: float, _: float) -> str:
    """100, 1, 0.00001: never with an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def with_note(figure: StyledFigure, note: str) -> StyledFigure:
    """The figure with words below its axes: small print in the picture, or for the caption, as its style has it."""
    figure.note = note
    if note and figure.style.notes:
        size, width = figure.style.tiny, 0.97 * figure.get_figwidth()
        figure.supxlabel(wrapped(note, width, size), x=0.01, ha="left", fontsize=size, color="0.35")
    return figure


def add_legend(figure: StyledFigure, handles: Sequence[Artist], labels: Sequence[str], columns: int) -> None:
    """A legend above the axes, in as many columns as fit, and at most so many; labels are cut if need be."""
    if not handles:
        return
    size, width = figure.style.text, 0.98 * figure.get_figwidth()  # hinting makes letters a little wider
    em = size / POINTS
    labels = [shown(label, width - 5 * em, size) for label in labels]
    while columns > 1 and _legend_width(labels, columns, size) > width:
        columns -= 1
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def label_rows(figure: StyledFigure, panels: Sequence[Axes], label: str, shares: Sequence[float]) -> None:
    """Name the vertical axis of panels that stand on each other: each, or all together where one is too low for it.

    shares: how the height is divided among them.
    """
    em = figure.style.text / POINTS
    room = (figure.get_figheight() - em * (5 + 2.5 * len(panels))) * min(shares) / sum(shares)
    if max(width_of(line, figure.style.text) for line in label.split("\n")) > room:
        figure.supylabel(label.replace("\n", " "), fontsize=figure.style.text)
        return
    for axes in panels:
        axes.set_ylabel(label)


def _legend_width(labels: Sequence[str], columns: int, size: float) -> float:
    """In inches: each column is as wide as its longest label with its handle; matplotlib's own spaces, in ems."""
    least, rest = divmod(len(labels), columns)
    widths = [width_of(label, size) for label in labels]
    longest = 0.0
    for number in range(columns):
        column, widths = widths[: least + (number < rest)], widths[least + (number < rest) :]
        longest += max(column, default=0.0)
    return longest + size / POINTS * (2.8 * columns + 2.0 * (columns - 1) + 1.0)


def join(what: str, note: str) -> str:
    """Two parts of the words below a figure."""
    return f"{what}; {note}" if note else what
