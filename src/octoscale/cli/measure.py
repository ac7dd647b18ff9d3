"""Commands that measure what FP8 does to a model: demo, validate, sweep."""

from pathlib import Path

from octoscale.cli.app import MEASURE, app
from octoscale.cli.options import Json, Out, Overwrite, Words, takes
from octoscale.cli.output import interruptible, run_folder, say
from octoscale.system.heap import keep_freed_memory
from octoscale.validation.settings import Demo, Sweep, Validation


@app.command(rich_help_panel=MEASURE)
@takes(Demo)
def demo(words: Words[Demo], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """See what FP8 does to a real model: SmolLM2-135M in bf16, FP8-AMAX, and FP8-CSCALE with biases -8 to 6."""
    settings = words.settings().validation()
    _carry_out(settings, run_folder(out, "demo"), overwrite, as_json, find_range=True)


@app.command(rich_help_panel=MEASURE)
@takes(Validation)
def validate(words: Words[Validation], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Measure a model's perplexity on a text under one or several scalings, and record every scale."""
    from octoscale.validation.run import scalings_for

    default = {} if words.values["recipe"] else {"scalings": scalings_for(**words.values)}
    settings = words.settings(**default)
    _carry_out(settings, run_folder(out, "validate"), overwrite, as_json)


@app.command(rich_help_panel=MEASURE)
@takes(Sweep)
def sweep(words: Words[Sweep], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Find the constant scales (FP8-CSCALE) that a model survives.

    A bias passes if its perplexity is within 0.5 % of FP8-AMAX's; with --task, if its accuracy is at least 99.5 % of
    the high-precision one.
    """
    from octoscale.validation.run import check_sweep

    settings = words.settings().validation()
    check_sweep(settings.model)
    _carry_out(settings, run_folder(out, "sweep"), overwrite, as_json, find_range=True)


def _carry_out(settings: Validation, folder: Path, overwrite: bool, as_json: bool, *, find_range: bool = False) -> None:
    """Run a validation with a progress bar, then show it; on Ctrl-C say what is there and exit with 130."""
    from octoscale.report import showing, terminal
    from octoscale.validation.run import check_finite, run_validation

    def what_is_there() -> str:
        there = f"; what was measured until now: octoscale report {folder}" if (folder / "run.json").exists() else ""
        return f"interrupted{there}"

    keep_freed_memory()
    say(f"loading {settings.model}; the run goes to {folder}")
    console, unit = terminal.PlainConsole(stderr=True), "layers" if settings.by_layer else "windows"
    with interruptible(what_is_there), terminal.progress_bar(console, len(settings.scalings), unit) as progress:
        run = run_validation(settings, folder, overwrite=overwrite, find_range=find_range, progress=progress)
    showing.show(run.path, as_json=as_json)
    check_finite(run)
