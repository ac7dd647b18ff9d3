"""Damage to files, as accidents and enemies do it; seeded, so that each can be made again."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from octoscale.runs.parts import replace_part
from octoscale.runs.scales import SCHEMA

#: Values that no reader expects.
HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 7, 10**30, -(10**30), 2**63, 2**31, 1e308, -0.5, 1e-320, float("nan"), float("inf")),
    *(
        "",
        "x",
        "\x1b[2J\x1b]0;owned\x07",
        "../../etc/passwd",
        "/dev/zero",
        "[red]x[/red]",
        "$\\frac$",
        "a\nb",
        "é" * 300,
    ),
    *([], {}, [1], [None], {"x": 1}, [[[[]]]], ["a", 1], {"": None}, "1", "-3", "1e9", "cscale:-1", "NaN"),
]


def tree_places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in a JSON value, but for the whole."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in items for found in ((*place, key), *tree_places(value, (*place, key)))]


def mutate_tree(content: Any, rng: random.Random) -> Any:
    """One value replaced, removed or repeated; or the whole."""
    places = tree_places(content)
    if not places or rng.random() < 0.03:
        return rng.choice(HOSTILE)
    *way, last = rng.choice(places)
    parent = content
    for key in way:
        parent = parent[key]
    kind = rng.randrange(6)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice([f"{last}x", "", "\x1b[2J", last.upper()])] = parent.pop(last)
    elif kind == 2 and isinstance(parent[last], int | float) and not isinstance(parent[last], bool):
        parent[last] = rng.choice([parent[last] * 2, -parent[last], parent[last] + 1, parent[last] * 10**12, 0])
    else:
        parent[last] = rng.choice(HOSTILE)
    return content


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(mutate_tree(json.loads(data), rng)).encode("utf-8", "surrogatepass")


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.rstrip(b"\n").split(b"\n")
    index = rng.randrange(len(lines))
    lines[index] = mutate_json(lines[index], rng)
    return b"\n".join(lines) + b"\n"


def mutate_header(data: bytes, rng: random.Random) -> bytes:
    """The JSON in front of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    header = mutate_json(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped bits, a cut, a hole, something between, nothing at all, twice the same."""
    changed, kind = bytearray(data), rng.randrange(8)
    place = rng.randrange(max(1, min(len(data), rng.choice([16, 512, len(data) or 1]))))
    if kind <= 2:
        for _ in range(rng.choice([1, 1, 1, 4, 64])):
            if changed:
                changed[(place + rng.randrange(64)) % len(changed)] ^= 1 << rng.randrange(8)
    elif kind == 3:
        del changed[place:]
    elif kind == 4:
        changed[place : place + rng.choice([1, 8, 100])] = b"\0" * rng.choice([0, 8, 100])
    elif kind == 5:
        changed[place:place] = rng.randbytes(rng.choice([1, 8, 100]))
    elif kind == 6:
        changed = bytearray()
    else:
        changed += data
    return bytes(changed)


def mutate_part(path: Path, rng: random.Random) -> None:
    """A parquet part that is whole, and holds other values or columns."""
    table = pl.read_parquet(path)
    column = rng.choice(list(SCHEMA))
    kind = rng.randrange(4)
    if kind == 0:
        table = table.drop(column)
    elif kind == 1:
        table = table.rename({column: rng.choice([f"{column}x", "\x1b[2J", ""])})
    elif kind == 2:
        table = table.with_columns(pl.lit(rng.choice([None, "x", 1, -1, 1.5, 2**40])).alias(column))
    else:
        values = table[column].to_list()
        extreme = [0, -1, 2**31 - 1, -(2**31)] if SCHEMA[column] == pl.Int32 else [0, -1, 2**62, -(2**62)]
        text, number = [None, "", "x", "\x1b[2J", "$\\frac$", "cscale:" + "9" * 5000], [None, -1.0, float("nan"), 3e38]
        lists: list[Any] = [None, [], [1], [2**32 - 1] * 256, [None] * 256]
        choice = {pl.String: text, pl.Float32: number}.get(SCHEMA[column], extreme)  # type: ignore[call-overload, arg-type]
        values[rng.randrange(len(values))] = rng.choice(lists if column == "exponents" else choice)
        table = table.with_columns(pl.Series(column, values, dtype=SCHEMA[column]))
    replace_part(path, table)


def put_no_file(path: Path, rng: random.Random) -> None:
    """In the place of a file: nothing, a folder, a pipe, a link to itself, to nowhere, to what never ends."""
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("nowhere")
    elif kind == 4:
        path.symlink_to("/dev/zero")


def damage(folder: Path, rng: random.Random) -> Path:
    """Damage one file of a folder; returns which."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    kind = rng.random()
    if kind < 0.12:
        put_no_file(path, rng)
    elif kind < 0.17:
        others = sorted(other for other in path.parent.iterdir() if other != path and other.is_file())
        if others:
            shutil.copy(rng.choice(others), path)
    elif kind < 0.22:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    elif kind < 0.7 and path.suffix == ".parquet":
        mutate_part(path, rng)
    else:
        meaningful: dict[str, Callable[[bytes, random.Random], bytes]] = {
            ".json": mutate_json,
            ".jsonl": mutate_lines,
            ".safetensors": mutate_header,
        }
        change = meaningful.get(path.suffix, mutate_bytes) if kind < 0.7 else mutate_bytes
        path.write_bytes(change(path.read_bytes(), rng))
    return path
