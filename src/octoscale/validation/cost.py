"""What a change of a model costs: the losses of a text after it, against those before, window by window.

    before = token_losses(model, windows)
    cost = paired_cost(token_losses(changed, windows), before)       cost.mean, cost.low, cost.high, cost.excess

Both models read the same windows, so what a text is worth by itself drops out: what is left is each window's own
difference, and their spread gives the interval. Windows are taken for independent, tokens of one window are not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.kernels.bf16_gemm import bf16_through_float32
from octoscale.layers.state import NonFiniteError
from octoscale.validation.perplexity import window_loss

#: Student's t: 97.5 % of its distribution lie below, by degrees of freedom from 1 on; then its first terms in 1/n.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The mean difference of the loss in nats a token, and half of its 95 % interval.

    Infinite, both, where a loss was infinite or NaN.
    """

    mean: float
    margin: float

    @property
    def low(self) -> float:
        """Where the 95 % interval begins."""
        return self.mean - self.margin if math.isfinite(self.margin) else -math.inf

    @property
    def high(self) -> float:
        """Where the 95 % interval ends."""
        return self.mean + self.margin

    @property
    def excess(self) -> float:
        """By how much the perplexity is larger: 0.01 for 1 %."""
        return excess_of(self.mean)

    @property
    def is_clear(self) -> bool:
        """Whether it can be told from zero: the interval does not hold it."""
        return not self.low <= 0 <= self.high or math.isinf(self.mean)

    def to_json(self) -> dict[str, Any]:
        """As advice.json holds it: null for what is not finite."""
        values = {"loss": self.mean, "low": self.low, "high": self.high, "perplexity_excess": self.excess}
        plain: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return plain | {"is_clear": self.is_clear}


def paired_cost(after: Tensor, before: Tensor) -> Cost:
    """The cost of a change, from the losses [W, T] of the same tokens in the same W windows, at least 2."""
    differences = (after.double() - before.double()).mean(1)
    if not bool(differences.isfinite().all()):
        return Cost(mean=math.inf, margin=math.inf)
    count = len(differences)
    margin = student(count - 1) * float(differences.std()) / math.sqrt(count)
    return Cost(mean=float(differences.mean()), margin=margin)


@torch.no_grad()
def token_losses(model: nn.Module, windows: Tensor, on_window: Callable[[], None] | None = None) -> Tensor:
    """The loss of each token but each window's first: float64 [W, T - 1]; NaN where a layer's input was not finite."""
    rows = []
    with bf16_through_float32(model):
        for window in windows:
            try:
                rows.append(window_loss(model, window).double().cpu())
            except NonFiniteError:
                rows.append(torch.full((len(window) - 1,), math.nan, dtype=torch.float64))
            if on_window is not None:
                on_window()
    return torch.stack(rows)


def student(freedom: int) -> float:
    """How many standard errors reach to either end of a 95 % interval of a mean, by its degrees of freedom."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    return 1.959964 + 2.3722 / freedom + 2.8225 / freedom**2 + 2.5559 / freedom**3


def excess_of(loss: float) -> float:
    """The excess of the perplexity that a difference of losses makes: exp(loss) - 1, infinite where a double ends."""
    return math.expm1(loss) if loss < 700 else math.inf
