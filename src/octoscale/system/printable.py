"""Text from files, as a terminal may show it: a control character stands as its escape, and does nothing.

Names of tensors and files, error messages and what a model writes come from strangers; escape sequences in them could
clear the screen, set its title or hide a line. JSON output is no such text: it escapes what it must, and stays exact.
"""

import re

#: C0 but tab and newline, DEL, C1; marks that reorder a line; halves of characters, from names that are no UTF-8.
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with each control character, but newline and tab, written as in a Python string: x1b for escape."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str, longest: int = 0) -> str:
    """A name as a part of a line: whatever is not seen stands as its escape, line ends and marks of direction too.

    longest: characters, from which on the middle is left out; 0 for all.
    """
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return shown if not 0 < longest < len(shown) else f"{shown[: longest // 2]}...{shown[-longest // 2 :]}"


def first_line(error: BaseException) -> str:
    """What an error says in one printable line; its class where it says nothing."""
    lines = str(error).strip().splitlines() or [""]
    return printable(lines[0]) or type(error).__name__
