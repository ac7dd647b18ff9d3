"""Rows of tensors with several scales: the lowest, the highest, how many. Oracle: by hand."""

import polars as pl
import pytest
import torch

from octoscale.kernels.ops import quantize
from octoscale.numerics.granularity import ROW, SQUARE, Granularity
from octoscale.numerics.scaling import Amax
from octoscale.runs.parts import write_part
from octoscale.runs.scales import SCHEMA, LayerName, Recorder, read_scales

NAME = LayerName(module="model.layers.0.mlp.down_proj", layer=0, kind="ffn_out")
BAND = ("granularity", "scale_bias", "scale_bias_high", "num_scales", "amax")


def recorded(tmp_path, x: torch.Tensor, granularity: Granularity | None, rule: Amax) -> tuple:
    recorder = Recorder(tmp_path / "run", scaling=str(rule))
    recorder.add(NAME, "weight", quantize(x, "e4m3fn", rule, granularity=granularity, counts=True, exponents=True))
    assert recorder.scalars()["scale_bias/weight/ffn_out"] == recorder._rows[-1].numbers[0]
    recorder.flush()
    return read_scales(tmp_path / "run").select(BAND).row(-1)


@pytest.mark.parametrize(
    ("rows", "band"),
    [
        ([[1.0, 0], [256, 3], [2.0**-10, 0]], ("row", 0, 18, 3, 256)),
        ([[1.0, 1], [2, 2]], ("row", 7, 8, 2, 2)),
        ([[0.0, 0], [2.0**-12, 0]], ("row", 20, 20, 2, 2.0**-12)),
        ([[0.0, 0], [0, 0]], ("row", 0, 0, 2, 0)),
        ([[float("inf"), 1], [16, 1]], ("row", 4, 4, 2, float("inf"))),
    ],
    ids=["three rows", "no gap", "a row of zeros has no say", "zeros alone", "nor has one with infinity"],
)
def test_a_row_of_several_scales_says_how_far_they_reach(tmp_path, rows, band):
    assert recorded(tmp_path, torch.tensor(rows), ROW, Amax(granularity="row")) == band


def test_one_scale_is_no_band(tmp_path):
    assert recorded(tmp_path, torch.tensor([[1.0, 0], [256, 3]]), None, Amax()) == ("tensor", 0, None, None, 256)


def test_blocks_are_counted_with_their_ends(tmp_path):
    x = torch.ones(130, 257)
    x[129, 256] = 64
    assert recorded(tmp_path, x, SQUARE, Amax(granularity="block")) == ("block", 2, 8, 6, 64)


def test_an_empty_tensor_has_no_scale(tmp_path):
    assert recorded(tmp_path, torch.ones(0, 4), ROW, Amax(granularity="row")) == ("row", 0, 0, 0, 0)


def test_rows_of_an_older_version_had_one_scale(tmp_path):
    """The columns are there, and the others as they were."""
    recorded(tmp_path, torch.tensor([[1.0, 0]]), None, Amax())
    new = read_scales(tmp_path / "run")
    old = new.drop("granularity", "scale_bias_high", "num_scales", "rank")
    (tmp_path / "old" / "scales").mkdir(parents=True)
    write_part(tmp_path / "old" / "scales", old)
    read = read_scales(tmp_path / "old")
    assert read.schema == pl.Schema(SCHEMA)
    assert read.equals(new)
