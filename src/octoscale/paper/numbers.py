"""The paper's own numbers (Perez et al. 2023, arXiv 2309.17224), each stated once, to stand beside what is measured.

Accuracies in %, in the words of lm-eval and GLUE for the tasks; ranges are the biases low..high.
"""

from dataclasses import dataclass
from typing import TypeVar

#: A range of scaling biases, both ends included.
Biases = tuple[int, int]

Cell = TypeVar("Cell")


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """What a model reached in high precision (fp16), under FP8-AMAX, and with constant biases, where there are any."""

    high: float
    amax: float
    cscale: float | None = None


GPT_SIZES = ("gpt-111m", "gpt-590m", "gpt-1.3b", "gpt-6.7b", "gpt-13b")
LLAMA_SIZES = ("llama2-7b", "llama2-70b")
GPT_TASKS = ("mnli", "qqp", "sst2")
LLAMA_TASKS = ("mmlu", "hellaswag", "arc_easy", "arc_challenge", "piqa", "winogrande")


def _by_size(
    sizes: tuple[str, ...], tasks: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]
) -> dict[str, dict[str, Cell]]:
    """Rows in the order of sizes and tasks, by their names."""
    return {size: dict(zip(tasks, row, strict=True)) for size, row in zip(sizes, rows, strict=True)}


def _accuracies(*rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[Accuracies, ...], ...]:
    return tuple(tuple(Accuracies(**dict(zip(_NAMES, cell, strict=False))) for cell in row) for row in rows)


_NAMES = ("high", "amax", "cscale")

#: GPT inference; cscale is the mean over the biases that pass.
TABLE_2 = _by_size(
    GPT_SIZES,
    GPT_TASKS,
    _accuracies(
        ((72.61, 72.39, 72.49), (85.76, 85.78, 85.73), (84.26, 84.38, 84.59)),
        ((78.59, 78.44, 78.56), (88.40, 88.37, 88.40), (90.63, 90.63, 90.54)),
        ((82.82, 82.68, 82.72), (89.43, 89.42, 89.36), (91.55, 91.44, 91.42)),
        ((87.17, 87.15, 87.18), (91.19, 91.22, 91.18), (94.50, 94.38, 94.48)),
        ((88.26, 88.27, 88.26), (91.22, 91.21, 91.20), (94.61, 94.61, 94.50)),
    ),
)

#: The biases of GPT inference that pass.
TABLE_3: dict[str, dict[str, Biases]] = _by_size(
    GPT_SIZES,
    GPT_TASKS,
    (
        ((-3, 2), (-4, 2), (-4, 2)),
        ((-3, 2), (-4, 2), (-1, 2)),
        ((-3, 3), (-4, 2), (-3, 2)),
        ((-3, 2), (-3, 2), (-3, 2)),
        ((-3, 2), (-4, 2), (-4, 2)),
    ),
)

#: Llama 2 inference: MMLU with five examples in the prompt, the others with none.
TABLE_4 = _by_size(
    LLAMA_SIZES,
    LLAMA_TASKS,
    _accuracies(
        ((46.6, 46.3), (76.0, 75.8), (74.6, 74.5), (46.3, 45.7), (79.1, 78.7), (69.1, 69.1)),
        ((69.6, 69.3), (83.8, 83.8), (81.1, 80.9), (57.3, 57.7), (82.8, 82.6), (78.0, 78.5)),
    ),
)

#: GPT fine-tuning.
TABLE_5 = _by_size(
    GPT_SIZES,
    GPT_TASKS,
    _accuracies(
        ((72.61, 72.50), (85.32, 85.84), (85.07, 85.57)),
        ((78.59, 79.12), (88.25, 88.31), (89.27, 89.00)),
        ((82.82, 82.58), (89.32, 89.32), (91.36, 91.28)),
        ((87.17, 87.26), (91.19, 91.06), (94.53, 94.84)),
        ((88.26, 88.28), (91.22, 91.53), (94.61, 94.50)),
    ),
)

#: The biases of GPT fine-tuning that pass; MNLI alone.
TABLE_6: dict[str, dict[str, Biases]] = _by_size(
    GPT_SIZES, ("mnli",), (((-3, 2),), ((-2, 2),), ((-2, 1),), ((-1, 1),), ((-1, 0),))
)

#: Examples for training of its GLUE tasks, from which its 3 epochs have their steps.
TRAINING_EXAMPLES = {"mnli": 392_702, "qqp": 363_846, "sst2": 67_349}
EPOCHS = 3
