"""The command parity."""

from octoscale.cli.app import MEASURE, app, ending
from octoscale.cli.options import Json, Out, Overwrite, Resume, Words, takes
from octoscale.cli.output import check_alone, check_resume, interruptible, run_folder, say
from octoscale.parity.settings import Parity
from octoscale.system.heap import keep_freed_memory


@app.command(
    rich_help_panel=MEASURE,
    epilog=ending("octoscale parity MODEL --text my.txt --accumulate hopper --out parity", "PARITY"),
)
@takes(Parity)
def parity(
    words: Words[Parity], resume: Resume = False, out: Out = None, overwrite: Overwrite = False, as_json: Json = False
) -> None:
    """Say what the sums of a GPU's tensor cores would do to a model, imitated here bit for bit.

    Perplexities under float32's sums and each tensor core's; how far the outputs of each kind of layer lie apart, in
    ulp and beside the error of the casts to FP8; the error of a sum by its length, on made operands and attention's
    P V. --resume goes on after a kill, or to other tensor cores.
    """
    from octoscale.parity.run import run_parity
    from octoscale.report import showing, terminal
    from octoscale.validation.run import check_finite

    check_alone("parity")
    check_resume(resume, out, overwrite)
    settings, folder = words.settings(), run_folder(out, "parity")

    def what_is_there() -> str:
        hint = f"; to go on: the same command with --resume --out {folder}"
        return f"interrupted{hint if (folder / 'run.json').exists() else ''}"

    keep_freed_memory()
    say(f"loading {settings.model}; the run goes to {folder}")
    console, parts = terminal.PlainConsole(stderr=True), len(settings.validation().scalings)
    with interruptible(what_is_there), terminal.progress_bar(console, parts, "parts") as progress:
        run = run_parity(settings, folder, overwrite=overwrite, go_on=resume, progress=progress)
    showing.show(run.path, as_json=as_json)
    check_finite(run)
