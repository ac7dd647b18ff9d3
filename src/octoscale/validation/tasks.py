"""What a model is asked besides a text: tasks, each a list of items of which a share is right.

    tasks = read_tasks(["piqa", "arc_easy"], limit=100)
    for score in tasks.ask(loaded.model): ...                    a TaskScore a task

A causal language model is asked through lm-eval (harness.py), a classifier for the class of each text (classes.py).
"""

import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the command line reads the names of tasks without torch
    from torch import nn

#: The paper's tasks (Perez et al. 2023, Tables 2 and 4), each with its number of examples in the prompt.
GROUPS: dict[str, dict[str, int]] = {
    "paper-llama": {"mmlu": 5, "hellaswag": 0, "arc_easy": 0, "arc_challenge": 0, "piqa": 0, "winogrande": 0},
    "paper-gpt": {"mnli": 0, "qqp": 0, "sst2": 0},
}

#: Called with the requests that are done.
OnBatch = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """How a model did on a task.

    metric: the one that counts, `acc_norm` where the task has it. metrics: all of them, by name. values: `metric` of
    each item, in the task's order; none where the task's score is no mean over items. items: of each what was right,
    what the model said, and every metric, as the run keeps it.
    """

    task: str
    metric: str
    metrics: Mapping[str, float]
    values: tuple[float, ...]
    items: tuple[Mapping[str, Any], ...]

    @property
    def score(self) -> float:
        """What counts."""
        return self.metrics[self.metric]

    @property
    def standard_error(self) -> float | None:
        """The standard error of the mean over items, as lm-eval's; None for fewer than two."""
        if len(self.values) < 2:
            return None
        mean = math.fsum(self.values) / len(self.values)
        squares = math.fsum((value - mean) ** 2 for value in self.values)
        return math.sqrt(squares / (len(self.values) - 1) / len(self.values))


class Tasks(Protocol):
    """Tasks with their data, to be asked of one model under several scalings."""

    @property
    def size(self) -> int:
        """How many requests they are in all."""
        ...

    @property
    def num_items(self) -> int:
        """How many items they have in all."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these tasks from others: their names, and a checksum of all that is asked."""
        ...

    def ask(self, model: "nn.Module", on_batch: OnBatch | None = None) -> Iterator[TaskScore]:
        """The model's scores, task by task. NonFiniteError, naming task and item, where an answer has no number."""
        ...


def crc32_of(content: Any) -> int:
    """A checksum of what JSON can say."""
    return zlib.crc32(json.dumps(content).encode())


def expand(names: Sequence[str], num_fewshot: int | None = None) -> dict[str, int | None]:
    """Each task's name and its number of examples in the prompt: the wanted one, a group's, or None for the task's own.

    A name that stands twice is asked once, as it stands first.
    """
    asked: dict[str, int | None] = {}
    for name in names:
        for task, shots in GROUPS.get(name, {name: None}).items():
            asked.setdefault(task, num_fewshot if num_fewshot is not None else shots)
    return asked
