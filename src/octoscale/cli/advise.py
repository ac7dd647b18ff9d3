"""The command advise."""

from octoscale.advise.settings import Advice
from octoscale.cli.app import MEASURE, app, ending
from octoscale.cli.options import Json, Out, Overwrite, Resume, Words, takes
from octoscale.cli.output import check_resume, interruptible, run_folder, say
from octoscale.system.heap import keep_freed_memory


@app.command(
    rich_help_panel=MEASURE,
    epilog=ending("octoscale advise MODEL --text my.txt --bound 1% --out advice", "guides/keep"),
)
@takes(Advice)
def advise(
    words: Words[Advice], resume: Resume = False, out: Out = None, overwrite: Overwrite = False, as_json: Json = False
) -> None:
    """Say what FP8 costs a model, where, and the shortest list of layers to keep out of it; write it as a recipe.

    The recipe is for --recipe of validate, quantize, train and inspect. --resume goes on after a kill, and from an
    advice that is done to that of another --bound or --keep-at-most.
    """
    from octoscale.advise.run import run_advise
    from octoscale.report import advice, showing, terminal

    check_resume(resume, out, overwrite)
    settings, folder = words.settings(), run_folder(out, "advise")

    def what_is_there() -> str:
        hint = f"; to go on: the same command with --resume --out {folder}"
        return f"interrupted{hint if (folder / 'run.json').exists() else ''}"

    keep_freed_memory()
    say(f"loading {settings.model}; the advice goes to {folder}")
    console = terminal.PlainConsole(stderr=True)
    with interruptible(what_is_there), terminal.progress_bar(console, 1, "passes") as bar:

        def show_progress(done: int, total: int) -> None:
            bar("advise", done, total)

        run = run_advise(settings, folder, overwrite=overwrite, go_on=resume, progress=show_progress)
    advice.write_markdown(run.read_json(run.advice), run.page)
    showing.show(run.path, as_json=as_json)
