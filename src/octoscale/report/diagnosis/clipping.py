"""Values that are lost at either end of the format: clamped above it, or flushed to zero below.

A scale of the tensor's own clamps nothing, and flushes only what lies many binades below the largest value: an outlier
does that. A constant does either where a tensor's size is not what the constant is for.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from octoscale.numerics.formats import FORMATS
from octoscale.numerics.scaling import Amax, Constant, Delayed, Rule
from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.remedies import keep_out, scaling_text
from octoscale.report.diagnosis.tensors import Group, hits, scales_of


def saturates(group: Group) -> Iterator[Finding]:
    """A scale that is too high: the tensor's largest values are clamped, and not as MX's round=down means it."""
    roles = [role for role in group.roles if not _clamps_by_design(group.rule(role))]
    far = pl.col("overshoot") >= limits.CLIPPED_BINADES
    clipped = far | (pl.col("saturated_share") >= limits.CLIPPED_SHARE)
    found = hits(group, clipped & (pl.col("saturated") > 0) & pl.col("role").is_in(roles))
    for hit in found:
        yield Finding(
            rule="saturates",
            severity="warning",
            module=hit["module"],
            role=hit["role"],
            step=hit["step"],
            evidence=f"{scales_of(hit)} clamps {hit['saturated']:,} of {hit['numel']:,} values, {_by_how_much(hit)}, "
            f"in {count(hit['hit_steps'], 'step')}; {_and_others(found, hit)}",
            numbers=_numbers(hit, "saturated") | {"binades": hit["overshoot"]},
            remedy=_remedy(group, hit),
        )


def flushes(group: Group) -> Iterator[Finding]:
    """A scale that is too low, or an outlier that makes it so: small values become zero."""
    found = hits(group, _is_flushed(group), lasting=limits.LASTING)
    for hit in found:
        yield Finding(
            rule="flushes",
            severity="warning",
            module=hit["module"],
            role=hit["role"],
            step=hit["step"],
            evidence=f"{scales_of(hit)} makes {hit['flushed_share']:.0%} of the values zero, the largest "
            f"magnitude being {hit['amax']:.3g}, in {count(hit['hit_steps'], 'step')}; {_and_others(found, hit)}",
            numbers=_numbers(hit, "flushed") | {"slack": hit["slack_low"]},
            remedy=_remedy(group, hit),
        )


def _clamps_by_design(rule: Rule | None) -> bool:
    """Whether a rule leaves its largest values to be clamped: delayed_lags says when that is too much of it."""
    return isinstance(rule, Delayed) or rounds_down(rule)


def rounds_down(rule: Rule | None) -> bool:
    """Whether a scale is rounded as OCP has it for MX: the largest value of a group may then saturate."""
    return isinstance(rule, Amax) and rule.round == "down"


def _by_how_much(hit: dict[str, Any]) -> str:
    """How far the largest value is clamped; of several scales, it may be others that are too high."""
    over = max(hit["overshoot"] or 0, 0)
    if over == 0 and hit["num_scales"] is not None:
        return "though not the largest"
    return f"the largest by {over:.1f} binades"


def _is_flushed(group: Group) -> pl.Expr:
    """Where too many values become zero, by what scales the tensor."""
    own = [role for role in group.roles if isinstance(group.rule(role), Amax | Delayed)]
    has_own, share = pl.col("role").is_in(own), pl.col("flushed_share")
    lowest = {name: fmt.max_exponent - fmt.min_normal_exponent for name, fmt in FORMATS.items()}
    subnormal = pl.col("slack_low") > pl.col("format").replace_strict(lowest)
    siblings = ("template", "role", "step")
    others = (share.sum().over(siblings) - share) / (pl.len().over(siblings) - 1)
    alone = (share >= limits.FLUSHED_ALONE) & (share >= limits.FLUSHED_ALONE_TIMES * others)
    by_constant = (share >= limits.FLUSHED_BY_CONSTANT) | subnormal | (alone & (pl.len().over(siblings) > 1))
    return (pl.col("flushed") > 0) & pl.when(has_own).then(share >= limits.FLUSHED_BY_OWN_SCALE).otherwise(by_constant)


def _and_others(found: list[dict[str, Any]], hit: dict[str, Any]) -> str:
    """How many tensors of this role it happens to."""
    alike = sum(other["role"] == hit["role"] for other in found)
    return f"{alike} tensors of this role are so" if alike > 1 else "no other tensor of this role is"


def _numbers(hit: dict[str, Any], what: str) -> dict[str, Any]:
    names = (what, "numel", "amax", "ideal")
    numbers = {name: hit[name] for name in names}
    return numbers | {"share": hit[f"{what}_share"], "scale_bias": hit["bias"], "steps": hit["hit_steps"]}


def _remedy(group: Group, hit: dict[str, Any]) -> str:
    """Scales of the tensors' own in place of a constant; else the layer stays out."""
    if not isinstance(group.rule(hit["role"]), Constant):
        return f"keep the layer out of FP8, in a recipe: {keep_out(hit['module'])}"
    own = scaling_text(group, {"grad_output": Amax()}) if hit["role"] == "grad_output" else None
    if own is not None:
        return f"gradients with scales of their own: --scaling {own}"
    return f"--scaling amax; or keep the layer out of FP8, in a recipe: {keep_out(hit['module'])}"
