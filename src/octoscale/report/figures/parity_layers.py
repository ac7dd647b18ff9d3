"""The figure of a parity by depth: the error of sums in each layer, beside that of the casts to FP8.

At 100 % the sums of a tensor core would cost as much as FP8 itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from octoscale.conversion.kinds import KINDS
from octoscale.numerics.formats import RESULTS
from octoscale.report.figures.parts import add_legend, decimal, integers, join, with_note
from octoscale.report.figures.style import KIND_STYLES, REPORT, StyledFigure, get_style, styled
from octoscale.report.figures.words import shown
from octoscale.report.parity_contents import FLOAT32, MOST_WAYS

#: What the figure needs of parity.json.
FIELDS = {"layers"}

#: Panels beside each other.
_COLUMNS = 3


def drawn_layers(parity: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The layers of a stack with their outputs' errors, but for those of float32's sums; all that the figure has."""
    rows = [row for row in parity["layers"] if row["layer"] is not None and row["result"] == RESULTS[0]]
    rows = [row | {"of_casts": {name: x for name, x in row["of_casts"].items() if name != FLOAT32}} for row in rows]
    return [row for row in rows if any(row["of_casts"].values())]


@styled
def parity_layers_figure(parity: Mapping[str, Any], *, style: str = REPORT, note: str = "") -> StyledFigure:
    """A panel a way of summing, a mark a layer; in % of the casts' error, on a logarithmic axis.

    parity: as parity.json has it, with one of `drawn_layers` at least. Layers whose sums have no error are left out.
    """
    layers = drawn_layers(parity)
    names = [name for name in dict.fromkeys(x for row in layers for x in row["of_casts"]) if _has_errors(layers, name)]
    names = names[:MOST_WAYS]
    columns = min(_COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = get_style(style).figure(0.9 + 2.0 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for name, axes in zip(names, panels.flat, strict=False):
        _draw(axes, layers, name)
        axes.set_title(shown(name, 0.9 * figure.get_figwidth() / columns, figure.style.text))
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("of the casts' error, %")
    for axes in panels.flat[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_tick_params(labelbottom=True)
    handles = {
        label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    add_legend(figure, [*handles.values()], [*handles], len(KINDS))
    return with_note(figure, join("marks: the outputs of a layer, root of the mean square", note))


def _has_errors(layers: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(row["of_casts"].get(name) for row in layers)


def _draw(axes: Axes, layers: Sequence[Mapping[str, Any]], name: str) -> None:
    for kind in KINDS:
        there = [row for row in layers if row["kind"] == kind and row["of_casts"].get(name)]
        if there:
            look = KIND_STYLES[kind]
            x, y = [row["layer"] for row in there], [100 * row["of_casts"][name] for row in there]
            axes.plot(x, y, color=look.color, marker=look.marker, linestyle="none", label=look.label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(decimal)
    axes.xaxis.set_major_locator(integers())
    axes.grid(axis="y")
