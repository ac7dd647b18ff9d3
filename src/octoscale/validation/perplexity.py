"""What is measured of a model as it stands: the perplexity of a text, the accuracy on questions.

Both come from the loss of each token of one window, one forward pass.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from octoscale.models.questions import Question, Task
from octoscale.models.texts import Encode
from octoscale.system.errors import UserError


def perplexity(
    model: nn.Module,
    windows: Tensor,
    on_window: Callable[[int, float], None] | None = None,
    losses: Iterable[Tensor] | None = None,
) -> float:
    """The exponential of the mean negative log likelihood of each window's tokens but its first; windows int64 [W, T].

    One window is one forward pass, so one micro-batch for just-in-time scaling. Losses are summed in float64 from
    float32 log likelihoods. `on_window` gets each window's index and mean loss. losses: of each window, where they are
    computed in another way. Raises NonFiniteError as
    Fp8Linear, ValueError for a model in training mode.
    """
    _check_mode(model)
    total, count = 0.0, 0
    with torch.no_grad():
        for index, loss in enumerate(losses or (window_loss(model, window) for window in windows)):
            total += float(loss.double().sum())
            count += loss.numel()
            if on_window is not None:
                on_window(index, float(loss.double().mean()))
    return _exp(total / count)


def right_answers(model: nn.Module, task: Task) -> tuple[bool, ...] | None:
    """Of each question, whether its likeliest choice, per byte of its text, is the right one.

    None if a likelihood is NaN, or no choice of a question has one: then no choice is the likeliest.
    """
    _check_mode(model)
    right = []
    with torch.no_grad():
        for question in task.questions:
            scores = [_choice_score(model, task.encode, question, choice) for choice in question.choices]
            if any(map(math.isnan, scores)) or math.isinf(max(scores)):
                return None
            right.append(scores.index(max(scores)) == question.gold)
    return tuple(right)


def accuracy(model: nn.Module, task: Task) -> float:
    """The share of `right_answers`, in 0..1; NaN where there are none."""
    return share(right_answers(model, task))


def share(right: Sequence[bool] | None) -> float:
    """How many of the answers are right, in 0..1; NaN for None."""
    return math.nan if right is None else sum(right) / len(right)


def window_loss(model: nn.Module, window: Tensor) -> Tensor:
    """The negative log likelihood of each token but the first: float32 [T - 1]."""
    window = window.to(next(model.parameters()).device)
    logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
    return functional.cross_entropy(logits.float(), window[1:], reduction="none")


def _choice_score(model: nn.Module, encode: Encode, question: Question, choice: str) -> float:
    """Log likelihood of the choice's tokens after the query, per byte of the choice's text."""
    context, full = question.ids(encode, choice)
    start = max(1, next((i for i, (a, b) in enumerate(zip(context, full, strict=False)) if a != b), len(context)))
    loss = window_loss(model, torch.tensor(full, dtype=torch.int64))
    return -float(loss[start - 1 :].sum()) / len(choice.strip().encode())


def _check_mode(model: nn.Module) -> None:
    if model.training:
        raise UserError("this model is in training mode, with dropout: call model.eval() first")


def _exp(x: float) -> float:
    """exp(x), infinite where a double ends."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
