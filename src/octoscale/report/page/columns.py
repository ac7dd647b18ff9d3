"""Numbers for the browser: little-endian typed arrays, deflated, in base64; assets/decode.js is the other half.

    pack(values, "i16")       {"type": "i16", "data": "eJx..."}

Values of neighbouring steps are alike. A column may be stored as differences along its rows (`row`: how long they are),
and 16-bit numbers go byte plane by byte plane, first all low bytes, then all high ones: so they deflate to a third.
"""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The names of the types in the page -> numpy's.
TYPES = {"i8": "<i1", "u8": "<u1", "i16": "<i2", "u16": "<u2", "i32": "<i4", "f32": "<f4", "f64": "<f8"}

#: Logarithms of amax are stored as whole numbers: how many steps an octave has.
AMAX_STEPS = 32

#: In a column of such logarithms, the codes of a value that is not there, of 0, and of infinity.
ABSENT, ZERO, INFINITE = -(2**15), -32_000, 2**15 - 1


def pack(values: NDArray[Any], kind: str, row: int = 0) -> dict[str, Any]:
    """A column as JSON holds it. row: store differences to the value before, beginning anew each `row` values.

    A number beyond float32 becomes infinity in one of those.
    """
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(values, dtype=TYPES[kind]).reshape(-1)
    if row > 1:
        array = _differences(array, row)
    data = array.view(np.uint8)
    if array.itemsize == 2:
        data = np.ascontiguousarray(data.reshape(-1, 2).T)
    packed = base64.b64encode(zlib.compress(data.tobytes(), 9)).decode("ascii")
    return {"type": kind, "length": int(array.size), "data": packed} | ({"row": row} if row > 1 else {})


def pack_logarithms(values: NDArray[Any], row: int = 0) -> dict[str, Any]:
    """Numbers from 0 up, to a relative precision of 1.1 %: log2 in steps of 1/32. NaN: there is none."""
    logarithms = np.log2(values, where=np.isfinite(values) & (values > 0), out=np.zeros(values.shape))
    codes = np.round(AMAX_STEPS * logarithms)
    for special, code in ((values == 0, ZERO), (np.isposinf(values), INFINITE), (np.isnan(values), ABSENT)):
        codes = np.where(special, code, codes)
    return pack(codes, "i16", row) | {"octave": AMAX_STEPS}


def pack_shares(values: NDArray[Any], octave: int, row: int = 0) -> dict[str, Any]:
    """Shares from 0 to 1: 0 for none, else 255 + octave * log2, at least 1. octave: steps between x and 2 x."""
    logarithms = np.log2(values, where=values > 0, out=np.zeros(np.shape(values)))
    codes = np.where(values > 0, np.clip(255 + np.round(octave * logarithms), 1, 255), 0)
    return pack(codes, "u8", row) | {"octave": octave}


def _differences(array: NDArray[Any], row: int) -> NDArray[Any]:
    """Each value less the one before it in its row, in the numbers of its own type, where 255 + 1 is 0."""
    rows = array.reshape(-1, row)
    whole = rows.view(f"<u{array.itemsize}")
    first = whole[:, :1]
    return np.ascontiguousarray(np.concatenate([first, whole[:, 1:] - whole[:, :-1]], axis=1)).reshape(-1)
