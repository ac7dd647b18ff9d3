"""Where the documents are: the site of docs/, which a wheel may carry and a clone builds, read without a network.

    page("guides/keep")        .../docs_site/guides/keep.html

A wheel that was built where `./dev docs --site` had written site/ has a copy of it in the package, without what only a
server can use (CMakeLists.txt). A clone has site/ itself.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

from octoscale.system.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
#: The wheel's copy, and what `./dev docs --site` writes in a clone.
SITES = (PACKAGE / "docs_site", PACKAGE.parents[1] / "site")
START = "index"


def page(name: str = START, sites: Sequence[Path] = SITES) -> Path:
    """The file of a page, which is called as its Markdown below docs/, without the suffix.

    UserError if there is no site, with the command that builds one, and for a name that is no page, with near names.
    """
    site = next((site for site in sites if (site / f"{START}.html").is_file()), None)
    if site is None:
        raise UserError("this installation has no copy of the documents: in a clone, ./dev docs --site builds it")
    pages = {_name(path.relative_to(site)): path for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    wanted = name.removesuffix(".html").strip("/") or START
    if wanted not in pages:
        near = difflib.get_close_matches(wanted, pages, n=4, cutoff=0.3) or [START]
        raise UserError(f"no page {name!r}; near names: {', '.join(near)}")
    return pages[wanted]


def _name(path: Path) -> str:
    """What a page is called: a folder's first page as the folder."""
    name = path.with_suffix("").as_posix()
    return name.removesuffix(f"/{START}")
