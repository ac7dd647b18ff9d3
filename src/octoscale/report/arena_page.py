"""The figure and the page of a contest, from the files in its folder: arena.png, arena.svg and README.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octoscale.paper.write import markdown
from octoscale.report.arena_contents import read_arena
from octoscale.report.figures.arena import arena_figure
from octoscale.report.figures.publish import ARENA_FIGURE as STEM
from octoscale.report.figures.style import save
from octoscale.system.whole_file import replacing

#: The page.
PAGE = "README.md"


def draw_arena(folder: Path) -> list[Path]:
    """Draw the figure, as PNG and SVG beside the table; returns the paths."""
    return save(arena_figure(read_arena(folder)), folder, STEM)


def write_arena_page(folder: Path) -> Path:
    """Write README.md: the table with its notes, the figure, and what it was made with."""
    made = json.loads((folder / "made.json").read_text(encoding="utf-8"))["arena"]
    with replacing(folder / PAGE) as temporary:
        temporary.write_text(_page(read_arena(folder), made), encoding="utf-8")
    return folder / PAGE


def _page(content: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in made["machine"].items())
    parts = [
        markdown(content).replace("### ", "# ", 1),
        f"![The gaps to {content['against']}, with their intervals]({STEM}.png)\n",
        f"Files: [{STEM}.csv]({STEM}.csv), [{STEM}.json]({STEM}.json), [{STEM}.svg]({STEM}.svg).\n",
        f"`{made['command']}`; {made['date']}; {machine}\n",
    ]
    return "\n".join(parts)
