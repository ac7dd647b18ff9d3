"""A run under several scales a tensor goes through report, figures and diagnosis: no crash, and no false finding.

Oracle of the diagnosis: the same training under amax, of which it has nothing to say either.
"""

import polars as pl
import pytest
import torch
from models import tiny_llama, tokens
from written_runs import DOWN, frame, row, write_run

import octoscale
from octoscale.numerics.formats import ROLES, get_format
from octoscale.report.data.bands import bands_in_words, each_of, granularities_of, scales_in_words
from octoscale.report.data.training import bands_of_training
from octoscale.report.data.validation import Reach, reach
from octoscale.report.diagnosis.rules import ask
from octoscale.report.diagnosis.tensors import groups_of
from octoscale.report.figures.exponents import _between, _reach, _scales
from octoscale.report.page.cells import Cells
from octoscale.report.page.findings import found
from octoscale.report.run import load_run
from octoscale.runs.parts import replace_part
from octoscale.runs.scale_bias import scale_bias_by_layer


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
    code, out, err = run("report", folder)
    assert (code, err) == (0, "")
    assert (folder / "report.html").exists()
    assert f"{MIXED}: a scale for each group of 32 of a tensor; they lie" in out  # its weights are one block each
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
    assert _scales(rows) == f"scale_bias {low} to {high} over {rows['num_scales'].max()} rows"
    assert _between(rows) == ("by\nscale", reach(fmt, low).flushed)


BAND = {"granularity": "row", "scaling": "amax:row", "phase": "train", "num_scales": 4}


def band(low=4, high=9, **changes):
    """A row with four scales."""
    return row(scale_bias=low, scale_bias_high=high, **BAND | changes)


def test_scales_in_words():
    assert scales_in_words(4, 4, None, "tensor") == "scale_bias 4"
    assert scales_in_words(4, 9, 1024, "mx") == "scale_bias 4 to 9 over 1,024 groups of 32"
    assert scales_in_words(4, 4, 1, "block") == "scale_bias 4 over 1 block"
    assert each_of(["row", "block"]) == "each row or block"
    assert granularities_of(frame(band(granularity="block"), band(), row())) == ["row", "block"]


def test_how_far_scales_lie_apart_is_told_of_one_record():
    rows = frame(band(high=5), band(step=3, low=2), band(step=1, low=6, high=9), row(scale_bias=90))
    (told,) = bands_in_words(rows)
    assert told == (
        "amax:row: a scale for each row of a tensor; they lie 3 binades apart in the median record, 7 at most "
        "(model.layers.0.mlp.down_proj, its input, step 3)"
    )


def test_bands_of_a_step_hold_all_scales_of_it():
    rows = frame(band(), band(low=3, high=6), band(step=1), row(step=1, phase="train", scaling="amax:row"))
    assert bands_of_training(rows).rows() == [("input", "ffn_out", 0, 0, 3, 9), ("input", "ffn_out", 0, 1, 4, 9)]
    assert bands_of_training(frame(row(phase="train"))).is_empty()


def test_the_bars_of_the_figure_by_depth_reach_to_the_highest():
    assert scale_bias_by_layer(frame(band(), band(step=1, low=5, high=7))).row(0)[3:] == (4, 4, 9)


def test_the_figure_over_steps_says_what_its_bands_are(tmp_path):
    """And has none where a tensor has one scale."""
    for name, rows in (("rows", [band(), band(step=1)]), ("whole", [row(step=s, phase="train") for s in (0, 1)])):
        run = load_run(write_run(tmp_path / name, rows).path)
        figure = run.figure("scale_bias_steps")
        labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert ("lowest to highest scale" in labels) == (name == "rows")
        assert ("a scale for each row" in figure.note) == (name == "rows")
        assert ("a scale for each row" in run.figure("scale_bias").note) == (name == "rows")


def test_a_cell_knows_the_highest_scale_and_how_many_there_are():
    cells = Cells()
    cells.add(frame(band(), band(low=2, high=3, num_scales=8), row(module="other")))
    found = cells.table.select("bias_low", "bias_high", "top", "scales_low", "scales_high").rows()
    assert found == [(2, 4, 9, 4, 8), (4, 4, 4, None, None)]
    assert cells.tensors["granularity"].to_list() == ["row", "tensor"]


@pytest.mark.parametrize(("scaling", "alarms"), [("amax:mx", 0), ("amax:mx,round=up", 1), ("mine", 1)])
def test_what_mx_clamps_as_it_rounds_down_is_a_note_and_no_alarm(scaling, alarms):
    cells = Cells()
    cells.add(frame(band(scaling=scaling, granularity="mx", saturated=1)))
    told = found(cells)
    assert sum(each["severity"] == "warning" for each in told) == alarms
    assert sum("MX rounds scales down" in each["words"] for each in told) == 1 - alarms


def judged(*rows):
    """What all rules find in some rows of one group."""
    (group,) = groups_of(frame(*rows), [], [], {})
    return ask(group)


def test_a_group_of_tiny_values_is_at_the_clamp_and_the_tensor_is_not():
    """amax 320 gives 0 to e4m3fn."""
    tiny = [band(step=step, low=0, high=126, amax=320.0) for step in range(4)]
    assert judged(*tiny) == []
    low = [band(step=step, low=126, high=126, amax=2.0**-130) for step in range(4)]
    assert "scale_at_clamp" in {each.rule for each in judged(*low)}


def test_a_layer_of_another_granularity_is_named():
    rows = [band(step=step, layer=layer, amax=20.0) for step in range(3) for layer in range(3)]
    assert judged(*rows) == []
    (odd,) = judged(*rows, *(band(step=step, layer=3, granularity="mx", amax=20.0) for step in range(3)))
    assert (odd.rule, odd.module) == ("foreign_scale", DOWN.format(3))
    assert odd.evidence.startswith("there is a scale for each group of 32, but amax:row gives one to each row;")


def test_groups_that_are_clamped_below_the_largest_value_are_found():
    (found_,) = judged(band(amax=20.0, saturated=3))
    assert found_.rule == "saturates"
    assert found_.evidence.startswith("scale_bias 4 to 9 over 4 rows clamps 3 of 100 values, though not the largest,")


@pytest.mark.parametrize(("high", "rules"), [(9, set()), (8, {"ranks_disagree"})])
def test_ranks_that_agree_in_the_lowest_scale_alone_disagree(high, rules):
    rows = [band(role="weight", amax=20.0), band(role="weight", amax=20.0, high=high, rank=1)]
    assert {each.rule for each in judged(*rows)} == rules


def test_a_wasted_margin_names_a_scaling_of_the_same_granularity():
    rows = [band(step=step, scaling="amax:row,margin=6", low=-2, high=3, amax=20.0) for step in range(3)]
    (wasted,) = judged(*rows)
    assert (wasted.rule, wasted.remedy) == ("margin_wasted", "--scaling amax:row")
