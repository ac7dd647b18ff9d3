"""The command advise."""

from octoscale.advise.settings import Advice
from octoscale.cli.app import MEASURE, app
from octoscale.cli.options import Json, Out, Overwrite, Words, takes
from octoscale.cli.output import interruptible, run_folder, say, show
from octoscale.system.heap import keep_freed_memory


@app.command(rich_help_panel=MEASURE)
@takes(Advice)
def advise(words: Words[Advice], out: Out = None, overwrite: Overwrite = False, as_json: Json = False) -> None:
    """Say what FP8 costs a model, where, and the shortest list of layers to keep out of it; write it as a recipe.

    The recipe is for --recipe of validate, quantize, train and inspect.
    """
    from octoscale.advise.run import ADVICE, PAGE, RECIPE, run_advise
    from octoscale.report import advice, terminal
    from octoscale.report.advice_figure import draw_advice

    settings, folder = words.settings(), run_folder(out, "advise")
    keep_freed_memory()
    say(f"loading {settings.model}; the advice goes to {folder}")
    console = terminal.PlainConsole(stderr=True)
    with (
        interruptible(lambda: "interrupted; an advice is written when all of it is there"),
        terminal.progress_bar(console, 1, "passes") as bar,
    ):
        run = run_advise(settings, folder, overwrite=overwrite, progress=lambda done, total: bar("advise", done, total))
    content = run.read_json(run.path / ADVICE)
    advice.write_markdown(content, run.path / PAGE)
    drawn = draw_advice(content, run.figures)
    if as_json:
        show(content | {"run": str(run.path), "figures": [str(drawn)]})
        return
    for table in advice.advice_tables(content):
        show(advice.terminal_table(table))
    show("\n".join([*content["answer"], advice.note(content), f"the recipe: --recipe {run.path / RECIPE}"]))
