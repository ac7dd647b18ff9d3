"""Parts with a checksum. Oracles: the table that was written; polars and pyarrow, which know of no checksum."""

import random
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn
from written_runs import frame, row

from octoscale import Recipe, convert, read_scales, record
from octoscale.runs.parts import DamagedPartError, list_parts, read_part, readable_parts, replace_part, write_part
from octoscale.runs.scales import SCHEMA, drop_scales, read_readable_scales

COLUMNS = {"step": pl.Int64, "module": pl.String, "amax": pl.Float32, "exponents": pl.List(pl.UInt32)}


def table(seed: int = 0, rows: int = 50) -> pl.DataFrame:
    draw = random.Random(seed)
    columns = {
        "step": [draw.randrange(1000) for _ in range(rows)],
        "module": [f"layers.{draw.randrange(30)}" for _ in range(rows)],
        "amax": [draw.random() for _ in range(rows)],
        "exponents": [None if draw.random() < 0.5 else [draw.randrange(9) for _ in range(4)] for _ in range(rows)],
    }
    return pl.DataFrame(columns, schema=COLUMNS)


def test_parts_come_back_in_their_order(tmp_path):
    tables = [table(seed) for seed in range(12)]
    for part in tables:
        write_part(tmp_path, part)
    assert [path.name for path in list_parts(tmp_path)] == [f"part-{number:06d}.parquet" for number in range(12)]
    found, damaged = readable_parts(tmp_path, COLUMNS)
    assert damaged == []
    assert all(a.equals(b) for a, b in zip(found, tables, strict=True))


def test_the_order_is_that_of_numbers(tmp_path):
    """A million parts are one digit more."""
    for number in (1_000_000, 999_999):
        replace_part(tmp_path / f"part-{number:06d}.parquet", table(number))
    write_part(tmp_path, table(1))
    assert [int(path.stem[5:]) for path in list_parts(tmp_path)] == [999_999, 1_000_000, 1_000_001]


def test_an_empty_table_is_a_part(tmp_path):
    write_part(tmp_path, table(rows=0))
    assert read_part(tmp_path / "part-000000.parquet", COLUMNS).equals(table(rows=0))


def test_other_libraries_read_a_part(tmp_path):
    write_part(tmp_path, table())
    path = tmp_path / "part-000000.parquet"
    assert pl.read_parquet(path).equals(table())
    pyarrow = pytest.importorskip("pyarrow.parquet")
    assert pyarrow.read_table(path).to_pylist() == table().to_dicts()


def test_a_part_of_an_older_version_is_read(tmp_path):
    table().write_parquet(tmp_path / "part-000000.parquet")
    write_part(tmp_path, table(1))
    found, damaged = readable_parts(tmp_path, COLUMNS)
    assert [part.equals(table(seed)) for seed, part in enumerate(found)] == [True, True]
    assert damaged == []


def test_no_flipped_bit_is_read_as_another_number(tmp_path):
    """Oracle: what was written. A bit of the checksum's own word may go unseen; all else is named."""
    write_part(tmp_path, table())
    path = tmp_path / "part-000000.parquet"
    whole = path.read_bytes()
    seen = 0
    for bit in random.Random(0).sample(range(8 * len(whole)), 500):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found, damaged = readable_parts(tmp_path, COLUMNS)
        assert all(part.equals(table()) for part in found)
        assert all(str(error).startswith(f"{path} is damaged: ") for error in damaged)
        assert not any("\n" in str(error) for error in damaged)
        seen += len(damaged)
    assert seen > 480


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda whole: b"", "cut short"),
        (lambda whole: whole[:-1], "cut short"),
        (lambda whole: whole[: len(whole) // 2], "cut short"),
        (lambda whole: bytes(len(whole)), "cut short"),
        (lambda whole: b"PAR1", ""),
        (lambda whole: whole[:-8] + b"\xff\xff\xff\xffPAR1", "checksum"),
        (lambda whole: whole[:100] + whole[200:], "checksum"),
        (lambda whole: b"not parquet at all", "cut short"),
    ],
)
def test_what_is_no_part_is_named_and_the_others_are_read(tmp_path, damage, why):
    for seed in range(3):
        write_part(tmp_path, table(seed))
    path = tmp_path / "part-000001.parquet"
    path.write_bytes(damage(path.read_bytes()))
    found, damaged = readable_parts(tmp_path, COLUMNS)
    assert [part.equals(table(seed)) for part, seed in zip(found, (0, 2), strict=True)] == [True, True]
    (error,) = damaged
    assert str(error).startswith(f"{path} is damaged: ")
    assert why in str(error)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_part_without_a_checksum_is_no_crash(tmp_path, seed):
    """Of an older version: what polars makes of it, a panic too, is one error, or some table."""
    path = tmp_path / "part-000000.parquet"
    table().write_parquet(path)
    data, draw = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(20):
        data[draw.randrange(len(data) - 4)] = draw.randrange(256)
    path.write_bytes(data)
    readable_parts(tmp_path, COLUMNS)


def test_a_parquet_file_of_others_is_no_part(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "part-000000.parquet")
    with pytest.raises(DamagedPartError, match="its columns are not those of a part"):
        read_part(tmp_path / "part-000000.parquet", COLUMNS)


def test_files_of_other_names_are_no_parts(tmp_path):
    names = ("part-1 (copy).parquet", "part-x.parquet", "part-.parquet", ".part-000003.parquet.7.tmp", "part-²")
    for name in (*names, "part-000002.parquet"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_parts(tmp_path)] == ["part-000002.parquet"]


# Runs


PATTERNS = ("run[1]", "run*", "run?", "a{b,c}", "~run", "file:run", "100%", "hf:run", "[run", "**")


def recorded(folder: Path, bias: int) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5))
    convert(model, Recipe.cscale(bias))
    with record(model, folder):
        model(torch.ones(4, 6))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_path_is_no_pattern(tmp_path, monkeypatch, name):
    """Oracle: the constant scale that each run had; `run1` is what the patterns would find."""
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("run1", "ab", "run", name)):
        recorded(Path(folder), number)
    assert set(read_scales(name)["scale_bias"]) == {3}
    drop_scales(name, 0)
    with pytest.raises(FileNotFoundError, match="holds no scales"):
        read_scales(name)
    assert set(read_scales("run1")["scale_bias"]) == {0}


def test_a_run_with_a_damaged_part_says_so_and_gives_the_rest(tmp_path):
    for bias in (1, 2, 3):
        recorded(tmp_path / "run", bias)
    part = tmp_path / "run" / "scales" / "part-000001.parquet"
    data = bytearray(part.read_bytes())
    data[60] ^= 1
    part.write_bytes(data)
    with pytest.raises(DamagedPartError, match=r"part-000001\.parquet is damaged"):
        read_scales(tmp_path / "run")
    rows, damaged = read_readable_scales(tmp_path / "run")
    assert rows.schema == pl.Schema(SCHEMA)
    assert set(rows["scale_bias"]) == {1, 3}
    assert [str(part) in str(error) for error in damaged] == [True]


def test_a_run_of_damaged_parts_only_gives_an_empty_table(tmp_path):
    recorded(tmp_path / "run", 1)
    (tmp_path / "run" / "scales" / "part-000000.parquet").write_bytes(b"")
    rows, damaged = read_readable_scales(tmp_path / "run")
    assert (rows.height, rows.schema, len(damaged)) == (0, pl.Schema(SCHEMA), 1)


def test_each_rank_numbers_its_own_parts_and_all_are_read(tmp_path):
    for rank, step in ((0, 0), (1, 1), (1, 2), (0, 3)):
        write_part(tmp_path, frame(row(step=step, rank=rank)), rank)
    names = [path.name for path in list_parts(tmp_path)]
    assert names == [
        "part-000000.parquet",
        "part-000000-rank1.parquet",
        "part-000001.parquet",
        "part-000001-rank1.parquet",
    ]
    tables, damaged = readable_parts(tmp_path, SCHEMA)
    assert not damaged
    assert [table.select("step", "rank").row(0) for table in tables] == [(0, 0), (1, 1), (3, 0), (2, 1)]


def test_a_part_of_a_version_without_ranks_is_the_first_ones(tmp_path):
    replace_part(tmp_path / "part-000000.parquet", frame(row(step=5)).drop("rank"))
    ((table,), _) = readable_parts(tmp_path, SCHEMA)
    assert table.schema == pl.Schema(SCHEMA)
    assert table.select("step", "rank").rows() == [(5, 0)]
