"""What a change of a model costs, measured on the same windows before and after: two numbers for one thing.

    before = look(model, windows)
    cost = cost_of(changed, windows, before)        cost.measured, cost.expected: means in nats a token, with intervals

*Measured* is the difference of the losses: what the text at hand lost, by luck too. A token's own loss goes up or down
by far more than by what all of them lose on average, so thousands of tokens tell half a per cent.

*Expected* is the divergence (Kullback-Leibler) of the changed model's next-token probabilities from those before: the
same difference, averaged over what the model itself takes for likely to come next instead of over the one token that
came. It has no luck of the draw in it: of SmolLM2-135M under FP8-AMAX, its interval is a quarter as wide. The two agree
as far as the model's probabilities are right for the text.

Both are paired: each window's own difference counts, and the spread over windows gives the interval. Windows are taken
for independent; tokens of one window are not. Of the probabilities before, the `NUM_LIKELY` largest of each token are
kept and the others as one sum: that can only make the divergence smaller, and takes kilobytes where all take megabytes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.layers.state import NonFiniteError
from octoscale.validation.paired import paired_mean

#: How many probabilities of each token are kept.
NUM_LIKELY = 128


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over windows in nats a token, and half of its 95 % interval; infinite where a loss was infinite or NaN.

    values: of each window.
    """

    mean: float
    margin: float
    values: tuple[float, ...] = ()

    def minus(self, other: "Mean") -> "Mean":
        """The mean difference of the same windows, paired."""
        return mean_of([a - b for a, b in zip(self.values, other.values, strict=True)])

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
        return math.isinf(self.mean) or not self.low <= 0 <= self.high

    def to_json(self) -> dict[str, Any]:
        """As advice.json holds it: null for what is not finite."""
        values = {"loss": self.mean, "low": self.low, "high": self.high, "perplexity_excess": self.excess}
        plain: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return plain | {"is_clear": self.is_clear}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a change costs: the difference of the losses, and what it is expected to be."""

    measured: Mean
    expected: Mean

    def to_json(self) -> dict[str, Any]:
        """As advice.json holds it."""
        return {"measured": self.measured.to_json(), "expected": self.expected.to_json()}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a model said of some windows. losses: float64 [W, T - 1]. tokens: the likeliest ones, int32
    [W, T - 1, K]; shares: their log probabilities, float32.
    """

    losses: Tensor
    tokens: Tensor
    shares: Tensor


def look(model: nn.Module, windows: Tensor) -> Look:
    """The losses of all tokens but each window's first, and the likeliest tokens; windows int64 [W, T]."""
    losses, tokens, shares = [], [], []
    for window, likelihoods in _likelihoods(model, windows):
        losses.append(_losses(likelihoods, window))
        largest = likelihoods.topk(min(NUM_LIKELY, likelihoods.shape[-1]))
        tokens.append(largest.indices.to(torch.int32))
        shares.append(largest.values)
    return Look(losses=torch.stack(losses), tokens=torch.stack(tokens), shares=torch.stack(shares))


def cost_of(model: nn.Module, windows: Tensor, before: Look) -> Cost:
    """What the model costs beside the one that was looked at before, on the same windows, at least 2."""
    measured, expected = [], []
    try:
        for index, (window, likelihoods) in enumerate(_likelihoods(model, windows)):
            measured.append(float((_losses(likelihoods, window) - before.losses[index]).mean()))
            shares = likelihoods.gather(-1, before.tokens[index].long())
            expected.append(float(divergence(before.shares[index], shares).mean()))
    except NonFiniteError:
        measured.append(math.inf)
    return Cost(measured=mean_of(measured), expected=mean_of(expected if len(expected) == len(measured) else measured))


def divergence(before: Tensor, after: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of distributions from their log probabilities [..., K]: float64 [...].

    What is missing to 1 counts as one more token.
    """
    p, q = before.double(), after.double()
    rest_p, rest_q = ((1 - x.exp().sum(-1)).clamp_min(1e-9) for x in (p, q))
    return (p.exp() * (p - q)).sum(-1) + rest_p * (rest_p / rest_q).log()


def mean_of(values: list[float]) -> Mean:
    """The mean of independent values, at least 2, with its interval."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Mean(mean=math.inf, margin=math.inf, values=tuple(values))
    found = paired_mean(values)
    return Mean(mean=found.estimate, margin=(found.high - found.low) / 2, values=tuple(values))


def excess_of(loss: float) -> float:
    """The excess of the perplexity that a difference of losses makes: exp(loss) - 1, infinite where a double ends."""
    return math.expm1(loss) if loss < 700 else math.inf


@torch.no_grad()
def _likelihoods(model: Any, windows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each window, and the log probabilities of each next token in it: float32 [T - 1, vocabulary]."""
    device = next(model.parameters()).device
    with bf16_through_float32(model):
        for window in windows.to(device):
            logits = model(input_ids=window[None], use_cache=False).logits[0, :-1]
            yield window, logits.float().log_softmax(-1)


def _losses(likelihoods: Tensor, window: Tensor) -> Tensor:
    return -likelihoods.gather(-1, window[1:, None])[:, 0].double()
