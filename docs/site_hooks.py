"""What the site changes of the documents, which are read in the repository too: pages and links outside of docs/.

experiments/README.md becomes a page. A link to another file outside, or to a folder, becomes its text, for the site is
read without the repository.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
#: Documents outside of docs/ that are pages.
OUTSIDE = ("experiments/README.md",)

LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """The page with links that the site can follow."""
    return LINK.sub(lambda found: site_link(found[1], found[2], page.file.src_uri, files), markdown)


def site_link(text: str, link: str, source: str, files: Any) -> str:
    """A link of the page `source`, a path below docs/, as the site has it; only its text, if it leads elsewhere."""
    name, sign, anchor = link.partition("#")
    if "://" in link or not name:
        return f"[{text}]({link})"
    here = PurePosixPath(source).parent
    place = here if source in OUTSIDE else PurePosixPath("docs") / here
    target = normpath(place / name)
    known = target.removeprefix("docs/") if target.startswith("docs/") else target if target in OUTSIDE else ""
    file = files.get_file_from_path(known) if known else None
    if file is None or not file.inclusion.is_included():
        return text
    up = "../" * len(here.parts)
    return f"[{text}]({up}{known}{sign}{anchor})"
