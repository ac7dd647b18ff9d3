"""Tables that grow part by part: parquet files with a checksum inside, so that a damaged one is never read as numbers.

    part-000000.parquet, part-000001.parquet, ...       of one process, or of rank 0
    part-000000-rank3.parquet, ...                      of another rank

A part is an ordinary parquet file. Between its data and its footer, where readers follow offsets and see nothing, stand
a word and eight digits: the CRC-32 of all other bytes. Parts of older versions have none, and are read unchecked.
No path is a pattern here: polars would take `run[1]` for `run1`.
"""

import io
import re
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from octoscale.system.errors import UserError
from octoscale.system.inside import only_inside
from octoscale.system.whole_file import replacing

Schema = Mapping[str, pl.DataType | type[pl.DataType]]

#: The columns that say which rank wrote a row, and over which values a scale reaches.
RANK, GRANULARITY = "rank", "granularity"

#: What parts of older versions lack, and what is true of them: one rank, and one scale a tensor.
_LATER = {RANK: 0, GRANULARITY: "tensor", "scale_bias_high": None, "num_scales": None}

_WORD, _DIGITS = b"octoscale.crc32=", 8
_MAGIC, _TAIL = b"PAR1", 8  # a parquet file ends with the length of its footer, 4 bytes, and this

#: Threads of one process take turns: a number is taken when its part is there.
_NUMBERING = threading.Lock()

#: What polars raises for bytes that are no table; a panic is no Exception there.
_READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError, ValueError)


class DamagedPartError(UserError):
    """A part cannot be read, or not as what was written; the message names it."""


def list_parts(folder: Path) -> list[Path]:
    """The parts in a folder, by number, then by rank; files of other names are none."""
    return sorted((path for path in folder.glob("part-*.parquet") if _place(path) is not None), key=_order)


def write_part(folder: Path, table: pl.DataFrame, rank: int = 0) -> None:
    """Add a part, numbered after all of its rank; it is there whole or not at all. OSError if the disk is full."""
    with _NUMBERING:
        places = [_order(path) for path in list_parts(folder)]
        number = max((number for number, of_rank, _ in places if of_rank == rank), default=-1) + 1
        replace_part(folder / f"part-{number:06d}{f'-rank{rank}' if rank else ''}.parquet", table)


def replace_part(path: Path, table: pl.DataFrame) -> None:
    """Write a part, or write it anew."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(_sealed(buffer.getvalue()))


def read_part(path: Path, schema: Schema) -> pl.DataFrame:
    """The table in a part. DamagedPartError if the checksum or the columns are others, or it is no parquet file."""
    try:
        if not path.is_file():
            raise UserError("it is no file")  # but a pipe, say, which would never end
        data = path.read_bytes()
        _check(data)
        table = _completed(pl.read_parquet(io.BytesIO(data)), schema)
        if table.schema != pl.Schema(schema):
            raise UserError("its columns are not those of a part")
    except _READ_ERRORS as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DamagedPartError(f"{path} is damaged: {lines[0]}; delete it to go on without its rows") from error
    return table


def readable_parts(
    folder: Path, schema: Schema, within: Path | None = None, each: Callable[[pl.DataFrame], pl.DataFrame] | None = None
) -> tuple[list[pl.DataFrame], list[DamagedPartError]]:
    """The tables of all parts that can be read, in their order, and what is wrong with the others.

    within: a folder out of which no link is followed. each: what is kept of a table, before the next one is read.
    """
    tables: list[pl.DataFrame] = []
    parts, links = (list_parts(folder), []) if within is None else only_inside(list_parts(folder), within)
    damaged = [DamagedPartError(line) for line in links]
    for path in parts:
        try:
            table = read_part(path, schema)
        except DamagedPartError as error:  # noqa: PERF203  a part is thousands of rows
            damaged.append(error)
        else:
            tables.append(table if each is None else each(table))
    return tables, damaged


def _completed(table: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """A table of an older version with the columns that came later."""
    missing = [name for name in _LATER if name in schema and name not in table.columns]
    if not missing:
        return table
    table = table.with_columns(pl.lit(_LATER[name], dtype=schema[name]).alias(name) for name in missing)
    return table.select(list(schema)) if set(table.columns) == set(schema) else table


def _place(path: Path) -> tuple[int, int] | None:
    """Number and rank in the name of a part; None for another file."""
    found = re.fullmatch(r"part-([0-9]+)(?:-rank([0-9]+))?\.parquet", path.name)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def _order(path: Path) -> tuple[int, int, str]:
    return (*(_place(path) or (0, 0)), path.name)


def _sealed(data: bytes) -> bytes:
    """A parquet file with its checksum, before its footer."""
    start = len(data) - _TAIL - int.from_bytes(data[-_TAIL : -len(_MAGIC)], "little")
    return data[:start] + _WORD + b"%08x" % zlib.crc32(data) + data[start:]


def _check(data: bytes) -> None:
    """ValueError if the file is cut short, or has a checksum that its other bytes do not have."""
    if not data.endswith(_MAGIC):
        raise UserError("it is cut short, or no parquet file")
    start = data.rfind(_WORD)
    end = start + len(_WORD) + _DIGITS
    if start >= 0 and data[end - _DIGITS : end] != b"%08x" % zlib.crc32(data[end:], zlib.crc32(data[:start])):
        raise UserError("its bytes are not those that were written (checksum)")
