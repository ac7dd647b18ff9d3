"""What is measured of a model as it stands: the perplexity of a text, from the loss of each token of its windows."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    check_mode(model)
    total, count = 0.0, 0
    with torch.no_grad():
        for index, loss in enumerate(losses or (window_loss(model, window) for window in windows)):
            total += float(loss.double().sum())
            count += loss.numel()
            if on_window is not None:
                on_window(index, float(loss.double().mean()))
    return _exp(total / count)


def window_loss(model: nn.Module, window: Tensor) -> Tensor:
    """The negative log likelihood of each token but the first: float32 [T - 1]."""
    window = window.to(next(model.parameters()).device)
    logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
    return functional.cross_entropy(logits.float(), window[1:], reduction="none")


def check_mode(model: nn.Module) -> None:
    """UserError for a model with dropout."""
    if model.training:
        raise UserError("this model is in training mode, with dropout: call model.eval() first")


def _exp(x: float) -> float:
    """exp(x), infinite where a double ends."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
