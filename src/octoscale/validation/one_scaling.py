"""One scaling of a model: convert it, ask it, record every cast, and revert it, whatever comes.

score = score_one(model, recipe, Context(windows=windows, tasks=None, run=run))
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from octoscale.conversion.convert import convert, revert
from octoscale.conversion.record import record
from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.layers.state import NonFiniteError
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.numerics.recipe import Recipe
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import Recorder
from octoscale.system.errors import UserError
from octoscale.validation.by_layer import check_by_layer, losses_by_layer
from octoscale.validation.perplexity import perplexity, window_loss
from octoscale.validation.scores import Score
from octoscale.validation.tasks import Tasks, TaskScore

#: Called with the scaling, windows and requests (or layers) done, and in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a scaling is asked, and where the answer is recorded.

    every: histograms of exponents on each N-th window; 0 for none. to_check: whether this model can go layer by layer
    is not known yet. rank: of this process, if several share the model; the first one writes what all of them know.
    autocast: the dtype to compute in, with parameters of float32; another precision is computed without it.
    """

    windows: Tensor | None
    tasks: Tasks | None
    run: RunFolder | None
    every: int = 0
    by_layer: bool = False
    to_check: bool = False
    rank: int = 0
    progress: Progress | None = None
    autocast: torch.dtype | None = None


@dataclass(kw_only=True)
class _Answers:
    """What the model has said so far under one scaling."""

    name: str
    context: Context
    losses: list[float] = field(default_factory=list)
    tasks: list[TaskScore] = field(default_factory=list)

    def on_window(self, index: int, loss: float) -> None:
        """The mean loss of a window."""
        self.losses.append(loss)
        if self.context.run is not None and self.context.rank == 0:
            known = loss if math.isfinite(loss) else None
            self.context.run.append_metrics({"scaling": self.name, "window": index, "loss": known})
        if not self.context.by_layer:
            self.tell(index + 1)

    def on_task(self, score: TaskScore) -> None:
        """The score of a task."""
        self.tasks.append(score)
        if self.context.run is not None and self.context.rank == 0:
            self.context.run.write_items(score.task, self.name, score.items)

    def tell(self, done: int) -> None:
        """Progress, in windows and then requests."""
        if self.context.progress is not None:
            self.context.progress(self.name, done, self._windows + self._requests)

    def tell_requests(self, done: int) -> None:
        """Progress in requests, which come after the windows."""
        self.tell(self._windows + done)

    @property
    def _windows(self) -> int:
        return 0 if self.context.windows is None else len(self.context.windows)

    @property
    def _requests(self) -> int:
        return 0 if self.context.tasks is None else self.context.tasks.size


def score_one(model: nn.Module, scaling: Recipe | str, context: Context) -> Score:
    """What the model reaches under a scaling; it is left as it was. An answer that is not finite is a failure."""
    name = scaling.name if isinstance(scaling, Recipe) else scaling
    answers = _Answers(name=name, context=context)
    value = None if context.windows is None else math.nan
    failure = None
    started = time.perf_counter()
    with ExitStack() as stack:
        try:
            if context.to_check and context.windows is not None:
                with bf16_through_float32(model):
                    check_by_layer(model, context.windows, window_loss)
            model, recorder = _enter(stack, model, scaling, context)
            if context.windows is not None:
                losses = _by_layer(model, context.windows, name, recorder, context) if context.by_layer else None
                value = perplexity(model, context.windows, answers.on_window, losses)
            for score in context.tasks.ask(model, answers.tell_requests) if context.tasks is not None else ():
                answers.on_task(score)
        except NonFiniteError as error:
            failure = str(error)
    seconds = time.perf_counter() - started
    return Score(
        scaling=name,
        perplexity=value,
        seconds=seconds,
        tasks=tuple(answers.tasks),
        failure=failure,
        losses=tuple(answers.losses),
    )


def _enter(
    stack: ExitStack, model: nn.Module, scaling: Recipe | str, context: Context
) -> tuple[nn.Module, Recorder | None]:
    """The model under a scaling, recorded where that has something to record, until the stack is closed."""
    recorder = None
    computed = context.autocast if isinstance(scaling, Recipe) or context.autocast == _dtype_of(scaling) else None
    if computed is not None:
        stack.enter_context(torch.autocast(next(model.parameters()).device.type, computed))
    if isinstance(scaling, Recipe):
        stack.callback(revert, model)
        convert(model, scaling)
    elif scaling != STORED and computed is None:
        model = _in_precision(model, scaling)
    if context.run is not None and (isinstance(scaling, Recipe) or scaling == STORED):
        name = scaling.name if isinstance(scaling, Recipe) else scaling
        recording = record(
            model, context.run.path, every=context.every, phase="validate", scaling=name, rank=context.rank
        )
        recorder = stack.enter_context(recording)
    stack.enter_context(bf16_through_float32(model))
    return model, recorder


def _in_precision(model: nn.Module, precision: str) -> nn.Module:
    """The model if its parameters have this precision (a key of PRECISIONS), else a copy that does."""
    dtype = _dtype_of(precision)
    if dtype is None:
        raise UserError(f"unknown precision {precision!r}: one of {', '.join(PRECISIONS)}")
    return model if next(model.parameters()).dtype == dtype else copy.deepcopy(model).to(dtype)


def _dtype_of(precision: str) -> torch.dtype | None:
    """The dtype of a key of PRECISIONS; None for another text."""
    return getattr(torch, PRECISIONS[precision]) if precision in PRECISIONS else None


def _by_layer(
    model: nn.Module, windows: Tensor, name: str, recorder: Recorder | None, context: Context
) -> Iterator[Tensor]:
    """The losses of each window, layer by layer; records and progress as they should be."""

    def at_window(index: int) -> None:
        if recorder is not None:
            recorder.step = index

    progress = context.progress
    report = None if progress is None else (lambda done, total: progress(name, done, total))
    return losses_by_layer(model, windows, window_loss, on_window=at_window, on_layer=report, is_checked=True)
