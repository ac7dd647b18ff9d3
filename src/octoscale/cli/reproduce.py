"""The command reproduce."""

import json
from pathlib import Path
from typing import Annotated

import typer

from octoscale.cli.app import MEASURE, app, ending
from octoscale.cli.options import Json, Words, takes
from octoscale.cli.output import cell_bar, interruptible, show
from octoscale.paper.settings import Reproduction
from octoscale.system.heap import keep_freed_memory

_PLACE = "The folder of tables, figures and measurements; what is there is not measured again."


@app.command(
    rich_help_panel=MEASURE,
    epilog=ending("octoscale reproduce table4,fig6 --model smollm2-135m --tasks piqa", "experiments"),
)
@takes(Reproduction)
def reproduce(
    words: Words[Reproduction],
    out: Annotated[Path, typer.Option(help=_PLACE)] = Path("runs/reproduce"),
    as_json: Json = False,
) -> None:
    """Measure a table or figure of the paper again, beside its own numbers.

    Each measurement is kept: after Ctrl-C, or a kill, the same command goes on.
    """
    settings = words.settings()
    from octoscale.paper.reproduce import reproduce as make
    from octoscale.report.figures.paper import draw_paper
    from octoscale.report.paper_page import write_page

    keep_freed_memory()
    with interruptible(lambda: f"interrupted; what was measured is kept in {out}: the same command goes on"):
        names = make(settings, out, bars=cell_bar)
    pictures = draw_paper(out)
    write_page(out)
    if as_json:
        contents = {name: json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in names}
        show(contents | {"folder": str(out), "figures": [str(path) for path in pictures]})
        return
    tables = [(out / f"{name}.md").read_text(encoding="utf-8") for name in names if name.startswith("table")]
    show("\n".join([*tables, f"tables, figures and their page: {out / 'index.html'}"]))
