"""The command arena."""

import json
from pathlib import Path
from typing import Annotated

import typer

from octoscale.arena.settings import Arena
from octoscale.cli.app import MEASURE, app, ending
from octoscale.cli.options import Json, Pretrained, Words, takes
from octoscale.cli.output import cell_bar, check_alone, interruptible, show
from octoscale.system.heap import keep_freed_memory

_PLACE = "The folder of the table, the figure and the measurements; what is there is not measured again."


@app.command(
    rich_help_panel=MEASURE,
    epilog=ending("octoscale arena MODEL --text my.txt --tokens 8192 --out runs/arena", "guides/arena"),
)
@takes(Arena)
def arena(
    words: Words[Arena],
    pretrained: Pretrained = False,
    out: Annotated[Path, typer.Option(help=_PLACE)] = Path("runs/arena"),
    as_json: Json = False,
) -> None:
    """Let scalings compete on a model: one scale a tensor, row, block or 32 values, constant, delayed, or none.

    Each against high precision, in the perplexity of a text, or with --train in the loss after a training; with a 95 %
    interval, bytes and time. Each measurement is kept: after Ctrl-C, or a kill, the same command goes on.
    """
    check_alone("arena")
    settings = words.of(pretrained).settings()
    from octoscale.arena.run import hold
    from octoscale.paper.write import markdown
    from octoscale.report.arena_contents import read_arena
    from octoscale.report.arena_page import draw_arena, write_arena_page

    keep_freed_memory()
    with interruptible(lambda: f"interrupted; what was measured is kept in {out}: the same command goes on"):
        hold(settings, out, bars=cell_bar)
    pictures = draw_arena(out)
    page = write_arena_page(out)
    content = read_arena(out)
    if as_json:
        made = json.loads((out / "made.json").read_text(encoding="utf-8"))
        show(content | {"made": made["arena"], "folder": str(out), "figures": [str(path) for path in pictures]})
        return
    show(f"{markdown(content)}\ntable, figure and their page: {page}")
