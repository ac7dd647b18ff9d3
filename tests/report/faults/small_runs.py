"""Small recorded trainings, and a moment in each where something can be planted.

    train(tiny_llama(), Recipe.amax(), folder, plant=Plant(step=12, do=lambda model: ...))

The task is to go on with a sequence that counts by ones, twos or threes: the loss falls as in a real training.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from models import VOCABULARY
from torch import nn

import octoscale
from octoscale import Recipe

STEPS = 30


def windows(step: int, seed: int = 0, batch: int = 4, length: int = 16) -> torch.Tensor:
    """Sequences that count, [batch, length]; others at each step."""
    random = torch.Generator().manual_seed(1000 * seed + step)
    first = torch.randint(VOCABULARY, (batch, 1), generator=random)
    stride = torch.randint(1, 4, (batch, 1), generator=random)
    return (first + stride * torch.arange(length)) % VOCABULARY


def train(
    model: nn.Module,
    recipe: Recipe,
    folder: Path,
    *,
    steps: int = STEPS,
    rate: float = 2e-3,
    decay: float = 0.01,
    seed: int = 0,
    plant: Callable[[nn.Module, int], None] | None = None,
    loss_scale: Callable[[int], float] = lambda _: 1.0,
    micro_batches: int = 1,
    outside: bool = False,
    autocast: bool = False,
    every: int = 4,
) -> Path:
    """Train with AdamW and record it; `plant(model, step)` is called before each step's forward pass.

    outside: the loss is computed of the logits, so that nobody can note what backward begins with.
    """
    model.train()
    octoscale.convert(model, recipe)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=decay)
    with octoscale.record(model, folder, every=every, phase="train") as recorder:
        for step in range(steps):
            if plant is not None:
                plant(model, step)
            scale = loss_scale(step)
            for part in range(micro_batches):
                recorder.step = step
                ids = windows(step * micro_batches + part, seed)
                with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                    loss = _loss(model, ids, outside)
                (loss * scale).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= scale
            optimizer.step()
            optimizer.zero_grad()
    return folder


def _loss(model: nn.Module, ids: torch.Tensor, outside: bool) -> torch.Tensor:
    if not outside:
        return model(input_ids=ids, labels=ids).loss
    logits = model(input_ids=ids).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def infer(
    model: nn.Module,
    recipe: Recipe,
    folder: Path,
    *,
    steps: int = 12,
    seed: int = 0,
    plant: Callable[[nn.Module, int], None] | None = None,
    every: int = 1,
) -> Path:
    """Forward passes in inference, recorded."""
    octoscale.convert(model.eval(), recipe)
    with octoscale.record(model, folder, every=every, phase="validate"), torch.no_grad():
        for step in range(steps):
            if plant is not None:
                plant(model, step)
            model(input_ids=windows(step, seed))
    return folder


def at(step: int, do: Callable[[nn.Module], None]) -> Callable[[nn.Module, int], None]:
    """A plant that does something once, before the forward pass of a step."""
    return lambda model, now: do(model) if now == step else None
