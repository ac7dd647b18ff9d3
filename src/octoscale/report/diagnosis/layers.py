"""Layers that are missing: kept out of FP8 though their siblings are in it, or not called.

A recorder notes which linear layers it found. A run of an older version has no such note: there a layer is missing if
its block has rows, and other blocks have rows of a layer of this name. A router may give an expert no token at all.
"""

from collections.abc import Iterator

import polars as pl

from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.tensors import Group, is_routed, template_of


def not_fp8(group: Group) -> Iterator[Finding]:
    """A linear layer that stayed as it was, while the same layer is FP8 at other depths; a note if that is said."""
    for note in group.noted("modules")[-1:]:
        in_fp8 = {template_of(name) for name in note["fp8"]}
        for module, reason in note["kept"].items():
            is_meant = reason.startswith("skip pattern")
            if template_of(module) in in_fp8 and (is_meant or not reason):
                yield Finding(
                    rule="not_fp8",
                    severity="note" if is_meant else "warning",
                    module=module,
                    role=None,
                    step=group.all_steps[0],
                    evidence="the layer is not in FP8, the same layer at other depths is"
                    + (f": {reason} of the recipe" if is_meant else ", and no pattern of the recipe says so"),
                    numbers={"reason": reason},
                    remedy="take the pattern out of skip, if that was not meant"
                    if is_meant
                    else "octoscale.revert(model), then octoscale.convert(model, recipe)",
                )


def never_ran(group: Group) -> Iterator[Finding]:
    """An FP8 layer without a row, or without rows of some steps, while its siblings have them."""
    ran = group.steps.filter(pl.col("role") == "input")
    ran = (group.steps if ran.is_empty() else ran).select("module", "template", "step").unique(maintain_order=True)
    steps = sorted(ran["step"].unique().to_list())
    noted = group.noted("modules")
    fp8 = noted[-1]["fp8"] if noted else _presumed(group)
    called, templates = set(ran["module"]), set(ran["template"])
    if noted and len(steps) == 1:  # it may be cut short: then the last layers are missing
        fp8 = fp8[: max((index + 1 for index, name in enumerate(fp8) if name in called), default=0)]
    missing = [name for name in fp8 if name not in called and template_of(name) in templates]
    for module in (name for name in missing if not is_routed(name)):
        yield _missing(module, steps[0], steps, "was never called")
    if len(steps) > 1:
        yield from _left_out(ran.filter(pl.col("step") < steps[-1]), steps[:-1])  # the last one may be cut short


def _left_out(ran: pl.DataFrame, steps: list[int]) -> Iterator[Finding]:
    """A layer that was called in some steps only, while all its siblings were in each."""
    counts = ran.group_by("module", "template", maintain_order=True).agg(pl.len(), pl.col("step"))
    for row in counts.filter(pl.col("len") < len(steps)).iter_rows(named=True):
        if is_routed(row["module"]):
            continue
        siblings = counts.filter((pl.col("template") == row["template"]) & (pl.col("module") != row["module"]))
        if min(siblings["len"].to_list(), default=0) < len(steps):
            continue
        missed = sorted(set(steps) - set(row["step"]))
        yield _missing(row["module"], missed[0], missed, "was not called")


def _missing(module: str, step: int, steps: list[int], what: str) -> Finding:
    return Finding(
        rule="never_ran",
        severity="warning",
        module=module,
        role=None,
        step=step,
        evidence=f"the layer {what} in {count(len(steps), 'step')}; the same layer at other depths was",
        numbers={"steps": len(steps)},
        remedy="octoscale inspect MODEL --run names the layers that a call of the model does not reach",
    )


def _presumed(group: Group) -> list[str]:
    """Layers that a run without notes should have rows of: their block has some, and most blocks have such a layer."""
    names = group.tensors.filter(pl.col("layer").is_not_null())["module"].unique(maintain_order=True).to_list()
    parents = {name.rpartition(".")[0] for name in names}
    wanted = []
    for template in dict.fromkeys(map(template_of, names)):
        parent, _, leaf = template.rpartition(".")
        alike = [name for name in sorted(parents) if template_of(name) == parent]
        missing = [f"{name}.{leaf}" for name in alike if f"{name}.{leaf}" not in names]
        if 0 < 2 * len(missing) <= len(alike):
            wanted += missing
    return wanted
