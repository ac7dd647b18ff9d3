"""Rules over rows worked out by hand; folders of every state; hostile names. Oracle: what was written there."""

import json
import math
import shutil

import pytest
from asked_rules import found, note, of, steps
from written_runs import DOWN, frame, histogram, row, small_run, write_run

from octoscale import diagnose
from octoscale.report.diagnosis.rules import examine
from octoscale.report.diagnosis.words import told
from octoscale.runs.parts import replace_part
from octoscale.system.lock import exclusive_run, is_held
from octoscale.system.printable import one_line

HOSTILE = {
    "html": "<script>alert(1)</script>",
    "lines": "layers.0\nerror: all is well\r\n",
    "quotes": "\"'`$(reboot)",
    "right to left": "a\u202eb\u200fc\u061cd",
    "escapes": "\x1b[2J\x1b]0;title\x07",
    "markup": "[red]x[/red]:smile:",
    "long": "x" * 10_000,
}


def test_rows_that_are_as_they_should_be():
    """20 * 2**4 = 320 of 448."""
    assert found(*steps(5), *steps(5, layer=1)) == []


@pytest.mark.parametrize(
    ("bias", "scaling", "expected"),
    [(4, "amax", 0), (3, "amax", 1), (5, "amax", 1), (3, "amax:margin=1", 0), (4, "cscale:4", 0), (5, "cscale:4", 1)],
)
def test_a_scale_is_what_the_rule_makes_of_amax(bias, scaling, expected):
    """One tensor of three has it; 20 asks for 4."""
    usual = 3 if "margin" in scaling else 4
    rows = [*steps(4, scale_bias=usual), *steps(4, layer=1, scale_bias=usual), *steps(4, layer=2, scale_bias=bias)]
    findings = found(*(each | {"scaling": scaling} for each in rows))
    assert of("foreign_scale", findings) == [(DOWN.format(2), "input", 0)] * expected


def test_a_scaling_of_another_name_accuses_nobody():
    """All scales are others than amax gives: the label is wrong, not the scales."""
    assert of("foreign_scale", found(*steps(4, scale_bias=2), *steps(4, layer=1, scale_bias=1))) == []


def test_a_scale_at_the_clamp():
    amax = 2.0**-125
    rows = [row(step=step, scale_bias=126, amax=amax, scaling="amax") for step in range(4)]
    assert of("scale_at_clamp", found(*rows, *steps(4, layer=1))) == [(DOWN.format(0), "input", 0)]
    assert of("scale_at_clamp", found(*rows[:2], *steps(4, layer=0)[2:])) == []


@pytest.mark.parametrize(("margin", "expected"), [(5, []), (6, [(DOWN.format(0), "input", 0)])])
def test_a_margin_that_is_wasted(margin, expected):
    rows = [each | {"scaling": f"amax:margin={margin}", "scale_bias": 4 - margin} for each in steps(3)]
    assert of("margin_wasted", found(*rows)) == expected


@pytest.mark.parametrize(("amax", "expected"), [(3.9, 0), (4.1, 1)])
def test_a_constant_that_clips_by_two_binades(amax, expected):
    """Oracle: 448 is the largest value of e4m3fn; a constant 0 clips what is above it."""
    clipped = row(scaling="cscale:0", scale_bias=0, amax=448 * amax, saturated=1, numel=10_000)
    assert of("saturates", found(clipped)) == [(DOWN.format(0), "input", 0)] * expected


@pytest.mark.parametrize("role", ["weight", "input"])
def test_values_that_are_flushed_from_some_step_on(role):
    rows = [
        row(step=step, role=role, layer=layer, scaling="cscale:4", flushed=70 if layer and step >= 2 else 0)
        for layer in (0, 1)
        for step in range(6)
    ]
    assert of("flushes", found(*rows)) == [(DOWN.format(1), role, 2)]


def test_shares_are_of_the_values_that_are_not_zero():
    """70 of 100 values are zero to begin with; of the others 20 of 30 are flushed."""
    bins = histogram({-20: 20, 3: 10}, zeros=70)
    rows = [row(step=step, scaling="cscale:4", flushed=20, exponents=bins if step == 0 else None) for step in range(4)]
    assert of("flushes", found(*rows)) == [(DOWN.format(0), "input", 0)]


def test_the_first_tensor_that_is_not_finite_and_no_other():
    sick = {"amax": math.nan, "nonfinite": 1, "scale_bias": 0}
    rows = [*steps(2), row(step=2, role="weight", layer=1, **sick), row(step=2, layer=1, **sick)]
    findings = found(*rows)
    assert of("nonfinite", findings) == [(DOWN.format(1), "weight", 2)]
    json.dumps([each.to_json() for each in findings], allow_nan=False)


def test_a_search_for_a_loss_scale_is_no_fault():
    """Trainer's step 2 is the record's step 1; a scale that is halved follows an infinity in a loop of one's own."""
    grad = {"role": "grad_output", "format": "e5m2", "scale_bias": 11, "phase": "train"}
    rows = [row(step=step, **grad) for step in range(4)]
    rows[1] |= {"amax": math.inf, "nonfinite": 3, "scale_bias": 0}
    own = {"phase": "train", "scaling": "amax"}
    skipped = [{**own, "step": 2, "skipped": True}]
    halved = [{**own, "note": "loss_scale", "step": step, "value": 2.0 ** (16 - step // 2)} for step in (0, 2)]
    assert of("nonfinite", found(*rows)) == [(DOWN.format(0), "grad_output", 1)]
    assert of("nonfinite", found(*rows, metrics=skipped)) == []
    assert of("nonfinite", found(*rows, notes=halved)) == []


def test_a_loss_that_is_not_finite_without_a_tensor_that_is():
    lost = [{"phase": "train", "scaling": "amax", "step": 3, "loss": None}]
    rows = [each | {"phase": "train"} for each in steps(3)]
    assert of("nonfinite", found(*rows, metrics=lost)) == [(None, None, 2)]


def test_a_training_without_fp8_whose_loss_is_not_finite(tmp_path):
    made = write_run(tmp_path / "run")
    for step, loss in ((1, 2.0), (2, None)):
        made.append_metrics({"phase": "train", "scaling": "bf16", "step": step, "loss": loss})
    looked = examine(made.path)
    assert of("nonfinite", looked.findings) == [(None, None, 1)]
    assert looked.there == ["bf16 (train): 2 measurements, no row of a cast"]


def test_a_layer_that_is_missing_in_a_run_of_an_older_version():
    up = "model.layers.{}.mlp.up_proj"
    rows = [row(layer=layer) for layer in range(4)]
    rows += [row(layer=layer) | {"module": up.format(layer), "kind": "ffn_in"} for layer in (0, 1, 3)]
    assert of("never_ran", found(*rows)) == [(up.format(2), None, 0)]


def test_a_step_that_was_cut_short_says_nothing():
    rows = [*steps(5), *steps(4, layer=1)]
    assert of("never_ran", found(*rows)) == []
    assert of("never_ran", found(*rows, *(row(step=step, layer=0) for step in (5, 6)))) == [(DOWN.format(1), None, 4)]


def test_a_layer_that_was_never_called_is_told_from_a_first_step_that_was_cut_short():
    fp8 = [DOWN.format(layer) for layer in range(3)]
    assert of("never_ran", found(row(), row(layer=2), notes=[note(fp8=fp8)])) == [(DOWN.format(1), None, 0)]
    assert of("never_ran", found(row(), row(layer=1), notes=[note(fp8=fp8)])) == []
    assert of("never_ran", found(*steps(2), *steps(2, layer=1), notes=[note(fp8=fp8)])) == [(DOWN.format(2), None, 0)]


def test_no_gradient_reaches_a_layer_that_is_trained():
    fp8 = [DOWN.format(layer) for layer in range(3)]
    grads = steps(4, role="grad_output", format="e5m2", scale_bias=11, layer=2)
    rows = [*steps(4), *steps(4, layer=1), *steps(4, layer=2), *grads]
    frozen = [DOWN.format(0)]
    assert of("zero_gradients", found(*rows, notes=[note(fp8=fp8, frozen=frozen)])) == [
        (DOWN.format(1), "grad_output", 0)
    ]
    assert of("zero_gradients", found(*rows[::4], notes=[note(fp8=fp8, frozen=frozen)])) == []


def test_every_group_is_judged_by_itself():
    """A step more in one phase is no step less in the other."""
    rows = [*steps(6), *(each | {"phase": "train"} for each in steps(3)), *(each | {"layer": 1} for each in steps(0))]
    assert found(*rows) == []


# Folders.


def test_a_folder_without_a_run_is_an_error_of_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "holds nothing of a run"), ("nowhere", "is no folder")):
        code, out, err = run("diagnose", tmp_path / name)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


def test_what_is_there_and_what_is_missing(tmp_path):
    """A training that was killed before its first row; then with rows; then without its header."""
    made = write_run(tmp_path / "run")
    made.header.write_text(json.dumps({"octoscale_run": 1, "plan": {"steps": 100}}))
    killed = examine(made.path)
    assert killed.findings == []
    assert [line.partition(":")[0] for line in killed.missing] == ["scales", "summary.json"]
    replace_part(made.scales / "part-000000.parquet", frame(*steps(3)))
    assert [line.partition(":")[0] for line in examine(made.path).missing] == [
        "histograms",
        "notes.jsonl",
        "summary.json",
    ]
    made.header.unlink()
    headless = examine(made.path)
    assert headless.findings == []
    assert headless.missing[0].startswith("run.json")
    assert headless.there == ["amax (validate): 3 rows of 1 layer in 3 steps; input"]


def test_a_run_that_is_still_being_written(tmp_path):
    made = write_run(tmp_path / "run", small_run())
    assert not is_held(made.path)
    with exclusive_run(made.path):
        assert is_held(made.path)
        assert "still being written" in examine(made.path).missing[0]
    assert not is_held(made.path)


@pytest.mark.parametrize(
    "name", ["scales/part-000001.parquet", "metrics.jsonl", "notes.jsonl", "summary.json", "run.json"]
)
def test_a_broken_part_is_named_and_the_rest_is_judged(name, tmp_path):
    sick = row(step=3, role="weight", amax=math.inf, nonfinite=1, scale_bias=0)
    made = write_run(tmp_path / "run", [*steps(3), sick])
    (made.path / name).write_text("no JSON\n")
    damage, *rest = diagnose(made.path)
    assert (damage.rule, damage.severity) == ("damaged_records", "error")
    assert name in damage.evidence
    assert of("nonfinite", rest) == [(DOWN.format(0), "weight", 3)]


def test_a_line_that_a_crash_cut_short_is_no_damage(tmp_path):
    made = write_run(tmp_path / "run", steps(3))
    made.notes.write_text('{"note": "loss_scale", "pha')
    assert diagnose(made.path) == []


# Names.


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_is_one_line_of_text(name, run, tmp_path):
    sick = row(amax=math.nan, nonfinite=1, scale_bias=0) | {"module": name}
    write_run(tmp_path / "run", [sick])
    code, out, _ = run("diagnose", tmp_path / "run")
    assert code == 0
    assert all(char == "\n" or char.isprintable() for char in out)
    (line,) = [line for line in out.splitlines() if "since step 0" in line]
    assert one_line(name)[:60] in line
    assert json.loads(run("diagnose", tmp_path / "run", "--json")[1])["findings"][0]["module"] == name


def test_many_tensors_of_a_rule_are_told_in_few_lines(tmp_path):
    rows = [row(layer=layer, scaling="cscale:4", amax=1e4, saturated=9) for layer in range(40)]
    made = write_run(tmp_path / "run", rows)
    text = told(examine(made.path))
    assert len(of("saturates", diagnose(made.path))) == 40
    assert "and 35 more" in text
    assert len(text.splitlines()) < 25


def test_a_sweep_is_told_in_few_lines_after_what_was_found_under_other_scalings(tmp_path):
    """Fifteen constants that clip forty tensors each; one weight under amax; a constant alone is no sweep."""
    sweep = [
        row(layer=layer, scaling=f"cscale:{bias}", scale_bias=bias, amax=1e7, saturated=9)
        for bias in range(-8, 7)
        for layer in range(40)
    ]
    own = [row(layer=layer, role="weight", saturated=9, scaling="amax") for layer in range(40)]
    made = write_run(tmp_path / "run", [*sweep, *own])
    findings = diagnose(made.path)
    assert [each.scaling for each in findings[:40]] == ["amax"] * 40
    assert len(findings) == 40 * 16
    lines = told(examine(made.path)).splitlines()
    assert sum("since step 0" in line for line in lines) == 5 + 15
    assert sum("and 39 more" in line for line in lines) == 15
    assert sum("and 35 more" in line for line in lines) == 1
    assert max(place for place, line in enumerate(lines) if "; amax" in line) < min(
        place for place, line in enumerate(lines) if "; cscale" in line
    )


def test_the_public_function_takes_a_text(tmp_path, monkeypatch):
    write_run(tmp_path / "run", steps(3))
    monkeypatch.chdir(tmp_path)
    assert diagnose("run") == []
    shutil.rmtree("run")
    with pytest.raises(FileNotFoundError, match="run is no folder"):
        diagnose("run")
