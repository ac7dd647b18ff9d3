"""The command train."""

from pathlib import Path
from typing import Annotated

import typer

from octoscale.cli.app import TRAIN, app, ending
from octoscale.cli.options import Json, Out, Overwrite, Pretrained, Resume, Watch, Words, takes
from octoscale.cli.output import check_resume, interruptible, say, shared_folder, show, watched
from octoscale.system.heap import keep_freed_memory
from octoscale.system.ranks import is_first
from octoscale.training.settings import Training, with_preset

_PRESET = "paper: the paper's hyper-parameters for a size of its GPT, where no option says otherwise."


@app.command(
    rich_help_panel=TRAIN,
    epilog=ending("octoscale train MODEL --text my.txt --scaling amax --out runs/amax", "TRAINING"),
)
@takes(Training)
def train(
    words: Words[Training],
    pretrained: Pretrained = False,
    preset: Annotated[str | None, typer.Option(help=_PRESET)] = None,
    resume: Resume = False,
    watch: Watch = False,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train or fine-tune a language model or a classifier, in FP8 or not, and record every scale and gradient."""
    check_resume(resume, out, overwrite)
    words = words.of(pretrained)
    settings = words.settings(**({} if preset is None else with_preset(preset, words.values, words.typed)))
    folder = shared_folder(out, "train")
    with watched(watch and is_first(), folder):
        _train(settings, folder, overwrite, resume, as_json)


def _train(settings: Training, folder: Path, overwrite: bool, resume: bool, as_json: bool) -> None:
    """Run a training with a bar of its steps, then show what was reached."""
    from octoscale.report import terminal
    from octoscale.training.run import run_training

    keep_freed_memory()
    if not is_first():  # it speaks for all
        run_training(settings, folder, overwrite=overwrite, go_on=resume)
        return
    say(f"loading {settings.model}; the run goes to {folder}")
    console = terminal.PlainConsole(stderr=True)
    with (
        interruptible(lambda: f"interrupted; what was recorded until now: {folder}"),
        terminal.step_bar(console, settings.steps) as progress,
    ):
        run = run_training(settings, folder, overwrite=overwrite, go_on=resume, progress=progress)
    summary = run.read_json(run.summary)
    show({**summary, "run": str(run.path)} if as_json else terminal.training_table(summary))
    if not as_json:
        note = run.read_json(run.header).get("note", "")
        show("\n".join([*([str(note)] if note else []), f"records, losses and the trained model: {run.path}"]))
