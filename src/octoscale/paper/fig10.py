"""Figure 10: the losses of fine-tuning in high precision and under FP8-AMAX, a panel a model: do they coincide?"""

from typing import Any

from octoscale.paper.lab import Lab
from octoscale.paper.settings import TITLES
from octoscale.paper.tasks import tasks_of
from octoscale.paper.write import Numbers
from octoscale.runs.folder import RunFolder


def fig10(lab: Lab) -> Numbers:
    """The numbers, measured where they are not yet."""
    task, seed = tasks_of("fig10", lab.settings)[0], lab.settings.seed_list[0]
    panels = [
        {
            "model": model,
            "task": task.name,
            "seed": seed,
            "series": [
                {"scaling": scaling, **_losses(lab.trained(model, task, scaling, seed))}
                for scaling in (lab.high, "amax")
            ],
        }
        for model in lab.by_size("fig10")
    ]
    return Numbers(name="fig10", title=f"Figure 10. {TITLES['fig10']}", panels=panels, notes=(_NOTE,))


def _losses(run: RunFolder) -> dict[str, list[Any]]:
    """The loss of each step that was logged; None where it was not finite."""
    rows = [row for row in run.read_metrics() if "loss" in row]
    return {"step": [row["step"] for row in rows], "loss": [row["loss"] for row in rows]}


_NOTE = "The loss of each step, pale, and its running mean."
