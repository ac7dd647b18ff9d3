"""The page of a reproduction: README.md, and index.html with all pictures inside, from the files in its folder.

Nothing is measured here, and no script runs in the page. Both say of each table and figure what it is, with which
command and versions, on which machine and when it was made.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from octoscale.paper.write import markdown, shown_rows, text_columns
from octoscale.report.figures.paper import pictures_of
from octoscale.system.whole_file import replacing

TITLE = "Training and inference of large language models using 8-bit floating point, reproduced"
_SOURCE = "Perez et al. 2023, [arXiv 2309.17224](https://arxiv.org/abs/2309.17224)"
_INTRODUCTION = (
    "Measured with octoscale. Columns and rows that say *paper* are the paper's own numbers, for a model of the same "
    "size; all others were measured here. A dash: there is none."
)


def write_page(folder: Path) -> None:
    """Write README.md and index.html for what the folder holds."""
    made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    left_out = made.pop("left_out", {})
    parts = [(name, json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), made[name]) for name in made]
    _write(folder / "README.md", "\n".join(_markdown(parts, left_out)))
    _write(folder / "index.html", _html(folder, parts, left_out))


_Part = tuple[str, dict[str, Any], dict[str, Any]]  # name, the content of its file, what it was made with


def _markdown(parts: list[_Part], left_out: Mapping[str, str]) -> Iterator[str]:
    yield f"# {TITLE}\n\n{_SOURCE}. {_INTRODUCTION}\n"
    for name, content, made in parts:
        if "columns" in content:
            yield markdown(content).replace("### ", "## ", 1)
            yield f"Files: [{name}.csv]({name}.csv), [{name}.json]({name}.json).\n"
        else:
            yield f"## {content['title']}\n"
            yield "".join(f"![{content['title']}]({stem}.png)\n\n" for stem in pictures_of(name, content))
            yield f"*{' '.join(content['notes'])}* [{name}.json]({name}.json)\n"
        yield f"{_made(made)}\n"
    yield from (f"Left out: {name} {why}.\n" for name, why in left_out.items())


def _made(made: Mapping[str, Any]) -> str:
    """Command, machine, versions, date."""
    machine = ", ".join(f"{name} {value}" for name, value in made["machine"].items())
    return f"`{made['command']}`; {made['date']}; {machine}"


def _html(folder: Path, parts: list[_Part], left_out: Mapping[str, str]) -> str:
    body = [f"<h1>{escape(TITLE)}</h1>", f"<p>{_plain(_SOURCE)}. {_plain(_INTRODUCTION)}</p>"]
    for name, content, made in parts:
        shown = _table(content) if "columns" in content else _pictures(folder, name, content)
        body += [f'<section id="{name}"><h2>{escape(content["title"])}</h2>', shown]
        code, _, rest = _made(made).removeprefix("`").partition("`; ")
        body += [f'<p class="made"><code>{escape(code)}</code><br>{escape(rest)}</p></section>']
    body += [f"<p>Left out: {escape(name)} {escape(why)}.</p>" for name, why in left_out.items()]
    return _PAGE.format(title=escape(TITLE), body="\n".join(body))


def _table(content: Mapping[str, Any]) -> str:
    kinds = ['<{0} class="text">' if is_text else "<{0}>" for is_text in text_columns(content)]

    def row(tag: str, cells: list[str]) -> str:
        places = (f"{kind.format(tag)}{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(places)}</tr>"

    head = row("th", [column["title"] for column in content["columns"]])
    rows = "\n".join(row("td", cells) for cells in shown_rows(content))
    notes = " ".join(content["notes"])
    return f'<div class="wide"><table><thead>{head}</thead>\n<tbody>{rows}</tbody></table></div><p>{escape(notes)}</p>'


def _pictures(folder: Path, name: str, content: Mapping[str, Any]) -> str:
    pictures = [base64.b64encode((folder / f"{stem}.png").read_bytes()).decode() for stem in pictures_of(name, content)]
    images = "".join(f'<img alt="{escape(content["title"])}" src="data:image/png;base64,{code}">' for code in pictures)
    return f"<figure>{images}<figcaption>{escape(' '.join(content['notes']))}</figcaption></figure>"


def _plain(text: str) -> str:
    """Our own two sentences, without the marks of Markdown."""
    return escape(text.replace("*", "").replace("[", "").replace("](", " (").replace("))", ")"))


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 84rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; line-height: 1.3; }}
h2 {{ font-size: 1.15rem; margin-top: 2.5rem; }}
p, figcaption {{ max-width: 60rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ccc; vertical-align: top; }}
th.text, td.text {{ text-align: left; min-width: 5.5rem; }}
figure {{ margin: 0; }}
img {{ display: block; width: 100%; max-width: 60rem; background: #fff; padding: .5rem; box-sizing: border-box; }}
figcaption, .made {{ color: #555; font-size: .85rem; }}
code {{ overflow-wrap: anywhere; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #ddd; background: #161616; }}
  th, td {{ border-color: #444; }}
  figcaption, .made {{ color: #999; }}
  a {{ color: #8ab4f8; }}
}}
</style>
</head>
<body>
{body}
</body>
</html>
"""
