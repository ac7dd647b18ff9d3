"""The rules, and how a run is asked: each rule looks at each group of records, the worst findings come first."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from octoscale.report.contents import RunContents, read_run
from octoscale.report.data.bands import each_of, granularities_of
from octoscale.report.diagnosis.abridged import swept
from octoscale.report.diagnosis.clipping import flushes, saturates
from octoscale.report.diagnosis.finding import SEVERITIES, Finding, count
from octoscale.report.diagnosis.gradients import zero_gradients
from octoscale.report.diagnosis.growth import outlier_growth
from octoscale.report.diagnosis.layers import never_ran, not_fp8
from octoscale.report.diagnosis.loss_scale import loss_scale_twice
from octoscale.report.diagnosis.nonfinite import nonfinite
from octoscale.report.diagnosis.ranks import ranks_disagree
from octoscale.report.diagnosis.scales import delayed_lags, foreign_scale, margin_wasted, scale_at_clamp
from octoscale.report.diagnosis.tensors import Group, groups_of
from octoscale.report.diagnosis.twice import cast_twice
from octoscale.report.diagnosis.weights import frozen_weight, idle_weight, stale_weight
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import RANK, list_parts
from octoscale.system.errors import UserError
from octoscale.system.lock import is_held

Rule = Callable[[Group], Iterable[Finding]]

#: Name -> what finds it, and what it is, for a heading. In the order in which findings of one severity are told.
RULES: dict[str, tuple[Rule, str]] = {
    "nonfinite": (nonfinite, "infinity or NaN began here"),
    "stale_weight": (stale_weight, "FP8 codes of an older weight"),
    "foreign_scale": (foreign_scale, "a scale that is not the recipe's"),
    "loss_scale_twice": (loss_scale_twice, "the loss scale is not what it should be"),
    "ranks_disagree": (ranks_disagree, "ranks disagree"),
    "never_ran": (never_ran, "an FP8 layer did not run"),
    "cast_twice": (cast_twice, "cast twice"),
    "scale_at_clamp": (scale_at_clamp, "the scale is stuck at its limit"),
    "delayed_lags": (delayed_lags, "delayed scaling came late"),
    "outlier_growth": (outlier_growth, "an outlier grows"),
    "saturates": (saturates, "the scale is too high: values are clamped"),
    "flushes": (flushes, "small values become zero"),
    "zero_gradients": (zero_gradients, "no gradient"),
    "idle_weight": (idle_weight, "a weight that does not move"),
    "not_fp8": (not_fp8, "not in FP8, though its siblings are"),
    "frozen_weight": (frozen_weight, "not trained, though its siblings are"),
    "margin_wasted": (margin_wasted, "the format's range is not used"),
}

#: What no rule finds, but reading the run.
DAMAGED = "damaged_records"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found in a run, what of it there was to look at, and what is missing."""

    path: Path
    findings: list[Finding]
    there: list[str]
    missing: list[str]

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        findings = [finding.to_json() for finding in self.findings]
        return {"run": str(self.path), "there": self.there, "missing": self.missing, "findings": findings}


def diagnose(folder: Path | str) -> list[Finding]:
    """What is wrong with a run, the worst first, and last that of a sweep's constants; empty if nothing is.

    folder: a run, finished, killed or still being written. What of it cannot be read is a finding, too.
    FileNotFoundError if it is no run; UserError if nothing of it can be read.
    """
    return examine(folder).findings


def examine(folder: Path | str) -> Diagnosis:
    """The same, with what there was to look at, and what is missing."""
    contents = _read(Path(folder))
    missing = _missing(contents)
    groups = list(groups_of(contents.scales, contents.notes, contents.metrics, contents.header.get("plan", {})))
    contents = replace(contents, scales=contents.scales.clear())  # the groups have what rules look at
    findings = [_damage(text) for text in contents.damaged]
    for group in groups:
        findings += ask(group)
    order = {name: place for place, name in enumerate((DAMAGED, *RULES))}
    of_sweep = swept(findings)
    findings.sort(key=lambda each: (SEVERITIES.index(each.severity), each.scaling in of_sweep, order[each.rule]))
    return Diagnosis(path=contents.path, findings=findings, there=_there(groups), missing=missing)


def _read(folder: Path) -> RunContents:
    """What can be read of a run, whose header may be lost."""
    run = RunFolder(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: name that of a run")
    if not any(path.exists() for path in (run.header, run.metrics, run.summary)) and not list_parts(run.scales):
        raise UserError(
            f"{folder} holds nothing of a run, no run.json, no metrics.jsonl, no scales: name the folder that "
            "octoscale.record, train or validate wrote"
        )
    return read_run(folder, needs_header=False)


#: The rules that look at the rows of all ranks.
_OF_ALL_RANKS: tuple[Rule, ...] = (nonfinite, ranks_disagree)


def ask(group: Group) -> list[Finding]:
    """What all rules find in one group of records; without rows, there are only losses to look at.

    Rows of other ranks are compared with the first one's, and looked at for what is not finite; all other rules count
    what one rank did.
    """
    rules = [nonfinite] if group.rows.is_empty() else [rule for rule, _ in RULES.values()]
    first = replace(group, rows=group.rows.filter(pl.col(RANK) == 0))
    found = [finding for rule in rules for finding in rule(group if rule in _OF_ALL_RANKS else first)]
    return [replace(finding, phase=group.phase, scaling=group.scaling) for finding in found]


def _damage(text: str) -> Finding:
    return Finding(
        rule=DAMAGED,
        severity="error",
        module=None,
        role=None,
        step=None,
        evidence=text,
        remedy="what is left is looked at without it; a file that is named can be deleted",
    )


def _there(groups: list[Group]) -> list[str]:
    """What was looked at, group by group."""
    lines = []
    for group in groups:
        name = group.scaling + (f" ({group.phase})" if group.phase else "")
        if group.rows.is_empty():
            lines.append(f"{name}: {count(len(group.metrics), 'measurement')}, no row of a cast")
            continue
        layers = count(group.rows["module"].n_unique(), "layer")
        roles = ", ".join(group.tensors["role"].unique(maintain_order=True).to_list())
        steps = count(len(group.all_steps), "step")
        of_several = granularities_of(group.rows)
        several = f"; a scale for {each_of(of_several)} of a tensor" if of_several else ""
        lines.append(f"{name}: {count(group.rows.height, 'row')} of {layers} in {steps}; {roles}{several}")
    return lines or ["nothing was recorded or measured yet"]


def _missing(contents: RunContents) -> list[str]:
    """What a finished run of this version would have."""
    run = RunFolder(contents.path)
    is_written = is_held(run.path)
    lines = ["the run is still being written: steps that are not on disk yet are not looked at"] if is_written else []
    if not contents.header:
        lines.append("run.json: which command wrote this run, with which settings")
    if contents.scales.is_empty():
        lines.append("scales: no cast was recorded, so most rules had nothing to look at")
    elif contents.scales["histogram"].null_count() == contents.scales.height:
        lines.append("histograms: none were recorded (every=0); shares are of all values, zeros included")
    if not contents.scales.is_empty() and not contents.notes:
        lines.append(
            "notes.jsonl: an older version wrote this run, or nobody noted layers, stale casts and loss scales"
        )
    plan = contents.header.get("plan")
    if plan is not None and not run.summary.exists() and not is_written:
        lines.append("summary.json: the command was stopped or killed before its end")
    return lines
