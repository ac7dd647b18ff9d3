"""The application that typer runs, and its help: commands by what they are for, none cut off; at the end an example."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import octoscale

#: What commands are for, in the order of the help: the panel of each command is one of these.
LOOK, MEASURE, TRAIN, SHIP = "Look", "Measure", "Train", "Ship"
GROUPS = (LOOK, MEASURE, TRAIN, SHIP)


class Grouped(TyperGroup):
    """A group of commands whose help lists them by panel, each with the first sentence of its text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel; a group without panels has one."""
        commands = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        width = max(map(len, commands))
        rows: dict[str, list[tuple[str, str]]] = {panel: [] for panel in (*GROUPS, "Commands")}
        for name, command in commands.items():
            panel = getattr(command, "rich_help_panel", None)
            panel = panel if panel in GROUPS else "Commands"
            rows[panel].append((name.ljust(width), first_sentence(command.help or "")))
        for panel in filter(rows.get, rows):
            with formatter.section(panel):
                formatter.write_dl(rows[panel])


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, in one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + stop.rstrip()


def ending(example: str, page: str) -> str:
    """How each help ends: an example, and how to read the page that explains it; no terminal joins the lines.

    page: its name, as `octoscale docs` knows it.
    """
    return f"\b\nExample: {example}\nMore: octoscale docs {page}"


def group(help: str, epilog: str) -> typer.Typer:
    """An empty group of commands."""
    return typer.Typer(
        cls=Grouped,
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


app = group(
    "FP8 for language models, with scales that you can see: does a model survive 8-bit floating point, with which "
    "scaling, and where does it break?",
    ending("octoscale demo", "index"),
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"octoscale {octoscale.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Hold the options that go before the command's name."""
