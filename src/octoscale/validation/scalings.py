"""Ask a model the same thing under several scalings: perplexity of a text, accuracy on a task, and what it cost.

    windows = token_windows(read_text("pydoc"), encode, window=512)
    scores = validate(model, ["bf16", "amax", "cscale:-1"], windows=windows, folder="runs/mine")

Each scaling converts the model, evaluates it window by window with every cast recorded to the run, and reverts it. The
results so far are in summary.json after each scaling, so that an interrupted run is a valid, shorter one.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.conversion.convert import convert, revert
from octoscale.conversion.record import record
from octoscale.kernels.bf16_gemm import bf16_through_float32
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.state import NonFiniteError
from octoscale.layers.stored import StoredLinear
from octoscale.models.questions import Task
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.numerics.recipe import Recipe, check_names, parse_scaling
from octoscale.numerics.scaling import Constant
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import Recorder, run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run
from octoscale.system.whole_file import write_json
from octoscale.validation.by_layer import check_by_layer, losses_by_layer
from octoscale.validation.perplexity import perplexity, right_answers, share, window_loss
from octoscale.validation.scores import Score, summarize

#: Called with the scaling, windows (or layers) done, and in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class _Context:
    """What each scaling is asked, and where the answer is recorded."""

    windows: Tensor
    task: Task | None
    run: RunFolder | None
    every: int
    by_layer: bool
    to_check: bool


def validate(
    model: nn.Module,
    scalings: Iterable[Recipe | str],
    *,
    windows: Tensor,
    folder: Path | str | None = None,
    every: int = 16,
    task: Task | None = None,
    head: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    by_layer: bool = False,
) -> list[Score]:
    """Evaluate the model under each scaling, a recipe or a text such as "amax"; the model is left as it was.

    windows: int64 [W, T], see `texts.token_windows`. folder: the run to record to, made if need be; None records
    nothing. every: histograms of exponents on each N-th window, under the first adaptive recipe only (they show the
    values before scaling, which constant scalings share). head: what stands before the results in summary.json.
    by_layer: all windows pass a layer before the next one is read, for checkpoints larger than memory (by_layer.py);
    progress then counts layers, and ValueError refuses models that cannot go so. A model that was loaded with FP8
    weights has one scaling: "stored".
    Raises ValueError for a scaling that cannot be read, two of one name, a model in training mode or in FP8 already;
    FileExistsError if the run holds records, or another process writes to it; and whatever `convert` raises.
    """
    chosen = [_parse(scaling) if isinstance(scaling, str) else scaling for scaling in scalings]
    check_names(chosen)
    _check_state(model, chosen)
    if by_layer and task is not None:
        raise UserError("questions are asked one by one, not layer by layer: leave the task out")
    with nullcontext() if folder is None else exclusive_run(folder, join=True):
        run = None if folder is None else _fresh_run(folder, model)
        head = {"tokens": windows.numel(), "window": windows.shape[-1], **(head or {})}
        histograms = _recipe_with_histograms(chosen)
        scores: list[Score] = []
        _write_summary(run, head, scores)
        for scaling in chosen:
            shown = every if scaling is histograms or scaling == STORED else 0
            to_check = by_layer and not scores
            context = _Context(windows=windows, task=task, run=run, every=shown, by_layer=by_layer, to_check=to_check)
            scores.append(_score(model, scaling, context, progress))
            _write_summary(run, head, scores)
        return scores


def score_one(
    model: nn.Module,
    scaling: Recipe | str,
    *,
    windows: Tensor,
    task: Task | None,
    run: RunFolder,
    every: int,
    progress: Progress | None = None,
) -> Score:
    """One scaling of what `validate` does, for whoever chooses the next one by this one's score.

    The run, which the caller holds, gets its records; its summary is the caller's.
    """
    _check_state(model, [scaling])
    context = _Context(windows=windows, task=task, run=run, every=every, by_layer=False, to_check=False)
    return _score(model, scaling, context, progress)


def _parse(scaling: str) -> Recipe | str:
    return STORED if scaling == STORED else parse_scaling(scaling)


def _check_state(model: nn.Module, scalings: Sequence[Recipe | str]) -> None:
    """ValueError unless the model is in high precision, or holds FP8 weights and is asked about its own scales."""
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    stored = [layer for layer in layers if isinstance(layer, StoredLinear)]
    if stored and len(stored) == len(layers):
        if scalings != [STORED]:
            raise UserError(f"this model holds FP8 weights with their scales: the only scaling it has is {STORED}")
    elif layers:
        raise UserError("this model is in FP8 already: octoscale.revert(model) first")
    elif STORED in scalings:
        raise UserError(f"this model holds no FP8 weights: {STORED} is for checkpoints of octoscale quantize")


def _fresh_run(folder: Path | str, model: nn.Module) -> RunFolder:
    """The run to record to: made if need be; FileExistsError if it holds records, which would mix with the new ones."""
    run = RunFolder(folder)
    if not run.header.exists():
        return RunFolder.create(run.path, run_header(next(model.parameters()).device))
    if any(run.scales.glob("part-*.parquet")):
        raise FileExistsError(f"{run.path} already holds the records of a run: choose another folder")
    return run


def _recipe_with_histograms(scalings: Sequence[Recipe | str]) -> Recipe | None:
    """The recipe whose run records exponents: the first that is not constant, else the first."""
    recipes = [scaling for scaling in scalings if isinstance(scaling, Recipe)]
    adaptive = [recipe for recipe in recipes if not isinstance(recipe.input.rule, Constant)]
    return next(iter(adaptive or recipes), None)


def _write_summary(run: RunFolder | None, head: Mapping[str, Any], scores: Sequence[Score]) -> None:
    if run is not None:
        write_json(run.summary, {**head, **summarize(scores)})


def _score(model: nn.Module, scaling: Recipe | str, context: _Context, progress: Progress | None) -> Score:
    name = scaling.name if isinstance(scaling, Recipe) else scaling
    windows, task, run = context.windows, context.task, context.run
    value, answers, failure = math.nan, None, None
    seen: list[float] = []
    started = time.perf_counter()

    def on_window(index: int, loss: float) -> None:
        seen.append(loss)
        if run is not None:
            run.append_metrics({"scaling": name, "window": index, "loss": loss if math.isfinite(loss) else None})
        if progress is not None and not context.by_layer:
            progress(name, index + 1, len(windows))

    with ExitStack() as stack:
        try:
            if context.to_check:
                with bf16_through_float32(model):
                    check_by_layer(model, windows, window_loss)
            model, recorder = _enter(stack, model, scaling, context)
            losses = _by_layer(model, windows, name, recorder, progress) if context.by_layer else None
            value = perplexity(model, windows, on_window, losses)
            answers = None if task is None else right_answers(model, task)
        except NonFiniteError as error:
            failure = str(error)
    seconds = time.perf_counter() - started
    return Score(
        scaling=name,
        perplexity=value,
        seconds=seconds,
        accuracy=None if task is None else share(answers),
        failure=failure,
        losses=tuple(seen),
        answers=answers,
    )


def _enter(
    stack: ExitStack, model: nn.Module, scaling: Recipe | str, context: _Context
) -> tuple[nn.Module, Recorder | None]:
    """The model under a scaling, recorded where that has something to record, until the stack is closed."""
    recorder = None
    if isinstance(scaling, Recipe):
        stack.callback(revert, model)
        convert(model, scaling)
    elif scaling != STORED:
        model = _in_precision(model, scaling)
    if context.run is not None and (isinstance(scaling, Recipe) or scaling == STORED):
        name = scaling.name if isinstance(scaling, Recipe) else scaling
        recording = record(model, context.run.path, every=context.every, phase="validate", scaling=name)
        recorder = stack.enter_context(recording)
    stack.enter_context(bf16_through_float32(model))
    return model, recorder


def _in_precision(model: nn.Module, precision: str) -> nn.Module:
    """The model if its parameters have this precision (a key of PRECISIONS), else a copy that does."""
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}: one of {', '.join(PRECISIONS)}")
    dtype = getattr(torch, PRECISIONS[precision])
    return model if next(model.parameters()).dtype == dtype else copy.deepcopy(model).to(dtype)


def _by_layer(
    model: nn.Module, windows: Tensor, name: str, recorder: Recorder | None, progress: Progress | None
) -> Iterator[Tensor]:
    """The losses of each window, layer by layer; records and progress as they should be."""

    def at_window(index: int) -> None:
        if recorder is not None:
            recorder.step = index

    report = None if progress is None else (lambda done, total: progress(name, done, total))
    return losses_by_layer(model, windows, window_loss, on_window=at_window, on_layer=report, is_checked=True)
