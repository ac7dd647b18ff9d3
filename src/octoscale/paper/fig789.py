"""Figures 7, 8 and 9: the scales that FP8-AMAX chooses in fine-tuning, by step; of the three smallest models.

Kinds of layers by roles; of each the first decoder layer, the two middle ones, and the last.
"""

import polars as pl

from octoscale.paper.lab import Lab
from octoscale.paper.settings import TITLES
from octoscale.paper.tasks import tasks_of
from octoscale.paper.write import Numbers
from octoscale.runs.scale_bias import scale_bias_by_step
from octoscale.runs.scales import read_scales


def fig7(lab: Lab) -> Numbers:
    """The smallest model's numbers, measured where they are not yet."""
    return _figure(lab, "fig7", 0)


def fig8(lab: Lab) -> Numbers:
    """The second smallest model's."""
    return _figure(lab, "fig8", 1)


def fig9(lab: Lab) -> Numbers:
    """The third smallest model's."""
    return _figure(lab, "fig9", 2)


def _figure(lab: Lab, name: str, place: int) -> Numbers:
    model, task = lab.by_size(name)[place], tasks_of(name, lab.settings)[0]
    seed = lab.settings.seed_list[0]
    rows = scale_bias_by_step(
        read_scales(lab.trained(model, task, "amax", seed).path).filter(pl.col("phase") == "train")
    )
    series = [
        {"role": role, "kind": kind, "layer": layer, "step": part["step"].to_list(), "mode": part["mode"].to_list()}
        for (role, kind, layer), part in rows.group_by("role", "kind", "layer", maintain_order=True)
    ]
    panel = {"model": model, "task": task.name, "seed": seed, "series": series}
    return Numbers(name=name, title=f"Figure {name[3:]}. {TITLES[name]}", panels=[panel], notes=(_NOTE,))


_NOTE = "Mode over the modules of a kind and the micro-batches of a step."
