"""How long a training step takes in FP8, beside bfloat16 autocast, and what the layers keep for backward.

Every candidate is the same model with float32 parameters and its own AdamW; a step is forward under bfloat16 autocast,
backward and update of `batch` windows of `window` tokens. They take turns, as in kernels.py.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.bench.kernels import Report, alternate, has, machine, time_over
from octoscale.conversion.convert import convert, preview
from octoscale.conversion.record import fp8_layers, record
from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.layers.origin import is_conv1d
from octoscale.models import loading
from octoscale.numerics.recipe import Recipe
from octoscale.runs.scales import Recorder

MODEL, BATCH, WINDOW, ROUNDS = "smollm2-135m", 4, 256, 7

#: So many times the rounds for what a record adds, which is less than the noise of few steps.
_RECORDED = 3


def train(model: str = MODEL, batch: int = BATCH, window: int = WINDOW, rounds: int = ROUNDS) -> Report:
    """Seconds of a step under each candidate, bytes kept for backward, ratios."""
    amax = _Step(model, batch, window, Recipe.amax())
    steps: dict[str, Callable[[], object]] = {
        "bf16 autocast": (baseline := _Step(model, batch, window)),
        "AMAX": amax,
        "CSCALE": _Step(model, batch, window, Recipe.cscale(0)),
    }
    if has("torchao"):
        steps["torchao emulated"] = _Step(model, batch, window, emulated=True)
    seconds = alternate(steps, rounds)
    saved = {"bf16 autocast": baseline.saved_bytes(), "AMAX": amax.saved_bytes()}
    ours = seconds["AMAX"]
    return {
        "what": f"{model}, a step of {batch} x {window} tokens, float32 parameters, AdamW",
        "machine": machine(),
        "seconds": seconds,
        "MB kept for backward": {name: value / 1e6 for name, value in saved.items()},
        "ratios": {
            "step_time_over_bf16": ours / seconds["bf16 autocast"],
            "cscale_step_time_over_bf16": seconds["CSCALE"] / seconds["bf16 autocast"],
            "speedup_over_torchao": seconds["torchao emulated"] / ours if "torchao emulated" in seconds else None,
            "saved_bytes_over_bf16": saved["AMAX"] / saved["bf16 autocast"],
            "recorder_time_over_none": amax.recorder_time(_RECORDED * rounds),
        },
    }


class _Step:
    """One training step of a model of its own; calling it takes one."""

    def __init__(
        self, model: str, batch: int, window: int, recipe: Recipe | None = None, *, emulated: bool = False
    ) -> None:
        torch.manual_seed(0)
        self._model = loading.load(model, torch.float32).model.train()
        self._layers = [row.module for row in preview(self._model, Recipe.amax()).converted]
        self._ids = torch.randint(0, self._model.config.vocab_size, (batch, window))
        if recipe is not None:
            convert(self._model, recipe)
        if emulated:
            _emulate_by_torchao(self._model, set(self._layers))
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-6, fused=True)

    def __call__(self) -> None:
        self._loss().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()

    def recorder_time(self, rounds: int) -> float:
        """The time of a recorded step over that of another, in one long recording, as a training is.

        Histograms, which are for each N-th step, are on none.
        """

        def step(recorder: Recorder | None) -> None:
            for layer in fp8_layers(self._model):
                layer.fp8.runtime.attach(recorder)
            self()

        with tempfile.TemporaryDirectory() as folder, record(self._model, folder, every=0) as recorder:
            return time_over(partial(step, None), partial(step, recorder), rounds)

    def saved_bytes(self) -> int:
        """The bytes that the linear layers of the decoder keep for backward; a tensor that two keep counts once."""
        kept: dict[int, int] = {}
        with _noting(self._model, self._layers, kept):
            self._loss()
        return sum(kept.values())

    def _loss(self) -> Tensor:
        with bf16_through_float32(self._model), torch.autocast("cpu", torch.bfloat16):
            loss: Tensor = self._model(input_ids=self._ids, labels=self._ids).loss
        return loss


@contextmanager
def _noting(model: nn.Module, names: list[str], kept: dict[int, int]) -> Iterator[None]:
    """Note address and size of what is saved for backward while one of the layers runs."""
    inside = False

    def enter(*_: Any) -> None:
        nonlocal inside
        inside = True

    def leave(*_: Any) -> None:
        nonlocal inside
        inside = False

    def note(x: Tensor) -> Tensor:
        if inside and not isinstance(x, nn.Parameter):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    layers = [model.get_submodule(name) for name in names]
    hooks = [
        hook
        for layer in layers
        for hook in (layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave))
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def _emulate_by_torchao(model: nn.Module, names: set[str]) -> None:
    """Put the layers into torchao's tensorwise float8 training, which a CPU can only emulate.

    It knows nn.Linear only, so GPT-2's Conv1D layers become such before.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    for name in names:
        if is_conv1d(model.get_submodule(name)):
            model.set_submodule(name, _linear_of(model.get_submodule(name)))
    config = Float8LinearConfig(emulate=True)
    convert_to_float8_training(model, config=config, module_filter_fn=lambda _, name: name in names)


def _linear_of(conv1d: Any) -> nn.Linear:
    """The linear layer that computes what a Conv1D does."""
    linear = nn.Linear(*conv1d.weight.shape)
    with torch.no_grad():
        linear.weight.copy_(conv1d.weight.t())
        linear.bias.copy_(conv1d.bias)
    return linear
