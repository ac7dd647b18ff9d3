"""The notebooks of examples/ as pages, with what they show: docs/notebooks.

    python docs/make_notebooks.py [NAME]        each notebook is run; look_at_a_run needs a run in runs/demo

The notebooks themselves are committed without outputs. A test runs them, and compares their words with
those of the pages.
"""

import ast
import contextlib
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from make import shrink
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

HEAD = "<!-- Made of examples/{} by python docs/make_notebooks.py -->\n"
OUTPUT = re.compile(r"\n<!-- output -->\n.*?<!-- end -->\n", re.DOTALL)


def main(name: str = "") -> None:
    """Run the notebooks, or one of them, and write their pages."""
    PAGES.mkdir(exist_ok=True)
    for notebook in NOTEBOOKS:
        if name in ("", notebook.stem):
            (PAGES / f"{notebook.stem}.md").write_text(page(notebook, outputs_of(notebook)), encoding="utf-8")


def cells_of(notebook: Path) -> list[dict[str, Any]]:
    """The cells of a notebook, of words and of code."""
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return cells


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def run_cell(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Run a cell as a notebook does: what it prints, and the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)  # noqa: S102
        value = None
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307
    return printed.getvalue(), value


def run(notebook: Path) -> list[tuple[str, Any]]:
    """What each cell of code prints and gives."""
    names: dict[str, Any] = {}
    return [run_cell(source_of(cell), names) for cell in cells_of(notebook) if cell["cell_type"] == "code"]


def outputs_of(notebook: Path) -> list[str]:
    """What a page shows below each cell of code: text, or a picture, which is written."""
    return [
        picture(value, f"{notebook.stem}-{place}") if isinstance(value, Figure) else text(printed, value)
        for place, (printed, value) in enumerate(run(notebook), 1)
    ]


def text(printed: str, value: Any) -> str:
    """Printed lines and a value, as a block; nothing, if there is neither."""
    lines = printed + ("" if value is None else f"{value if isinstance(value, str) else repr(value)}\n")
    return f"```text\n{lines}```" if lines else ""


def picture(figure: Figure, stem: str) -> str:
    """Save a figure beside the pages; the line that shows it."""
    path = PAGES / f"{stem}.png"
    figure.savefig(path, dpi=200)
    shrink(path, path)
    return f"![What the cell above draws]({path.name})"


def page(notebook: Path, outputs: Sequence[str]) -> str:
    """The page: words as they are, code in blocks, an output behind its code."""
    parts, rest = [HEAD.format(notebook.name)], iter(outputs)
    for cell in cells_of(notebook):
        if cell["cell_type"] == "markdown":
            parts.append(source_of(cell) + "\n")
            continue
        parts.append(f"```python\n{source_of(cell)}\n```\n")
        if output := next(rest, ""):
            parts.append(f"<!-- output -->\n{output}\n<!-- end -->\n")
    return "\n".join(parts)


def without_outputs(page: str) -> str:
    """A page's words and code."""
    return OUTPUT.sub("", page)


if __name__ == "__main__":
    main(*sys.argv[1:])
