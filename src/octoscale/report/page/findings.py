"""What was found, in words: one plain dict each, which the page shows as a sentence with a link to its view.

    {"severity": "fault" | "warning" | "note", "module": ..., "role": ..., "scaling": ..., "step": ...,
     "words": ..., "remedy": ...}

module and role are None for what is about the whole run, step if it is about no step, remedy where there is none.
First stands what the rules of diagnosis/ find, which judge; then what the counts say of the tensors that no rule named.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import polars as pl

from octoscale.numerics.formats import Role
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.report.data.bands import GROUPS, each_of, scales_in_words, whose
from octoscale.report.data.validation import constants
from octoscale.report.diagnosis import finding as diagnosis
from octoscale.report.diagnosis import rules
from octoscale.report.diagnosis.abridged import abridged
from octoscale.report.diagnosis.clipping import rounds_down
from octoscale.report.page.cells import Cells
from octoscale.runs.parts import GRANULARITY

#: From this share of its values on, a tensor that saturates, or flushes, is worth a sentence.
SATURATES, FLUSHES = 1e-4, 0.02

#: How many tensors are named of one scaling; of a sweep's constants, the first.
MOST_NAMED = 3

Finding = dict[str, Any]


def found(cells: Cells) -> list[Finding]:
    """What the counts of a run say, the gravest first. Whoever would name one tensor finds it in the run's records."""
    totals = cells.tensors.join(cells.totals(), on="tensor", maintain_order="left").filter(pl.col("numel") > 0)
    if totals.is_empty():
        return []
    modules, steps = totals["module"].n_unique(), cells.last_step + 1
    recorded = "1 module in FP8 was" if modules == 1 else f"{modules:,} modules in FP8 were"
    unit = "window" if set(totals["phase"]) == {"validate"} else "step"
    over = f"one {unit}" if steps == 1 else f"{steps:,} {unit}s"
    of_all = _finding("note", None, None, f"{recorded} recorded, over {over}.")
    meant = pl.Series([_is_meant(*each) for each in totals.select("scaling", "role").iter_rows()])
    clipped = [*_clipped(totals.filter(~meant), "saturated"), *_clipped(totals, "flushed")]
    return [*_nonfinite(totals), *clipped, *_several(totals), *_rounded_down(totals.filter(meant)), of_all]


@cache
def _is_meant(scaling: str, role: Role) -> bool:
    """Whether a role's largest values may saturate, as its rule has it."""
    try:
        recipe = parse_scaling(scaling)
    except (ValueError, TypeError):
        return False  # a name of somebody's own
    return isinstance(recipe, Recipe) and rounds_down(recipe.operand(role).rule)


def _several(totals: pl.DataFrame) -> Iterator[Finding]:
    """Of each scaling that gives a tensor several scales, what has one, and how far they reach."""
    several = totals.filter(pl.col("scales_high").is_not_null())
    widths = several.with_columns(width=pl.col("top") - pl.col("bias_low"))
    for (scaling,), rows in widths.group_by("scaling", maintain_order=True):
        widest = rows.sort("width", descending=True, maintain_order=True).row(0, named=True)
        names = [name for name in GROUPS if name in set(rows[GRANULARITY])]
        words = (
            f"Under {scaling} there is a scale for {each_of(names)} of a tensor. They reach furthest in "
            f"{widest['module']}, {whose(widest['role'])}: "
            f"{scales_in_words(widest['bias_low'], widest['top'], widest['scales_high'], widest[GRANULARITY])}."
        )
        yield _finding("note", None, None, words) | {"scaling": str(scaling), "quantity": "band"}


def _rounded_down(totals: pl.DataFrame) -> Iterator[Finding]:
    """What MX's rounding down costs each scaling under which it is used: no fault, but not nothing."""
    for (scaling,), rows in totals.group_by("scaling", maintain_order=True):
        saturated, numel = int(rows["saturated"].sum()), int(rows["numel"].sum())
        share = saturated / numel
        if share > 0:
            words = (
                f"Under {scaling}, {100 * share:.2g} % of the values saturate: MX rounds scales down, so that the "
                "largest of a group may lie above the format's largest. With round=up none does."
            )
            yield _finding("note", None, None, words) | {"scaling": str(scaling), "quantity": "saturated"}


def with_diagnosis(counted: Sequence[Finding], diagnosed: Sequence[diagnosis.Finding] | None) -> list[Finding]:
    """What the rules found, then what the counts say beside it. diagnosed: None where no rule was asked."""
    if diagnosed is None:
        return [*counted, _finding("note", None, None, "A long run: octoscale diagnose RUN asks all rules about it.")]
    judged = [each for each in diagnosed if each.rule != rules.DAMAGED]  # what is damaged, the page says elsewhere
    named = {(each.module, each.role, each.scaling) for each in judged}
    beside = [each for each in counted if (each["module"], each["role"], each["scaling"]) not in named]
    return [*_first_of_each(judged), *beside]


def _first_of_each(judged: Sequence[diagnosis.Finding]) -> Iterator[Finding]:
    """The first tensors that each rule names under each scaling, and how many more there are."""
    for told in abridged(judged, MOST_NAMED):
        yield from map(_told, told.findings)
        if told.num_left:
            rule, scaling = told.first.rule, told.first.scaling
            where = f"Under {scaling}, in" if scaling else "In"
            words = f"{where} {told.num_left:,} more tensors: {rules.RULES[rule][1]}."
            yield _finding("note", None, None, words) | {"scaling": scaling}


def _told(found: diagnosis.Finding) -> Finding:
    _, title = rules.RULES[found.rule]
    return {
        "severity": "fault" if found.severity == "error" else found.severity,
        "module": found.module,
        "role": found.role,
        "scaling": found.scaling,
        "step": found.step,
        "words": f"{title[0].upper()}{title[1:]}: {found.evidence}",
        "remedy": found.remedy,
    }


def _nonfinite(totals: pl.DataFrame) -> Iterator[Finding]:
    """The first tensor that was not finite."""
    rows = totals.filter(pl.col("nonfinite") > 0).sort("nonfinite_from", maintain_order=True)
    for row in rows.head(1).iter_rows(named=True):
        others = f", and then in {rows.height - 1:,} others" if rows.height > 1 else ""
        words = f"Infinity or NaN: first at step {row['nonfinite_from']:,}{others}."
        remedy = "look at the steps before it; a loss scale or learning rate that is too high is the usual cause"
        yield _finding("fault", row, row["nonfinite_from"], words, remedy)


def _clipped(totals: pl.DataFrame, count: str) -> Iterator[Finding]:
    """The tensors that lose the largest share of their values, of each scaling."""
    least = SATURATES if count == "saturated" else FLUSHES
    verb = "saturate" if count == "saturated" else "are flushed to zero"
    shares = totals.with_columns(share=pl.col(count) / pl.col("numel")).filter(pl.col("share") >= least)
    shares = shares.sort("share", descending=True, maintain_order=True)
    for (scaling,), rows in shares.group_by("scaling", maintain_order=True):
        most = 1 if constants(str(scaling)) is not None else MOST_NAMED
        for row in rows.head(most).iter_rows(named=True):
            first = row[f"{count}_from"]
            since = f", since step {first:,}" if first else ""
            words = f"{100 * row['share']:.3g} % of the values {verb}{since}."
            yield _finding("warning", row, row[f"{count}_from"], words, _remedy(str(scaling), count, row))
        if rows.height > most:
            words = f"Under {scaling}, {rows.height - most:,} more tensors have values that {verb}."
            yield _finding("note", None, None, words) | {"scaling": str(scaling), "quantity": count}


def _remedy(scaling: str, count: str, row: Mapping[str, Any]) -> str:
    if scaling.startswith("cscale"):
        direction = "smaller" if count == "saturated" else "larger"
        return f"a {direction} bias, or --skip {row['module']}"
    return f"--skip {row['module']}" if row["role"] != "grad_output" else "a larger --loss-scale does not help amax"


def _finding(
    severity: str, row: Mapping[str, Any] | None, step: int | None, words: str, remedy: str | None = None
) -> Finding:
    of = {name: None if row is None else row[name] for name in ("module", "role", "scaling")}
    return {"severity": severity, **of, "step": step, "words": words, "remedy": remedy}
