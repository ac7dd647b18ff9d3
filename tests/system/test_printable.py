"""What reaches a terminal does nothing there. Oracle: Unicode's own categories of all characters."""

import sys
import unicodedata

from octoscale.system.printable import first_line, printable

#: Control, line and paragraph separators, surrogates.
ACTING = ("Cc", "Zl", "Zp", "Cs")
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def acts(character):
    return character not in "\n\t" and (
        unicodedata.category(character) in ACTING or unicodedata.bidirectional(character) in DIRECTIONS
    )


def test_every_character_that_acts_is_escaped_and_every_other_stays():
    for character in map(chr, range(sys.maxunicode + 1)):
        shown = printable(character)
        assert shown == (ascii(character)[1:-1] if acts(character) else character)
        assert not any(map(acts, shown))


def test_an_escape_sequence_is_shown_as_text():
    assert printable("\x1b[2J\x9b31mname\r\x07") == r"\x1b[2J\x9b31mname\r\x07"


def test_an_error_is_one_line_and_never_an_empty_one():
    assert first_line(ValueError("  a\x1b[2Jb\nsecond\n")) == r"a\x1b[2Jb"
    assert first_line(MemoryError()) == "MemoryError"
