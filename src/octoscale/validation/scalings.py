"""Ask a model the same thing under several scalings: perplexity of a text, tasks, and what it cost.

    windows = token_windows(read_text("pydoc"), encode, window=512)
    scores = validate(model, ["bf16", "amax", "cscale:-1"], windows=windows, folder="runs/mine")

Each scaling converts the model, evaluates it window by window with every cast recorded to the run, and reverts it. The
results so far are in summary.json after each scaling, so that an interrupted run is a valid, shorter one.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.layers.linear import Fp8Linear
from octoscale.layers.stored import StoredLinear
from octoscale.numerics.formats import STORED
from octoscale.numerics.recipe import Recipe, check_names, parse_scaling
from octoscale.numerics.scaling import Constant
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run
from octoscale.system.whole_file import write_json
from octoscale.validation.one_scaling import Context, Progress, score_one
from octoscale.validation.perplexity import check_mode
from octoscale.validation.scores import Score, summarize
from octoscale.validation.tasks import Tasks


def validate(
    model: nn.Module,
    scalings: Iterable[Recipe | str],
    *,
    windows: Tensor | None = None,
    folder: Path | str | None = None,
    every: int = 16,
    tasks: Tasks | None = None,
    head: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    by_layer: bool = False,
    rank: int = 0,
    autocast: torch.dtype | None = None,
) -> list[Score]:
    """Evaluate the model under each scaling, a recipe or a text such as "amax"; the model is left as it was.

    windows: int64 [W, T], see `texts.token_windows`; None for no text. tasks: see tasks.py. folder: the run to record
    to, made if need be; None records nothing. every: histograms of exponents on each N-th window, under the first
    adaptive recipe only (they show the values before scaling, which constant scalings share). head: what stands before
    the results in summary.json. by_layer: all windows pass a layer before the next one is read, for checkpoints larger
    than memory (by_layer.py);
    progress then counts layers, and ValueError refuses models that cannot go so. A model that was loaded with FP8
    weights has one scaling: "stored". rank: of this process, where several share the model and the run, which is there
    and held by the first one; all of them call this. autocast: the dtype to compute in, with float32 parameters, as a
    training does: FP8 weights are cast from those. UserError for a model with others.
    Raises ValueError for a scaling that cannot be read, two of one name, a model in training mode or in FP8 already;
    FileExistsError if the run holds records, or another process writes to it; and whatever `convert` raises.
    """
    chosen = [_parse(scaling) if isinstance(scaling, str) else scaling for scaling in scalings]
    check_names(chosen)
    _check_state(model, chosen)
    check_mode(model)
    _check_autocast(model, autocast)
    _check_asked(windows, tasks, by_layer=by_layer)
    with nullcontext() if folder is None or rank > 0 else exclusive_run(folder, join=True):
        run = None if folder is None else RunFolder(folder) if rank > 0 else _fresh_run(folder, model)
        summary = run if rank == 0 else None
        of_text = {} if windows is None else {"tokens": windows.numel(), "window": windows.shape[-1]}
        head = {**of_text, **(head or {})}
        histograms = _recipe_with_histograms(chosen)
        scores: list[Score] = []
        _write_summary(summary, head, scores)
        for scaling in chosen:
            shown = every if scaling is histograms or scaling == STORED else 0
            to_check = by_layer and not scores
            context = Context(
                windows=windows,
                tasks=tasks,
                run=run,
                every=shown,
                by_layer=by_layer,
                to_check=to_check,
                rank=rank,
                progress=progress,
                autocast=autocast,
            )
            scores.append(score_one(model, scaling, context))
            _write_summary(summary, head, scores)
        return scores


def _check_asked(windows: Tensor | None, tasks: Tasks | None, *, by_layer: bool) -> None:
    """UserError where nothing is asked, or what cannot be asked so."""
    if windows is None and tasks is None:
        raise UserError("nothing is asked of the model: give windows of a text, or tasks")
    if by_layer and (windows is None or tasks is not None):
        raise UserError("only windows of a text go layer by layer: leave the tasks out")


def _check_autocast(model: nn.Module, autocast: torch.dtype | None) -> None:
    """UserError where autocast would keep weights that were rounded already."""
    others = [name for name, each in model.named_parameters() if each.dtype != torch.float32]
    if autocast is not None and others:
        raise UserError(f"autocast={autocast} keeps float32 parameters, and {others[0]} is none: load them in float32")


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
