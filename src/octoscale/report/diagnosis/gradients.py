"""Gradients that are zero, or that are not there, while others are."""

from collections.abc import Iterator

import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.tensors import Group, hits, template_of


def zero_gradients(group: Group) -> Iterator[Finding]:
    """A layer that no gradient reaches, or only zeros, while others get theirs."""
    if "grad_output" not in group.roles:
        return
    gradients = pl.col("role") == "grad_output"
    alive = (gradients & (pl.col("amax") > 0)).any().over("step")
    zero = gradients & (pl.col("amax") == 0) & (pl.col("numel") > 0) & alive
    begun: dict[int, str] = {}
    for hit in hits(group, zero, lasting=limits.LASTING):
        origin = begun.setdefault(hit["step"], hit["module"])
        follows = "" if origin == hit["module"] else f"; backward met zeros first at {origin}"
        yield Finding(
            rule="zero_gradients",
            severity="warning",
            module=hit["module"],
            role="grad_output",
            step=hit["step"],
            evidence=f"all {hit['numel']:,} values of its gradient are 0 in {count(hit['hit_steps'], 'step')}, those "
            f"of other layers are not{follows}",
            numbers={"numel": hit["numel"], "steps": hit["hit_steps"], "origin": origin},
            remedy=_CONNECT,
        )
    yield from _no_gradient(group)


_CONNECT = (
    "look for a detach(), a mask or a factor of zero behind this layer; or freeze it: weight.requires_grad_(False)"
)


def _no_gradient(group: Group) -> Iterator[Finding]:
    """A trained layer that ran, without a row of its gradient though its siblings have some, after a whole step."""
    if len(group.all_steps) < 2:
        return
    ran = {role: set(group.tensors.filter(role=role)["module"]) for role in ("input", "grad_output")}
    with_gradient = {template_of(module) for module in ran["grad_output"]}
    for note in group.noted("modules")[-1:]:
        trained = [name for name in note["fp8"] if name not in set(note["frozen"])]
        for module in reversed([name for name in trained if name in ran["input"] - ran["grad_output"]]):
            if template_of(module) in with_gradient:
                yield Finding(
                    rule="zero_gradients",
                    severity="warning",
                    module=module,
                    role="grad_output",
                    step=group.all_steps[0],
                    evidence="the layer ran and its weight wants a gradient, but none reached it in "
                    f"{count(len(group.all_steps), 'step')}; its siblings got theirs",
                    numbers={"steps": len(group.all_steps)},
                    remedy=_CONNECT,
                )
