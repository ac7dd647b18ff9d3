"""One file that holds all of it: style, script and data of the page, which asks no network and opens from disk.

    write_report([Path("runs/amax"), Path("runs/bf16")], Path("runs/amax/report.html"))

The readable files in assets/ are joined as they are, behind uPlot (MIT, its licence in the page). A policy in the page
names the only script and the only style that may run by their hashes, and lets nothing be asked from anywhere. Data
stand in a block that is no script, with every character that could end it, or that is not ASCII, escaped.
"""

import base64
import hashlib
import html
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path
from typing import Any

from octoscale.report.page.folder import RunReader
from octoscale.system.printable import printable
from octoscale.system.whole_file import replacing

#: In the order in which they are joined; what stands below may use what stands above.
_SCRIPTS = (
    *("decode", "numbers", "model", "state", "paint", "lines", "slider"),
    *("choices", "found", "pointer", "map", "exponents", "tensor", "run", "table"),
    *("search", "kept", "live", "main"),
)


def write_report(folders: Sequence[Path | str], path: Path) -> Path:
    """Write the page of one run or several. FileNotFoundError if one is no run."""
    readers = [RunReader.open(folder) for folder in folders]
    for reader in readers:
        reader.refresh()
    page = page_of(data_of(readers))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="ascii")
    return path


def data_of(readers: Sequence[RunReader], *, live: bool = False, version: str = "") -> dict[str, Any]:
    """All that the page shows. live: whether it asks a server for news; version: of the data, which tells news."""
    labels = _labels([reader.path for reader in readers])
    runs = [reader.to_json(label, len(readers)) for reader, label in zip(readers, labels, strict=True)]
    made = {
        "version": version_of("octoscale"),
        "when": f"written {time.strftime('%Y-%m-%d %H:%M')}",
        "licences": f"octoscale: Apache-2.0\n\nuPlot 1.6.32:\n{_asset('uplot.LICENSE.txt')}",
    }
    return {"runs": runs, "made": made, "live": live, "version": version}


def page_of(data: Mapping[str, Any]) -> str:
    """The page as one text, of ASCII alone."""
    names = ", ".join(run["label"] for run in data["runs"])
    parts = {
        "policy": policy(live=bool(data["live"])),
        "title": html.escape(printable(f"{names}: octoscale")),
        "style": _style(),
        "script": _script(),
        "data": as_block(data),
    }
    first, *rest = _asset("page.html").split("{{")
    filled = [first]
    for part in rest:
        name, text = part.split("}}", 1)
        filled += [parts[name], text]
    return "".join(filled).encode("ascii", "xmlcharrefreplace").decode("ascii")


def policy(*, live: bool) -> str:
    """What the page may do: run its one script with its one style; ask nobody, or the server that it is from."""
    rules = (
        "default-src 'none'",
        f"script-src '{_hash(_script())}'",
        f"style-src '{_hash(_style())}'",
        "img-src blob: data:",
        f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def as_block(data: Any) -> str:
    """JSON that no character of can end the block in which it stands. Numbers that are not finite become null."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _labels(paths: Sequence[Path]) -> list[str]:
    """The names of the folders; their whole paths where two are called the same."""
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


@cache
def _script() -> str:
    own = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return _ascii(f"{_asset('uplot.min.js')}\n(() => {{\n'use strict';\n{own}\n}})();\n")


@cache
def _style() -> str:
    return f"{_asset('uplot.min.css')}\n{_asset('style.css')}"


def _ascii(script: str) -> str:
    """JavaScript whose texts have their other characters escaped: so it is the same in any encoding."""
    return "".join(each if ord(each) < 128 else f"\\u{ord(each):04x}" for each in script)


@cache
def _asset(name: str) -> str:
    return (files("octoscale.report.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
