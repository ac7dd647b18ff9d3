"""The rows of a run, as rules look at them: one line a tensor a step, micro-batches together, with what follows.

    ideal        the scale_bias that amax asks for, without a margin and without the limits of a scale
    bias         the lowest scale_bias of all casts; of several scales a tensor has, the lowest is that of amax's group
    bias_high    the highest of those, over the casts of a step
    highest      the highest scale of all, where a tensor has `num_scales` of them; else as bias_high
    slack        ideal - scale_bias, binades left free: 0 under amax, m under amax:margin=m, below 0 where it clips
    overshoot    log2 of amax * 2**scale_bias over the format's largest value: above 0, values were clamped
    template     the module's name with its layer's number as *: what it has in common with its siblings

A group is one phase under one scaling: rows of two groups are never compared.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from octoscale.numerics.formats import FORMATS, ROLES, Role
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.numerics.scaling import Rule
from octoscale.report.data.bands import scales_in_words
from octoscale.report.data.histograms import abridged
from octoscale.runs.scale_bias import HIGHEST, REACH

#: What tells one tensor of a run from another.
TENSOR = ("module", "role")


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one phase recorded under one scaling.

    rows: as recorded, with `at`, their place in the order of writing; of their histograms, what data/histograms.py
    asks. notes: those of runs/notes.py. metrics: the lines of metrics.jsonl. plan: what the command was told.
    """

    phase: str
    scaling: str
    rows: pl.DataFrame
    notes: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def steps(self) -> pl.DataFrame:
        """A line a tensor a step."""
        return _by_step(self.rows)

    @cached_property
    def tensors(self) -> pl.DataFrame:
        """A line a tensor: its name, its template, its place in the order of a step."""
        keys = ("module", "template", "layer", "kind", "role", "format")
        return self.steps.group_by(keys, maintain_order=True).agg(
            place=pl.col("place").first(), num_steps=pl.len(), first=pl.col("step").min(), last=pl.col("step").max()
        )

    @cached_property
    def all_steps(self) -> list[int]:
        """Every step that has rows, in order."""
        return sorted(self.rows["step"].unique().to_list())

    @cached_property
    def roles(self) -> list[Role]:
        """The roles that have rows."""
        found = set(self.tensors["role"].to_list())
        return [role for role in ROLES if role in found]

    @cached_property
    def recipe(self) -> Recipe | None:
        """The recipe that the scaling's name means; None if it is a name of somebody's own."""
        try:
            recipe = parse_scaling(self.scaling)
        except (ValueError, TypeError):
            return None
        return recipe if isinstance(recipe, Recipe) else None

    def rule(self, role: Role) -> Rule | None:
        """How the recipe scales a role, if it is known: as the run noted it, or by the scaling's name."""
        noted = [note["operands"].get(role, "") for note in self.noted("modules")]
        found = [_rule_of(text) for text in dict.fromkeys(noted)]
        if found and None not in found:
            return found[0] if len(found) == 1 else None
        return None if self.recipe is None else self.recipe.operand(role).rule

    def noted(self, what: str) -> list[dict[str, Any]]:
        """The notes of one kind."""
        return [note for note in self.notes if note["note"] == what]

    def series(self, module: str, role: str) -> pl.DataFrame:
        """The steps of one tensor."""
        return self.steps.filter((pl.col("module") == module) & (pl.col("role") == role))


def _rule_of(operand: str) -> Rule | None:
    """The rule in an operand's text, `e4m3fn amax:margin=3`."""
    try:
        recipe = parse_scaling(operand.partition(" ")[2])
    except (ValueError, TypeError):
        return None
    return recipe.weight.rule if isinstance(recipe, Recipe) else None


def hits(group: Group, condition: pl.Expr, *, lasting: int = 1) -> list[dict[str, Any]]:
    """The tensors for which a condition holds, each with its first such step: that step's line, and how many there are.

    Once is enough, unless it has to last: in so many steps, or all there are, and in half of those since the first one.
    A weight's cast lasts by itself. By step, and in the order in which a step runs.
    """
    found = group.steps.with_columns(hit=condition.fill_null(value=False))
    if not found["hit"].any():
        return []
    begun = found.with_columns(begun=pl.col("hit").cum_max().over(TENSOR))
    since = begun.filter("begun").group_by(TENSOR, maintain_order=True)
    counted = since.agg(pl.all().first(), hit_steps=pl.col("hit").sum(), since=pl.len())
    every = group.tensors.select(*TENSOR, "num_steps")
    counted = counted.join(every, on=TENSOR).filter(
        (pl.col("hit_steps") >= pl.min_horizontal(lasting, "num_steps"))
        | ((pl.col("role") == "weight") & (pl.col("hit_steps") == pl.col("since")))
    )
    counted = counted.filter((lasting == 1) | (2 * pl.col("hit_steps") >= pl.col("since")))
    return counted.sort("step", "place").to_dicts()


def scales_of(hit: dict[str, Any]) -> str:
    """The scale of a line of `hits`, or all of its scales, in words."""
    return scales_in_words(hit["bias"], hit["highest"], hit["num_scales"], hit["granularity"])


def groups_of(
    rows: pl.DataFrame, notes: list[dict[str, Any]], metrics: list[dict[str, Any]], plan: dict[str, Any]
) -> Iterator[Group]:
    """The groups of a run, in the order in which they were run; then those that were measured without any row."""
    rows = _with_slack(abridged(rows).with_columns(at=pl.int_range(pl.len()), template=_template()))
    keys = dict.fromkeys(rows.select("phase", "scaling").iter_rows())
    recorded = {scaling for _, scaling in keys}
    measured = [(row.get("phase", ""), row["scaling"]) for row in metrics if "scaling" in row]
    keys |= dict.fromkeys(key for key in measured if key[1] not in recorded)
    for phase, scaling in keys:
        of = (pl.col("phase") == phase) & (pl.col("scaling") == scaling)
        own = {"phase": phase, "scaling": scaling}
        yield Group(
            phase=phase,
            scaling=scaling,
            rows=rows.filter(of),
            notes=[note for note in notes if own.items() <= note.items()],
            metrics=[row for row in metrics if row.get("scaling") == scaling and row.get("phase", phase) == phase],
            plan=plan,
        )


_NUMBER = r"(^|\.)\d+(\.|$)"


def _template() -> pl.Expr:
    """The name with its first whole number as *; that of the layer, as stacks are the outermost lists."""
    return pl.col("module").str.replace(_NUMBER, "${1}*${2}")


def template_of(module: str) -> str:
    """The same of one name."""
    return re.sub(_NUMBER, r"\1*\2", module, count=1)


def is_routed(module: str) -> bool:
    """Whether a router decides when the module is called: it belongs to an expert that is not shared by all tokens."""
    return any("expert" in part and "shared" not in part for part in module.split(".")[:-1])


def _with_slack(rows: pl.DataFrame) -> pl.DataFrame:
    """Add ideal, slack and overshoot; null where amax is 0 or not finite."""
    largest = {name: math.frexp(fmt.max) for name, fmt in FORMATS.items()}
    mantissa, exponent = np.frexp(rows["amax"].to_numpy())
    of_format = [pl.col("format").replace_strict({k: v[i] for k, v in largest.items()}) for i in (0, 1)]
    usable = pl.col("amax").is_finite() & (pl.col("amax") > 0)
    rows = rows.with_columns(
        _m=pl.Series(mantissa, dtype=pl.Float64),
        _e=pl.Series(exponent, dtype=pl.Int64),
        _max_m=of_format[0],
        _max_e=of_format[1].cast(pl.Int64),
    )
    ideal = pl.col("_max_e") - pl.col("_e") - (pl.col("_m") > pl.col("_max_m")).cast(pl.Int64)
    rows = rows.with_columns(ideal=pl.when(usable).then(ideal))
    over = pl.col("_e") + pl.col("scale_bias") - pl.col("_max_e") + (pl.col("_m") / pl.col("_max_m")).log(2)
    rows = rows.with_columns(slack=pl.col("ideal") - pl.col("scale_bias"), overshoot=pl.when(usable).then(over))
    return rows.drop("_m", "_e", "_max_m", "_max_e")


def _by_step(rows: pl.DataFrame) -> pl.DataFrame:
    """Micro-batches of a step together."""
    keys = ("module", "template", "layer", "kind", "role", "format", "step")
    with_zeros = rows.with_columns(_seen=pl.when(pl.col("zeros").is_not_null()).then(pl.col("numel")))
    share = (pl.col("zeros").sum() / pl.col("_seen").sum()).over(TENSOR)
    with_zeros = with_zeros.with_columns(nonzero=pl.col("numel") * (1 - share.fill_nan(0).fill_null(0)))
    steps = with_zeros.group_by(keys).agg(
        casts=pl.len(),
        at=pl.col("at").min(),
        amax=pl.col("amax").max(),
        ideal=pl.col("ideal").min(),
        bias=pl.col("scale_bias").min(),
        bias_high=pl.col("scale_bias").max(),
        highest=HIGHEST.max(),
        num_scales=pl.col("num_scales").max(),
        granularity=REACH.first(),
        slack_low=pl.col("slack").min(),
        slack_high=pl.col("slack").max(),
        overshoot=pl.col("overshoot").max(),
        numel=pl.col("numel").sum(),
        nonzero=pl.col("nonzero").sum(),
        saturated=pl.col("saturated").sum(),
        flushed=pl.col("flushed").sum(),
        nonfinite=pl.col("nonfinite").sum(),
    )
    steps = steps.with_columns(
        flushed_share=pl.col("flushed") / pl.max_horizontal("nonzero", "flushed", 1),
        saturated_share=pl.col("saturated") / pl.max_horizontal("nonzero", "saturated", 1),
        place=pl.col("at") - pl.col("at").min().over("step"),
    )
    return steps.sort("module", "role", "step")
