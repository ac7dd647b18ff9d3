"""The links of a built site that lead nowhere: to a file that is missing, or to a heading that a page does not have."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag


class Page(HTMLParser):
    """What a page links to, and the places in it that have a name."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = {name: value for name, value in attrs if value}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        self.links += [given[name] for name in ("href", "src") if name in given]


def broken_links(site: Path) -> list[str]:
    """A line for each; other sites are not asked, and the page for what is missing has links of a server's."""
    pages = {path.resolve(): _page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    return [
        f"{path.relative_to(site.resolve())}: {link}"
        for path, page in pages.items()
        for link in page.links
        if not _leads_somewhere(path, link, pages)
    ]


def _page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _leads_somewhere(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    if "://" in link or link.startswith(("mailto:", "data:")):
        return True
    name, anchor = urldefrag(unquote(link))
    target = (path.parent / name).resolve() if name else path
    target = target / "index.html" if target.is_dir() else target
    return target.exists() and (not anchor or target not in pages or anchor in pages[target].names)
