"""A run under several scales a tensor goes through report, figures and diagnosis: no crash, and no false finding.

Oracle of the diagnosis: the same training under amax, of which it has nothing to say either.
"""

import polars as pl
import pytest
import torch
from models import tiny_llama, tokens

import octoscale
from octoscale.numerics.formats import ROLES, get_format
from octoscale.report.data.validation import Reach, reach
from octoscale.report.figures.exponents import _reach, _scales
from octoscale.runs.parts import replace_part


def trained(folder, text):
    """Three recorded steps of a tiny model."""
    model = tiny_llama().train()
    octoscale.convert(model, octoscale.parse_scaling(text))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with octoscale.record(model, folder, phase="train"):
        for _ in range(3):
            model(input_ids=tokens(), labels=tokens()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return folder


MIXED = "weight=amax:block,input=amax:mx,round=up"


def test_report_takes_such_a_run(run, tmp_path):
    folder = trained(tmp_path / "run", MIXED)
    code, _, err = run("report", folder)
    assert (code, err) == (0, "")
    assert (folder / "report.html").exists()
    assert any(path.name.startswith("exponents-") for path in (folder / "figures").iterdir())


@pytest.mark.parametrize("text", ["amax", "amax:row", MIXED, "amax:mx"])
def test_diagnosis_finds_no_fault_in_such_a_run(tmp_path, text):
    folder = trained(tmp_path / "run", text)
    named = {found.rule for found in octoscale.diagnose(folder)}
    assert not named
    rows = octoscale.read_scales(folder)
    recipe = octoscale.parse_scaling(text)
    assert {role: set(rows.filter(role=role)["granularity"]) for role in ROLES} == {
        role: {recipe.operand(role).rule.granularity} for role in ROLES
    }
    assert (rows["scale_bias_high"].is_null() == (rows["granularity"] == "tensor")).all()


def test_a_foreign_scale_is_found_among_several(tmp_path):
    """The record says amax:row, and one layer had a margin: its lowest scale is another than amax asks for."""
    folder = trained(tmp_path / "run", "amax:row")
    rows = octoscale.read_scales(folder)
    part = next((folder / "scales").iterdir())
    first = rows["module"][0]
    replace_part(part, rows.with_columns(scale_bias=pl.col("scale_bias") - (pl.col("module") == first) * 2))
    found = [finding for finding in octoscale.diagnose(folder) if finding.rule == "foreign_scale"]
    assert {finding.module for finding in found} == {first}


def test_the_picture_shows_what_is_held_under_any_scale(tmp_path):
    """Oracle: the reach of the highest scale below, of the lowest above."""
    rows = octoscale.read_scales(trained(tmp_path / "run", "amax:row")).filter(role="grad_output")
    rows = rows.filter(module=rows["module"][0])
    low, high = rows["scale_bias"].min(), rows["scale_bias_high"].max()
    assert low < high
    fmt = get_format("e5m2")
    expected = Reach(
        flushed=reach(fmt, high).flushed, normal=reach(fmt, high).normal, saturated=reach(fmt, low).saturated
    )
    assert _reach(rows) == expected
    assert _scales(rows) == f"scale_bias {low} to {high} (row)"
