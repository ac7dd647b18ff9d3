"""Weights whose FP8 codes are old, and weights that stand still while their siblings are trained.

A cast is reused until torch says that the weight was written to. A write through `.data` says nothing: while a run is
recorded, some values of a weight are compared where its cast is used again, and noted if they are others
(runs/notes.py). Beyond that the rows tell: a weight that is cast no more, or that never moves, while its siblings do.
"""

from collections.abc import Iterator

import polars as pl

from octoscale.report.diagnosis import limits
from octoscale.report.diagnosis.finding import Finding, count
from octoscale.report.diagnosis.tensors import TENSOR, Group, template_of

_FORGET = "octoscale.forget_casts(model), after each write to weight.data"


def stale_weight(group: Group) -> Iterator[Finding]:
    """A layer that multiplies with codes of an older weight."""
    noted: dict[str, int] = {}
    for note in group.noted("stale_weight"):
        noted.setdefault(note["module"], note["step"])
    weights = group.steps.filter(role="weight")
    for module, step in noted.items():
        casts = weights.filter((pl.col("module") == module) & (pl.col("step") <= step))
        of = (
            ""
            if casts.is_empty()
            else f" of step {casts['step'][-1]}, when its largest magnitude was {casts['amax'][-1]:.3g}"
        )
        yield Finding(
            rule="stale_weight",
            severity="error",
            module=module,
            role="weight",
            step=step,
            evidence=f"the layer multiplies with the codes{of}; the weight has other values by now, and no write "
            "to it was announced",
            numbers={"cast_at": None if casts.is_empty() else casts["step"][-1]},
            remedy=_FORGET,
        )
    yield from _cast_no_more(group, weights, set(noted))


def _cast_no_more(group: Group, weights: pl.DataFrame, known: set[str]) -> Iterator[Finding]:
    """A trained weight that is not cast any more, though most others are, and its layer runs on."""
    casts = weights.group_by("step").agg(modules=pl.col("module").n_unique())
    common = sorted(casts.filter(2 * pl.col("modules") > weights["module"].n_unique())["step"].to_list())
    frozen = {name for note in group.noted("modules") for name in note["frozen"]}
    frozen |= {note["module"] for note in group.noted("frozen_weight")}
    running = dict(group.steps.filter(role="input").group_by("module").agg(pl.col("step").max()).iter_rows())
    for module, last in weights.group_by("module", maintain_order=True).agg(pl.col("step").max()).iter_rows():
        missed = [step for step in common if last < step <= running.get(module, -1)]
        if len(missed) < limits.LASTING or module in frozen | known:
            continue
        is_known = bool(group.noted("modules"))
        yield Finding(
            rule="stale_weight",
            severity="warning" if is_known else "note",
            module=module,
            role="weight",
            step=missed[0],
            evidence=f"the weight was cast last at step {last}; since then most others were in "
            f"{count(len(missed), 'step')}, and the layer ran on, with a cast that is kept",
            numbers={"cast_at": last, "missed": len(missed)},
            remedy=_FORGET,
        )


def idle_weight(group: Group) -> Iterator[Finding]:
    """A weight that no step of the optimizer moves, while it moves the others."""
    weights = group.steps.filter(role="weight").with_columns(
        moved=(pl.col("amax") != pl.col("amax").shift(1).over(TENSOR)).fill_null(value=True)
    )
    counts = weights.group_by("module", maintain_order=True).agg(
        template=pl.col("template").first(),
        casts=pl.len(),
        share=(pl.col("moved").sum() - 1) / (pl.len() - 1),
        still_from=pl.col("step").filter("moved").last(),
        still=(pl.len() - pl.col("moved").arg_true().last()),
        amax=pl.col("amax").last(),
        begun=pl.col("step").first(),
    )
    counts = counts.filter(pl.col("casts") >= limits.IDLE_CASTS)
    moving = counts.filter(pl.col("share") >= limits.MOVING_SHARE)
    if 2 * moving.height < counts.height:
        return
    for row in counts.filter(pl.col("still") >= limits.IDLE_CASTS).iter_rows(named=True):
        if not _same_histogram(group, row["module"], row["still_from"]):
            continue
        steps = weights.filter((pl.col("module") == row["module"]) & (pl.col("step") > row["still_from"]))["step"]
        whole = row["still_from"] == row["begun"]
        yield Finding(
            rule="idle_weight",
            severity="warning",
            module=row["module"],
            role="weight",
            step=row["begun"] if whole else steps[0],
            evidence=f"its largest magnitude is {row['amax']:.6g} in {count(row['still'], 'cast')} on end, "
            "while the optimizer moves the others: it is frozen, gets no gradient, or its cast is stale",
            numbers={"amax": row["amax"], "casts": row["still"]},
            remedy="check weight.requires_grad and the optimizer's parameter groups; after writes to weight.data, "
            "octoscale.forget_casts(model)",
        )


def _same_histogram(group: Group, module: str, since: int) -> bool:
    """Whether no histogram of the weight since a step says that it moved."""
    of = (pl.col("module") == module) & (pl.col("role") == "weight") & (pl.col("step") >= since)
    seen = group.rows.filter(of & pl.col("histogram").is_not_null())
    return seen["histogram"].n_unique() <= 1


def frozen_weight(group: Group) -> Iterator[Finding]:
    """A weight without training, from the beginning or since some step, though that of its siblings is trained."""
    late = {note["module"]: note["step"] for note in reversed(group.noted("frozen_weight"))}
    for note in group.noted("modules")[-1:]:
        known = dict.fromkeys([*note["frozen"], *late])
        trained = {template_of(name) for name in note["fp8"] if name not in known}
        frozen = [name for name in known if template_of(name) in trained]
        if len(frozen) * 2 > len(note["fp8"]):
            continue
        for module in frozen:
            since = f" since step {late[module]}" if module in late else ""
            yield Finding(
                rule="frozen_weight",
                severity="note",
                module=module,
                role="weight",
                step=late.get(module, group.all_steps[0]),
                evidence=f"the weight takes no gradient{since}, that of its siblings does; "
                f"{count(len(frozen), 'layer')} of {len(note['fp8'])} are so",
                numbers={"frozen": len(frozen), "layers": len(note["fp8"])},
                remedy="if it should be trained: weight.requires_grad_(True) before the optimizer is made",
            )
