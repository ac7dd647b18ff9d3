"""How fast FP8 is beside bf16: the layers of the paper's sizes, forward and backward, and whole training steps.

The limits are measured first: a large GEMM in bf16 and in FP8, and a copy. At best, a pass takes what its operations
take at the GEMM's rate, or what its bytes take at the copy's, whichever is longer. Candidates take turns; the median of
the rounds counts, each of which is a row of calls with one wait at its end, so that launches overlap as in a training.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from gpu_correct import formats, fp8_layer, recipe_of
from torch import Tensor, nn

from octoscale.conversion.convert import convert, preview
from octoscale.kernels import ops
from octoscale.layers.origin import is_conv1d
from octoscale.models.architectures import class_of, is_auto, without_weights
from octoscale.models.sizes import config_of_size
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Amax
from octoscale.training.plan import plan
from octoscale.training.planning import Planning

Row = dict[str, Any]

#: Scalings of a step; the first is high precision.
SCALINGS = ("bf16", "amax", "cscale:0")
ROUNDS, CALLS = 7, 10
#: Of the memory that is free, what a step may take by its plan: gaps of the allocator are not in it.
USABLE = 0.9


def limits(device: str, edge: int, copied: int) -> Row:
    """Operations a second of square GEMMs, and bytes a second of a copy, which reads and writes each."""
    bf16 = torch.randn(edge, edge, device=device).bfloat16()
    a, b = (
        ops.quantize(bf16, formats(device)[0], Amax()),
        ops.in_columns(ops.quantize(bf16, formats(device)[0], Amax())),
    )
    source = torch.empty(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = in_turns(
        {
            "bf16": partial(torch.mm, bf16, bf16),
            "fp8 fast": partial(ops.matmul, a, b, dtype=torch.bfloat16, fast=True),
            "fp8 full": partial(ops.matmul, a, b, dtype=torch.bfloat16),
            "copy": partial(target.copy_, source),
        },
        device,
    )
    rates = {name: 2.0 * edge**3 / seconds[name] for name in ("bf16", "fp8 fast", "fp8 full")}
    return {"GEMM": [edge] * 3, "operations a second": rates, "bytes a second": 2.0 * copied / seconds["copy"]}


def layers(size: str, num_rows: int, limit: Row, device: str) -> Iterator[Row]:
    """The different linear layers of a size: seconds forward and backward in bf16 and in FP8, and what they could be.

    The FP8 forward pass casts the input, and finds the weight cast; the backward one casts the gradient.
    """
    for kind, in_features, out_features in _shapes(size):
        gc.collect()
        x = torch.randn(num_rows, in_features, device=device).bfloat16()
        linear = nn.Linear(in_features, out_features, bias=False, device=device, dtype=torch.bfloat16)
        seconds = in_turns(
            {
                **_passes("bf16", linear, x),
                **_passes("fp8", fp8_layer(linear, kind, device), x),
                "cast": partial(ops.quantize, x, formats(device)[0], Amax()),
            },
            device,
        )
        yield {
            "size": size,
            "kind": kind,
            "rows": num_rows,
            "in_features": in_features,
            "out_features": out_features,
            "seconds": seconds,
            "limits": _limits_of(num_rows, in_features, out_features, limit),
        }


def step(size: str, window: int, device: str) -> Iterator[Row]:
    """A training step of one window under each scaling, or what it would need and there is not."""
    for scaling in SCALINGS:
        gc.collect()
        free = _free(device)
        planned = plan(Planning(model=size, parallel="fsdp=1", scaling=scaling, seq=window))
        needed = planned["training"][scaling]["bytes"]["peak"]
        row: Row = {"size": size, "scaling": scaling, "tokens": window, "bytes planned": needed, "bytes free": free}
        if free is not None and needed > USABLE * free:
            yield row | {"left out": f"needs {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free"}
            continue
        try:
            yield row | _measured(size, scaling, window, device)
        except torch.OutOfMemoryError:
            yield row | {"left out": f"ran out of {(free or 0) / 1e9:,.1f} GB, where {needed / 1e9:,.1f} were planned"}


def in_turns(candidates: dict[str, Callable[[], object]], device: str, calls: int = CALLS) -> dict[str, float]:
    """The median seconds of a call of each, after one round that is not counted."""
    rounds, calls = (1, 1) if device == "cpu" else (ROUNDS, calls)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, candidate in candidates.items():
            _wait(device)
            start = time.perf_counter()
            for _ in range(calls):
                candidate()
            _wait(device)
            times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def _shapes(size: str) -> list[tuple[str, int, int]]:
    """Kind, input and output features of the linear layers of a decoder layer, each once."""
    config = config_of_size(size)
    config.num_hidden_layers = 1
    model = without_weights(config)
    found = {}
    for row in preview(model, Recipe.amax()).converted:
        weight = model.get_submodule(row.module).weight
        in_features, out_features = weight.shape if is_conv1d(model.get_submodule(row.module)) else weight.shape[::-1]
        found[row.kind, in_features, out_features] = None
    return list(found)


def _passes(name: str, layer: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    x = x.detach().requires_grad_()
    y = layer(x)
    grad, inputs = torch.randn_like(y), [x, *layer.parameters()]
    return {
        f"{name} forward": partial(layer, x),
        f"{name} backward": partial(torch.autograd.grad, y, inputs, grad, retain_graph=True),
    }


def _limits_of(num_rows: int, in_features: int, out_features: int, limit: Row) -> dict[str, float]:
    """The least seconds of each pass. A cast reads its bf16 values twice, and writes a byte each."""
    x, w, y = num_rows * in_features, in_features * out_features, num_rows * out_features
    operations, rates, bandwidth = 2.0 * x * out_features, limit["operations a second"], limit["bytes a second"]

    def least(number: int, rate: str, moved: int) -> float:
        return max(number * operations / rates[rate], moved / bandwidth)

    return {
        "bf16 forward": least(1, "bf16", 2 * (x + w + y)),
        "bf16 backward": least(2, "bf16", 2 * (2 * y + 2 * w + 2 * x)),
        "fp8 forward": least(1, "fp8 fast", 5 * x + (x + w) + 2 * y),
        "fp8 backward": least(2, "fp8 full", 5 * y + (2 * y + w + x) + 2 * (x + w)),
        "cast": 5 * x / bandwidth,
    }


def _measured(size: str, scaling: str, window: int, device: str) -> Row:
    model = _model(size, scaling, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    vocabulary = model.config.vocab_size
    ids = torch.randint(0, vocabulary, (1, window), generator=torch.Generator().manual_seed(0)).to(device)
    losses = []

    def take() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss: Tensor = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = in_turns({"step": take}, device, calls=1)["step"]
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "seconds": seconds,
        "tokens a second": window / seconds,
        "operations a second": 6.0 * num_parameters * window / seconds,
        "bytes held": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "losses": [f"{float(loss):.4g}" for loss in (losses[0], losses[-1])],
    }


def _model(size: str, scaling: str, device: str) -> Any:
    """Random weights, made where they stay."""
    config = config_of_size(size)
    torch.manual_seed(0)
    with torch.device(device):
        cls = class_of(config)
        model = cls.from_config(config) if is_auto(config) else cls(config)
    recipe = recipe_of(scaling, device)
    if isinstance(recipe, Recipe):
        convert(model, recipe)
    return model.train()


def _free(device: str) -> int | None:
    if device != "cuda":
        return None
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
