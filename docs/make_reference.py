"""The pages of docs/reference that repeat the code: the command line from its settings, the list of public names.

    python docs/make_reference.py         docs/reference/cli.md and docs/reference/api.md

A test compares both pages with what this would write.
"""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from octoscale.cli.main import app

REFERENCE = Path(__file__).resolve().parent / "reference"

#: What public names are for, in reading order.
NAMES = {
    "Convert a model": ("convert", "revert", "ConversionReport", "forget_casts", "Fp8Linear", "put_head_in_fp8"),
    "Recipes": ("Recipe", "Operand", "Amax", "Constant", "Delayed", "parse_scaling", "read_recipe"),
    "Record and train": ("record", "Recorder", "TrainerCallback", "fp8_state", "load_fp8_state", "NonFiniteError"),
    "Measure": ("load", "read_text", "token_windows", "perplexity", "validate"),
    "Look at a run": ("load_run", "read_scales", "diagnose", "Finding"),
    "Checkpoints and inference": ("OctoscaleConfig", "fuse", "gather_huge_pages"),
    "Casts and products": ("quantize", "Quantized", "matmul", "FORMATS", "Format"),
    "Errors": ("UserError",),
}


def main() -> None:
    """Write both pages."""
    (REFERENCE / "cli.md").write_text(cli_page(), encoding="utf-8")
    (REFERENCE / "api.md").write_text(api_page(), encoding="utf-8")


def cli_page() -> str:
    """Each command: what it does, its arguments and options, an example, the page that explains it."""
    lines = ["<!-- Made of the commands' settings by python docs/make_reference.py -->", "# Command line", ""]
    lines += ["<!-- test page: parse: the pages that explain the commands run them -->", ""]
    lines += [
        "With `--help` behind it, each command prints the same on the terminal. A default that is not shown is none.",
        "",
    ]
    for name, command in commands():
        lines += [f"## {name}", "", _paragraphs(command.help or ""), "", *_table(command), "", *_ending(command), ""]
    return "\n".join(lines).rstrip() + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Each command that can be called, under its whole name."""
    yield from _below(typer.main.get_command(app), "octoscale")


def api_page() -> str:
    """Each public name, for mkdocstrings to put its docstring there."""
    lines = ["<!-- Made by python docs/make_reference.py -->", "# Python", ""]
    lines += ["The public names; all else is private, or imported from its module. They are loaded at first use.", ""]
    for heading, names in NAMES.items():
        lines += [f"## {heading}", ""]
        for name in names:
            lines += [f"::: octoscale.{name}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for key, child in children.items():
        yield from _below(child, f"{name} {key}")


def _paragraphs(text: str) -> str:
    """A help text, a line a paragraph."""
    return "\n\n".join(_words(" ".join(part.split())) for part in text.split("\n\n"))


def _table(command: Any) -> list[str]:
    """The arguments, then the options, with their defaults."""
    ordered = sorted(command.params, key=lambda each: each.param_type_name != "argument")
    rows = [f"| {_name(each)} | {_default(each)} | {_words(each.help or '')} |" for each in ordered]
    return ["| | default | |", "|---|---|---|", *rows]


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    return ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    return "" if default in (None, "", False, ()) else "on" if default is True else f"`{default}`"


def _ending(command: Any) -> list[str]:
    """The example as code, the page as a link."""
    _, example, more = command.epilog.split("\n")
    page = more.removeprefix("More: octoscale docs ")
    link = "../../experiments/README.md" if page == "experiments" else f"../{page}.md"
    return [f"    {example.removeprefix('Example: ')}", "", f"More: [{page}]({link})"]


def _words(text: str) -> str:
    """A help text as Markdown shows it as it is."""
    for sign in ("|", "*", "[", "]", "_"):
        text = text.replace(sign, f"\\{sign}")
    return html.escape(text, quote=False)


if __name__ == "__main__":
    main()
