"""What Tables 2 and 3 and Figure 5 share: each model and task in high precision, under FP8-AMAX, and each constant."""

from collections.abc import Iterator
from dataclasses import dataclass

from octoscale.paper.answers import Answers
from octoscale.paper.lab import Lab
from octoscale.paper.tasks import Task, tasks_of
from octoscale.validation.settings import parse_biases


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A model's answers to a task. seed: of its fine-tuning; None if there was none."""

    model: str
    task: Task
    seed: int | None
    high: Answers
    amax: Answers
    constants: dict[int, Answers]

    @property
    def who(self) -> dict[str, str | int | None]:
        """The columns that say what was asked of whom."""
        return {"model": self.model, "task": self.task.name, "seed": self.seed}


def swept(lab: Lab, target: str) -> Iterator[Swept]:
    """The answers of each model to each task, for each seed."""
    for model in lab.settings.models_of(target):
        for task in tasks_of(target, lab.settings):
            for seed in lab.seeds_of(model, task):
                yield Swept(
                    model=model,
                    task=task,
                    seed=seed,
                    high=lab.ask(model, task, lab.high, seed),
                    amax=lab.ask(model, task, "amax", seed),
                    constants={
                        bias: lab.ask(model, task, f"cscale:{bias}", seed) for bias in parse_biases(lab.settings.bias)
                    },
                )
