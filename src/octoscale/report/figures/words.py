"""Words in figures: a name is shown as text, whatever is in it, and cut to a length that fits.

Names of runs, models, modules and scalings come from files. Between two dollars matplotlib would see a formula; some of
its versions leave a label out that begins with an underscore. A character that the font lacks would be an empty box,
and a warning; a control character, a mark that reorders a line, or a line break would show something else than the
name. Each of those stands as its escape, as in a Python string. How wide a text is, its font says: the one of the style
that is being drawn in.
"""

from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font

from octoscale.system.printable import printable

#: Points in an inch.
POINTS = 72

#: A longer name is cut to this before it is measured, in characters.
_LONGEST = 400

#: What is cut is cut to this part of the width: letters on whole pixels make a line wider than the font says.
_HINTED = 0.94

_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def shown(name: str, inches: float | None = None, size: float = 1.0) -> str:
    """A name as matplotlib takes it: one line of characters that print, cut in its middle to a width in inches.

    size: of the font, in points.
    """
    text = _one_line(name if len(name) <= _LONGEST else _without_middle(name, _LONGEST))
    if inches is not None:
        text = _cut(text, inches * POINTS / size)
    return _no_markup(text)


def wrapped(text: str, inches: float, size: float, at_most: int = 3) -> str:
    """A text of several words in as many lines as it needs, the last of `at_most` cut; each line is as in `shown`."""
    width = inches * POINTS / size
    lines: list[str] = []
    for word in _one_line(text).split(" "):
        word = _cut(word, width)
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > at_most:
        lines = [*lines[: at_most - 1], _cut_off(lines[at_most - 1], width)]
    return "\n".join(map(_no_markup, lines))


def width_of(text: str, size: float) -> float:
    """How wide a line is, in inches, if matplotlib sets it in the style's font at a size in points."""
    return _width(text.replace(r"\$", "$")) * size / POINTS


def fitting_size(text: str, inches: float, size: float) -> float:
    """The size of letters, in points, at which a line is no wider than this; at most `size`."""
    return min(size, size * inches / width_of(text, size))


def _one_line(text: str) -> str:
    text = printable(text).replace("\n", r"\n").replace("\t", r"\t")
    if text.isascii():
        return text
    known = _known_characters(_font())
    return "".join(letter if _is_shown(letter, known) else _escape(letter) for letter in text)


def _is_shown(letter: str, known: frozenset[int]) -> bool:
    """Whether a reader sees a character: the font has it, and it is no mark that is invisible."""
    return letter.isprintable() and ord(letter) in known


def _escape(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()


def _no_markup(text: str) -> str:
    """No formula, and no underscore in front."""
    return (" " * text.startswith("_") + text).replace("$", r"\$")


def _cut(text: str, width: float) -> str:
    """The text, or as much of its two ends as fits; widths are in multiples of the font's size."""
    if _width(text) <= width:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if _width(_without_middle(text, middle)) <= _HINTED * width:
            fits = middle
        else:
            too_long = middle
    return _without_middle(text, max(fits, 1))


def _cut_off(line: str, width: float) -> str:
    """As much of a line's beginning as fits beside an ellipsis, which says that more would follow."""
    while line and _width(f"{line} {_ELLIPSIS}") > width:
        line = line[:-1]
    return f"{line} {_ELLIPSIS}"


def _without_middle(text: str, length: int) -> str:
    """So many characters of a longer text: its beginning, an ellipsis, its end."""
    tail = (length - 1) // 2
    return text[: length - 1 - tail] + _ELLIPSIS + text[len(text) - tail :]


def _width(text: str) -> float:
    """The sum of the characters' widths, in multiples of the font's size."""
    font = _font()
    return sum(_advance(font, letter) for letter in text)


def _font() -> str:
    """The file of the font that is in use."""
    return str(findfont(FontProperties()))


@cache
def _known_characters(path: str) -> frozenset[int]:
    return frozenset(get_font(path).get_charmap())


@cache
def _advance(path: str, letter: str) -> float:
    font = get_font(path)
    font.set_size(100, POINTS)
    return float(font.load_char(ord(letter)).linearHoriAdvance) / 65536 / 100
