"""A sweep, from its words to its run folder: which constant scales a model survives, in few measurements.

High precision and FP8-AMAX come first. AMAX's records say which constant saturates nothing: the smallest scale_bias of
any tensor. From there the two edges are found by bisection (edges.py), or with `--all` every bias is measured; the
verdicts (criterion.py) make the range (bias_range.py). `--roles` measures every pair of biases instead (role_map.py).

Each score is kept when it is there (kept.py): a sweep that was killed goes on with the same result, and one that is
done goes on over a larger range of biases.
"""

import math
from pathlib import Path
from typing import Any

import polars as pl

from octoscale.models.quiet import quietly
from octoscale.runs.cells import Cells
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import read_scales, run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run
from octoscale.validation.bias_range import range_of
from octoscale.validation.criterion import criterion_of, values_of
from octoscale.validation.edges import look_around
from octoscale.validation.kept import KeptScores, begin_or_go_on, check_place, identity_of
from octoscale.validation.one_scaling import Progress
from octoscale.validation.role_map import pair_map
from octoscale.validation.run import Parts, head_of, plain, prepare
from octoscale.validation.settings import Sweep

#: Settings that change which scores there are, but no score.
_FREE = ("bias", "every_bias", "roles")

#: From the worst to the best: the verdict, and whether the estimate alone passes.
_RANKS = {("fails", False): 0, ("fails", True): 0, ("undecided", False): 1, ("undecided", True): 2}
_BEST = 3


@quietly()
def run_sweep(
    settings: Sweep, folder: Path, *, overwrite: bool = False, go_on: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Sweep as `settings` say, and write the run to `folder`. All input is checked before the folder is made.

    go_on: with what a stopped sweep left there, if anything. The summary then is that of a sweep that was never
    stopped, but for its seconds.
    Raises ValueError or OSError, naming the remedy, for anything in the settings that cannot be had.
    """
    words = {name: value for name, value in plain(settings).items() if name not in _FREE}
    check_place(folder, words, overwrite=overwrite, go_on=go_on)
    parts = prepare(settings.validation())
    _check_pairs(parts)
    header = run_header(parts.loaded.model.device, plan=plain(settings), note=parts.loaded.note)
    with exclusive_run(folder):
        run, cells = begin_or_go_on(folder, header, identity_of(words, parts, header), overwrite=overwrite, go_on=go_on)
        head = head_of(settings, parts.windows, header)
        kept = KeptScores(parts, run, cells, head=head, every=settings.every, progress=progress)
        for scaling in (settings.dtype, "amax"):
            kept.score(scaling)
        found = _look_at_pairs(settings, kept) if settings.pairs else _look_at_biases(settings, kept, run, cells)
        kept.write_summary(**found)
    return run


def _check_pairs(parts: Parts) -> None:
    """UserError unless there are items enough for an interval."""
    if parts.tasks is not None and parts.tasks.num_items < 2:
        what, remedy = "item", "ask a longer task, or raise --limit"
    elif parts.tasks is None and parts.windows is not None and len(parts.windows) < 2:
        what, remedy = "window", "raise --tokens, or lower --window"
    else:
        return
    raise UserError(f"one {what} has no interval, so a sweep could not tell its result from noise: {remedy}")


def _look_at_biases(settings: Sweep, kept: KeptScores, run: RunFolder, cells: Cells) -> dict[str, Any]:
    """Measure every bias, or those that bisection asks for; what the summary says of them."""
    biases = settings.biases
    if settings.every_bias:
        for bias in biases:
            kept.score(_name(bias))
    else:
        start = cells.get_or_make("start", lambda: _unsaturated(run))
        _bisect(kept, biases, min(biases, key=lambda bias: abs(bias - start)))
    found = range_of(kept.scores)
    text = f"{found}{_beyond(kept, biases) if found.judged and found.low is None else ''}"
    counts = {"evaluations": len(kept.scores), "measured": len(found.judged), "asked": len(biases)}
    said = (
        f"{counts['evaluations']} evaluations: {settings.dtype}, amax and {len(found.judged)} of {len(biases)} biases"
    )
    return {"cscale_range": {**found.to_json(), **counts, "text": f"{text}. {said}"}}


def _beyond(kept: KeptScores, biases: list[int]) -> str:
    """That better biases may lie beyond those that were asked for, where none of them passes."""
    best = min(biases, key=lambda bias: _cost(kept, bias) if _name(bias) in kept else math.inf)
    is_end = len(biases) > 1 and best in (biases[0], biases[-1])
    return f"; the best, {best}, is an end of --bias {biases[0]}:{biases[-1]}: look beyond it" if is_end else ""


def _bisect(kept: KeptScores, biases: list[int], start: int) -> None:
    """Measure from `start`, which saturates nothing or is the nearest to that, to each side."""
    criterion = criterion_of(kept.scores)
    if isinstance(criterion, str):
        return

    def rank(bias: int) -> int:
        judged = criterion.judge(values_of(kept.score(_name(bias))))
        return _RANKS.get((judged.verdict, judged.by_estimate), _BEST)

    look_around(biases, start, rank, lambda bias: _cost(kept, bias), _BEST)


def _cost(kept: KeptScores, bias: int) -> float:
    """What the search climbs down: the perplexity, as few items have steps; without one, the task."""
    score = kept.score(_name(bias))
    if score.perplexity is None:
        return -score.tasks[0].score if score.tasks else math.inf
    return score.perplexity if math.isfinite(score.perplexity) else math.inf


def _look_at_pairs(settings: Sweep, kept: KeptScores) -> dict[str, Any]:
    """Measure each pair of biases, if there is a reference; what the summary says of them."""
    criterion = criterion_of(kept.scores)
    for weight, input in [] if isinstance(criterion, str) else settings.pairs:
        kept.score(f"cscale:weight={weight},input={input}")
    found = pair_map(kept.scores, criterion, (settings.roles or "").split(","))
    count = len(kept.scores)
    return {"bias_map": {**found, "evaluations": count, "text": f"{found['text']}. {count} evaluations"}}


def _unsaturated(run: RunFolder) -> int:
    """The largest constant that saturates no tensor that FP8-AMAX met; 0 if it met none."""
    rows = read_scales(run.path).filter(scaling="amax").filter(pl.col("amax").is_finite() & (pl.col("amax") > 0))
    return int(rows["scale_bias"].min()) if rows.height else 0  # type: ignore[arg-type]


def _name(bias: int) -> str:
    return f"cscale:{bias}"
