"""Commands that measure what FP8 does to a model: demo, validate, sweep."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from octoscale.cli.app import MEASURE, app, ending
from octoscale.cli.options import Json, Out, Overwrite, Pretrained, Resume, Watch, Words, takes
from octoscale.cli.output import (
    check_alone,
    check_resume,
    interruptible,
    run_folder,
    say,
    shared_folder,
    together,
    watched,
)
from octoscale.system.heap import keep_freed_memory
from octoscale.system.ranks import is_first
from octoscale.validation.settings import Demo, Sweep, Validation


@app.command(rich_help_panel=MEASURE, epilog=ending("octoscale demo --quick", "index"))
@takes(Demo)
def demo(words: Words[Demo], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """See what FP8 does to a real model: SmolLM2-135M in bf16, FP8-AMAX, and FP8-CSCALE with biases -8 to 6."""
    from octoscale.validation.run import run_validation

    check_alone("demo")
    settings, folder = words.settings().validation(), run_folder(out, "demo")
    carry_out = partial(run_validation, settings, folder, overwrite=overwrite, find_range=True)
    _carry_out(settings, folder, carry_out, as_json)


@app.command(
    rich_help_panel=MEASURE,
    epilog=ending("octoscale validate MODEL --scaling bf16 --scaling amax --text my.txt", "guides/validate"),
)
@takes(Validation)
def validate(
    words: Words[Validation],
    pretrained: Pretrained = False,
    watch: Watch = False,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure a model under one or several scalings: a text's perplexity, tasks; and record every scale."""
    from octoscale.validation.run import run_validation, scalings_for

    def read() -> Validation:
        of_model = words.of(pretrained)
        default = {} if of_model.values["recipe"] else {"scalings": scalings_for(**of_model.values)}
        return of_model.settings(**default)

    folder = shared_folder(out, "validate")
    settings = together(read)
    with watched(watch and is_first(), folder):
        _carry_out(settings, folder, partial(run_validation, settings, folder, overwrite=overwrite), as_json)


@app.command(
    rich_help_panel=MEASURE,
    epilog=ending("octoscale sweep MODEL --bias -8:6 --text my.txt --out runs/sweep", "guides/constant"),
)
@takes(Sweep)
def sweep(
    words: Words[Sweep],
    pretrained: Pretrained = False,
    resume: Resume = False,
    watch: Watch = False,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find the constant scales (FP8-CSCALE) that a model survives, beyond noise.

    A bias passes if its perplexity is within 0.5 % of FP8-AMAX's; with --task, if its accuracy is at least 99.5 % of
    the high-precision one: the whole 95 % interval of the difference, window by window or item by item, has to lie
    within that. The two edges of the range are found by bisection.
    """
    from octoscale.validation.run import check_sweep
    from octoscale.validation.run_sweep import run_sweep

    check_alone("sweep")
    check_resume(resume, out, overwrite)
    settings, folder = words.of(pretrained).settings(), run_folder(out, "sweep")
    check_sweep(settings.model)
    carry_out = partial(run_sweep, settings, folder, overwrite=overwrite, go_on=resume)
    hint = f"; to go on: the same command with --resume --out {folder}"
    with watched(watch, folder):
        _carry_out(settings.validation(), folder, carry_out, as_json, settings.num_expected, hint)


def _carry_out(
    settings: Validation,
    folder: Path,
    carry_out: Callable[..., Any],
    as_json: bool,
    num_scalings: int | None = None,
    hint: str = "",
) -> None:
    """Run a measurement with a progress bar, then show it; on Ctrl-C say what is there, and exit with 130."""
    from octoscale.report import showing, terminal
    from octoscale.validation.run import check_finite

    def what_is_there() -> str:
        there = f"; what was measured until now: octoscale report {folder}{hint}"
        return f"interrupted{there if (folder / 'run.json').exists() else ''}"

    keep_freed_memory()
    if not is_first():  # it speaks for all
        carry_out()
        return
    say(f"loading {settings.model}; the run goes to {folder}")
    console, num_scalings = terminal.PlainConsole(stderr=True), num_scalings or len(settings.scalings)
    with interruptible(what_is_there), terminal.progress_bar(console, num_scalings, settings.unit) as progress:
        run = carry_out(progress=progress)
    showing.show(run.path, as_json=as_json)
    check_finite(run)
