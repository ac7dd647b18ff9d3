"""Columns for the browser. Oracle: a decoder of our own here, as the page's decode.js has to do it."""

import base64
import struct
import zlib

import numpy as np
import pytest

from octoscale.report.page.columns import pack, pack_logarithms, pack_shares

LETTERS = {"i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "f32": "f", "f64": "d"}


def unpack(column):
    data = zlib.decompress(base64.b64decode(column["data"]))
    letter = LETTERS[column["type"]]
    size = struct.calcsize(letter)
    if size == 2:
        half = len(data) // 2
        data = bytes(data[half * (i % 2) + i // 2] for i in range(len(data)))
    values = list(struct.unpack(f"<{len(data) // size}{letter}", data))
    row, bits = column.get("row"), 8 * size
    for i in range(len(values)) if row else ():
        if i % row:
            total = (values[i] + values[i - 1]) % 2**bits
            values[i] = total - 2**bits if letter.islower() and total >= 2 ** (bits - 1) else total
    return values


@pytest.mark.parametrize("kind", LETTERS)
@pytest.mark.parametrize("row", [0, 1, 5])
def test_what_is_packed_can_be_unpacked(kind, row):
    if kind in ("f32", "f64") and row > 1:
        return  # differences of floats would round
    low, high = {"i8": (-128, 127), "u8": (0, 255), "u16": (0, 65535)}.get(kind, (-32768, 32767))
    values = np.array([low, high, 0, low, high, 1, 2, 3, high, low])
    assert unpack(pack(values, kind, row)) == values.tolist()


def test_an_empty_column_is_one():
    assert unpack(pack(np.zeros(0), "f32", 0)) == []


def test_logarithms_are_within_1_1_percent_and_keep_what_is_special():
    values = np.array([1e-38, 0.3, 1.0, 448.0, 3e38, 0.0, np.inf, np.nan])
    codes = unpack(pack_logarithms(values, len(values)))
    assert codes[5:] == [-32000, 32767, -32768]
    decoded = [2 ** (code / 32) for code in codes[:5]]
    assert decoded == pytest.approx(values[:5].tolist(), rel=2 ** (1 / 64) - 1 + 1e-9)


def test_shares_keep_the_smallest_and_zero_apart():
    codes = unpack(pack_shares(np.array([0.0, 1.0, 0.5, 1e-12, 1e-30]), octave=8))
    assert codes == [0, 255, 247, 1, 1]
    fine = unpack(pack_shares(np.array([0.003]), octave=4))[0]
    assert 2 ** ((fine - 255) / 4) == pytest.approx(0.003, rel=0.1)
