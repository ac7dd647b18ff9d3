"""Diagnosis of planted faults. Oracle: who planted them, tensor and step; of clean runs, that nothing is found."""

import pytest
from clean import CLEAN
from seeded import DOWN, FAULTS, GPT_IN, GPT_OUT, QUERY, VARIANTS, Expected, wrong_scale, zero_gradients

from octoscale import diagnose
from octoscale.report.diagnosis.finding import Finding
from octoscale.runs.scales import read_scales

#: Where growth began is told from noisy batches; everything else to the step.
TOLERANCE = {"outlier_growth": 3}


def names(finding: Finding, expected: Expected) -> bool:
    """Whether a finding names the fault: the rule, the tensor and the step."""
    tensor = (finding.rule, finding.module, finding.role) == (expected.rule, expected.module, expected.role)
    return tensor and abs((finding.step or 0) - expected.step) <= TOLERANCE.get(expected.rule, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_tensor_and_its_step(fault, tmp_path):
    expected = FAULTS[fault](tmp_path / "run")
    found = diagnose(tmp_path / "run")
    assert [finding for finding in found if names(finding, expected)], found
    first = found[0]
    assert (first.rule, first.module) == (expected.rule, expected.module)  # what follows from it comes after it
    assert first.remedy
    assert first.evidence


@pytest.mark.parametrize(("plant", "words"), VARIANTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_fault_elsewhere_later_or_smaller_is_named_too(plant, words, tmp_path):
    expected = plant(tmp_path / "run", **words)
    found = diagnose(tmp_path / "run")
    assert [finding for finding in found if names(finding, expected)], found


@pytest.mark.parametrize(
    ("module", "role", "of"),
    [
        (QUERY.format(1), "input", DOWN.format(0)),
        (GPT_IN.format(1), "weight", GPT_OUT.format(0)),
        (QUERY.format(0), "grad_output", DOWN.format(0)),
    ],
)
def test_a_wrong_scale_is_the_one_of_the_other_layer(module, role, of, tmp_path):
    """Oracle: the record of that layer in the first step."""
    wrong_scale(tmp_path / "run", module=module, role=role, of=of, step=2)
    (found,) = [each for each in diagnose(tmp_path / "run") if each.rule == "foreign_scale"]
    first = read_scales(tmp_path / "run").filter(module=of, role=role, step=0)
    assert found.numbers["scale_bias"] == first["scale_bias"][0]


@pytest.mark.parametrize("step", [0, 15])
def test_a_weight_that_is_frozen_is_not_stale(step, tmp_path):
    """From the beginning, or amid a training: its cast is used again, and nothing is wrong with it."""
    expected = zero_gradients(tmp_path / "run", how="frozen", step=step)
    (found,) = diagnose(tmp_path / "run")
    assert names(found, expected)
    assert found.severity == "note"


@pytest.mark.parametrize("kind", CLEAN)
def test_a_clean_run_raises_no_alarm(kind, tmp_path):
    assert diagnose(CLEAN[kind](tmp_path / "run")) == []
