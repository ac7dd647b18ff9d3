"""Whether a file of a folder lies in it: folders come from strangers, and a link in one may point to anything.

    is_inside(Path("runs/mine/summary.json"), Path("runs/mine"))

Whoever reads such a folder, to show or to serve what it holds, leaves out what a link takes from elsewhere, and says
so. The folder itself may be reached by any link.
"""

from collections.abc import Iterable
from pathlib import Path

#: What is said of a path that is left out, after its name.
LEADS_OUT = "is a link out of the run's folder, and not followed"


def is_inside(path: Path, folder: Path) -> bool:
    """Whether the links on the way to a path lead to something in the folder; a circle of them leads nowhere."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle is no OSError before Python 3.13
        return False


def only_inside(paths: Iterable[Path], folder: Path) -> tuple[list[Path], list[str]]:
    """Those of some paths, of which each stands right below a folder in `folder`, that lie in `folder`; and a line
    about each one that does not, or about what it stands in.
    """
    kept: list[Path] = []
    lines: dict[str, None] = {}
    are_in: dict[Path, bool] = {}
    for path in paths:
        parent = path.parent
        if parent not in are_in:
            are_in[parent] = is_inside(parent, folder)
        if not are_in[parent]:
            lines[f"{parent} {LEADS_OUT}"] = None
        elif path.is_symlink() and not is_inside(path, folder):
            lines[f"{path} {LEADS_OUT}"] = None
        else:
            kept.append(path)
    return kept, list(lines)
