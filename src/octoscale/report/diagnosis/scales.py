"""Scales that are not what they should be: at the clamp, another than the recipe's, far too low, or late.

Under amax a scale_bias follows from amax alone, and under a constant from nothing: what a row holds can be computed
again, and compared. Under delayed scaling it lies between what the smallest and the largest amax in memory ask for.
Where a tensor has several scales it is the lowest that follows from amax, and that rules compare; the highest is that
of the smallest group, which may be as small as it likes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from octoscale.numerics.formats import ROLES, Role, get_format
from octoscale.numerics.scaling import MAX_SCALE_BIAS, Amax, Constant, Delayed, Rule
from octoscale.report.data.bands import each_of
from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.remedies import keep_out, scaling_text
from octoscale.report.diagnosis.tensors import TENSOR, Group, hits
from octoscale.runs.parts import GRANULARITY

_IS_AT_CLAMP = pl.col("overshoot").is_not_null() & (
    (pl.col("bias") <= -MAX_SCALE_BIAS) | (pl.col("bias_high") >= MAX_SCALE_BIAS)
)


def scale_at_clamp(group: Group) -> Iterator[Finding]:
    """A scale_bias of 126 or -126: the tensor asks for more, or its values are out of all proportion."""
    for hit in hits(group, _IS_AT_CLAMP, lasting=limits.LASTING):
        bias = hit["bias_high"] if hit["bias_high"] >= MAX_SCALE_BIAS else hit["bias"]
        tiny = bias > 0
        out = f"in a recipe: {keep_out(hit['module'])}"
        remedy = "--loss-scale 512" if tiny and hit["role"] == "grad_output" else out
        yield Finding(
            rule="scale_at_clamp",
            severity="warning",
            module=hit["module"],
            role=hit["role"],
            step=hit["step"],
            evidence=f"{_which(hit)} is {bias}, as far as a scale goes, in {count(hit['hit_steps'], 'step')}: the "
            f"largest magnitude is {hit['amax']:.3g}, for which {hit['ideal']} would be right",
            numbers={"scale_bias": bias, "amax": hit["amax"], "ideal": hit["ideal"], "steps": hit["hit_steps"]},
            remedy=f"values so {'small' if tiny else 'large'} are a fault of the model or the loss; else: {remedy}",
        )


def _which(hit: dict[str, Any]) -> str:
    """Whether a tensor's scale is meant, or the lowest of several."""
    return "scale_bias" if hit["num_scales"] is None else "the lowest scale_bias"


def foreign_scale(group: Group) -> Iterator[Finding]:
    """A scale that the recipe does not give to this tensor, nor to these values."""
    for role in group.roles:
        rule = group.rule(role)
        wrong, lasting = _wrong(rule)
        wrong |= pl.lit(value=False) if rule is None else pl.col(GRANULARITY) != rule.granularity
        wrong &= (pl.col("role") == role) & ~_IS_AT_CLAMP & pl.col("overshoot").is_not_null()
        found = hits(group, wrong, lasting=lasting)
        if 2 * len(found) > group.tensors.filter(role=role).height:
            continue  # the run's recipe is not what it is called
        for hit in found:
            yield _foreign(group, hit)


def _wrong(rule: Rule | None) -> tuple[pl.Expr, int]:
    """Where a scale is not what the rule makes of amax, and how long that must last."""
    match rule:
        case Amax(margin=margin, round="down"):  # the largest value may lie in the last binade, above the format's
            return (pl.col("slack_low") < margin - 1) | (pl.col("slack_high") > margin), 1
        case Amax(margin=margin):
            return (pl.col("slack_low") != margin) | (pl.col("slack_high") != margin), 1
        case Constant(bias=bias):
            return (pl.col("bias") != bias) | (pl.col("bias_high") != bias), 1
        case Delayed(history=history, margin=margin):
            ideal = pl.col("ideal")  # what was seen before the record began is not known: a binade more to either side
            low = pl.coalesce(ideal.rolling_min(history + 1), ideal.cum_min()).over(TENSOR) - margin - 1
            high = pl.coalesce(ideal.rolling_max(history + 1), ideal.cum_max()).over(TENSOR) - margin + 1
            return (pl.col("bias") < low) | (pl.col("bias") > high), limits.LASTING
    return pl.lit(value=False), 1


def _foreign(group: Group, hit: dict[str, Any]) -> Finding:
    rule = group.rule(hit["role"])
    asked = rule.bias if isinstance(rule, Constant) else hit["ideal"] - (0 if rule is None else rule.margin)
    of_step = group.steps.filter((pl.col("step") == hit["step"]) & (pl.col("role") == hit["role"]))
    others = of_step.filter((pl.col("module") != hit["module"]) & (pl.col("bias") == hit["bias"])).sort("place")
    twin = None if others.is_empty() else others["module"][0]
    whose = "" if twin is None else f"; {twin} has that one"
    evidence = (
        f"{_which(hit)} is {hit['bias']}, but {rule} gives {asked} to a largest magnitude of {hit['amax']:.3g}{whose}"
    )
    if rule is not None and hit[GRANULARITY] != rule.granularity:
        own, given = (each_of([name]) for name in (hit[GRANULARITY], rule.granularity))
        evidence = f"there is a scale for {own}, but {rule} gives one to {given}"
    return Finding(
        rule="foreign_scale",
        severity="error",
        module=hit["module"],
        role=hit["role"],
        step=hit["step"],
        evidence=f"{evidence}; so in {count(hit['hit_steps'], 'step')}",
        numbers={"scale_bias": hit["bias"], "expected": asked, "amax": hit["amax"], "steps": hit["hit_steps"]}
        | {"same_as": twin, GRANULARITY: hit[GRANULARITY]},
        remedy="one recipe for all layers: octoscale.revert(model); octoscale.convert(model, recipe)",
    )


def margin_wasted(group: Group) -> Iterator[Finding]:
    """Scales that leave binades free above every tensor that they are for, on every step."""
    rules = {role: group.rule(role) for role in group.roles}
    for role, rule in rules.items():
        if isinstance(rule, Amax | Delayed):
            yield from _wasted(group, [role], rule)
    for constant in sorted({rule.bias for rule in rules.values() if isinstance(rule, Constant)}):
        roles = [role for role in rules if rules[role] == Constant(constant)]
        yield from _wasted(group, roles, Constant(constant))


def _wasted(group: Group, roles: Sequence[Role], rule: Rule) -> Iterator[Finding]:
    """A finding if even the tensor with the least room has too much of it; that tensor is named."""
    steps = group.steps.filter(pl.col("role").is_in(roles) & pl.col("slack_low").is_not_null()).sort("slack_low", "at")
    if steps.is_empty():
        return
    least = steps.row(0, named=True)
    free, binades = least["slack_low"], binades_of(least["format"])
    is_constant = isinstance(rule, Constant)
    if free < (limits.WASTED_SHARE * binades if is_constant else limits.WASTED_BINADES):
        return
    what = f"the constant {rule.bias}" if isinstance(rule, Constant) else "its own scale"
    yield Finding(
        rule="margin_wasted",
        severity="note",
        module=least["module"],
        role=least["role"],
        step=group.all_steps[0],
        evidence=f"{what} leaves {free} of the {binades} binades of {least['format']} free above the largest value of "
        f"{' and '.join(roles)} in all {count(len(group.all_steps), 'step')}; this tensor has the least room",
        numbers={"free_binades": free, "binades": binades, "steps": len(group.all_steps), "roles": list(roles)},
        remedy=_less_wasteful(group, rule, free),
    )


def _less_wasteful(group: Group, rule: Rule, free: int) -> str:
    """The scaling in which this rule, wherever it stands, leaves nothing free."""
    better = Constant(min(rule.bias + free, MAX_SCALE_BIAS)) if isinstance(rule, Constant) else replace(rule, margin=0)
    roles = [role for role in ROLES if group.rule(role) == rule]
    text = scaling_text(group, dict.fromkeys(roles, better))
    return (
        f"--scaling {text}"
        if text is not None
        else f"in Python: recipe.override, with {better} for {' and '.join(roles)}"
    )


def binades_of(name: str) -> int:
    """From the smallest subnormal to the largest value."""
    fmt = get_format(name)
    return fmt.max_exponent - fmt.min_subnormal_exponent + 1


def delayed_lags(group: Group) -> Iterator[Finding]:
    """Values grew beyond all that the history holds: they are clamped until it has caught up."""
    roles = [role for role in group.roles if isinstance(group.rule(role), Delayed)]
    if not roles:
        return
    past = pl.col("amax").shift(1)
    longest = max(rule.history for role in roles if isinstance(rule := group.rule(role), Delayed))
    highest = pl.coalesce(past.rolling_max(longest), past.cum_max()).over(TENSOR)
    jump = (pl.col("amax") / highest).log(2)
    late = pl.lit(value=False)
    for role in roles:
        least_jump, least_over = limits.LAG[role]
        lag = (jump >= least_jump) & (pl.col("overshoot") >= least_over)
        late |= (pl.col("role") == role) & (lag | (pl.col("overshoot") >= limits.LAG_ALONE[role]))
    for hit in hits(group, late):
        rule = group.rule(hit["role"])
        yield Finding(
            rule="delayed_lags",
            severity="warning",
            module=hit["module"],
            role=hit["role"],
            step=hit["step"],
            evidence=f"the largest magnitude became {hit['amax']:.3g}, {hit['overshoot']:.1f} binades above what "
            f"scale_bias {hit['bias']} of {rule} holds: {hit['saturated_share']:.2%} of the values were clamped",
            numbers={name: hit[name] for name in ("amax", "overshoot", "bias", "ideal", "saturated", "numel")},
            remedy=f"--scaling amax, or --scaling delayed:history={getattr(rule, 'history', 16)},margin="
            f"{getattr(rule, 'margin', 0) + math.ceil(hit['overshoot'])}",
        )
