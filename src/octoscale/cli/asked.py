"""An option that was typed and that nothing would read is an error: what was asked for is never passed over.

    check_validation(typed, plan)        typed: the names of the options on the command line
    check_training(typed, plan)

Each row of a table says of an option when it is read, and what to do where it is not.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from octoscale.models.labels import HUB_TASKS
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.training.settings import Training
from octoscale.validation.settings import Validation

_Row = tuple[str, Callable[[Any], bool], str]


def _converts(plan: Validation | Training) -> bool:
    return any(text not in PRECISIONS and text != STORED for text in _scalings(plan))


def _takes_formats(plan: Validation | Training) -> bool:
    own = (text not in PRECISIONS and text != STORED and "formats=" not in text for text in _scalings(plan))
    return any(own)


def _records(plan: Validation | Training) -> bool:
    return plan.every == 0 or any(text not in PRECISIONS for text in _scalings(plan))


_OF_FP8: tuple[_Row, ...] = (
    ("formats", _takes_formats, "--formats is for FP8 scalings without formats of their own, not for {scalings}"),
    ("skip", _converts, "--skip keeps layers out of FP8, to which {scalings} converts none: leave it out"),
    ("every", _records, "--every is for records of FP8 layers, and {scalings} has none: leave it out"),
)
_VALIDATION: tuple[_Row, ...] = (
    *_OF_FP8,
    ("limit", lambda plan: plan.task is not None, "--limit is for the questions of --task: give one, or leave it out"),
)
_TRAINING: tuple[_Row, ...] = (
    *_OF_FP8,
    ("examples", lambda plan: plan.task is not None, "--examples is for --task; --tokens counts those of a text"),
    ("tokens", lambda plan: plan.task is None, "--tokens is for a text; --examples counts those of --task"),
    ("text", lambda plan: plan.task is None, "a training reads --text or --task, not both"),
    (
        "validation",
        lambda plan: plan.eval_task is None and plan.task not in HUB_TASKS,
        "--validation is the part of a text or file; here {where} is what is validated with",
    ),
)


def check_validation(typed: Iterable[str], plan: Validation) -> None:
    """ValueError for an option of validate or sweep that was typed in vain."""
    _check(typed, plan, _VALIDATION)


def check_training(typed: Iterable[str], plan: Training) -> None:
    """ValueError for an option of train that was typed in vain."""
    _check(typed, plan, _TRAINING)


def _check(typed: Iterable[str], plan: Validation | Training, rows: tuple[_Row, ...]) -> None:
    names = set(typed)
    for option, is_read, otherwise in rows:
        if option in names and not is_read(plan):
            where = getattr(plan, "eval_task", None) or "the hub's own split"
            raise ValueError(otherwise.format(scalings=" and ".join(_scalings(plan)), where=where))


def _scalings(plan: Validation | Training) -> Sequence[str]:
    return plan.scalings if isinstance(plan, Validation) else (plan.scaling,)
