"""Small recorded trainings, and a moment in each where something can be planted.

    train(tiny_llama(), Recipe.amax(), folder, plant=Plant(step=12, do=lambda model: ...))

The task is to go on with a sequence that counts by ones, twos or threes: the loss falls as in a real training. Or a
model is fine-tuned on a few examples, some of which are others each time: its gradients go up and down by much.
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


def counting(part: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens and the labels of a micro-batch: to go on with sequences that count."""
    ids = windows(part, seed)
    return ids, ids


def noisy_examples(part: int, seed: int, num_examples: int = 8, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples of a small set with one label each, its last token; a quarter of them are drawn again at random."""
    of_set, of_part = (torch.Generator().manual_seed(number) for number in (seed, 10_000 * (seed + 1) + part))
    examples = torch.randint(VOCABULARY, (num_examples, 16), generator=of_set)
    chosen = examples[torch.randint(num_examples, (batch,), generator=of_part)]
    others = torch.randint(VOCABULARY, chosen.shape, generator=of_part)
    ids = torch.where(torch.rand(batch, 1, generator=of_part) < 0.25, others, chosen)
    labels = torch.full_like(ids, -100)
    labels[:, -1] = ids[:, -1]
    return ids, labels


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
    data: Callable[[int, int], tuple[torch.Tensor, torch.Tensor]] = counting,
    outside: bool = False,
    autocast: bool = False,
    every: int = 4,
) -> Path:
    """Train with AdamW and record it; `plant(model, step)` is called before each step's forward pass.

    data: the number of a micro-batch and the seed -> tokens and labels.
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
                ids, labels = data(step * micro_batches + part, seed)
                with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
                    loss = _loss(model, ids, labels, outside)
                (loss * scale).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad /= scale
            optimizer.step()
            optimizer.zero_grad()
    return folder


def _loss(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor, outside: bool) -> torch.Tensor:
    if not outside:
        return model(input_ids=ids, labels=labels).loss
    logits = model(input_ids=ids).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


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
