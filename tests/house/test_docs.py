"""The documents keep their promises: linked files exist, nothing is left to fill in, the guide's Python runs."""

import re
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny_llama

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "docs", ROOT / "experiments")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *(path for folder in FOLDERS for path in sorted(folder.rglob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_files_exist_and_nothing_is_left_to_fill_in(document):
    text = document.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not _leads_somewhere(document, link)] == []
    assert re.findall(r"@[A-Z]+@", text) == []
    assert re.findall(r"<!-- made: .*-->\n<!-- end", text) == []


def test_each_picture_is_shown_or_linked():
    """Oracle: the files."""
    linked = {
        (document.parent / link).resolve()
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    }
    assert [path for path in sorted((ROOT / "docs").rglob("*.png")) if path.resolve() not in linked] == []


def test_the_guides_python_runs(tmp_path, monkeypatch):
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "python.md").read_text("utf-8"), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    checkpoint = save_tiny_llama(tmp_path / "llama")
    namespace = {"ids": torch.arange(16)[None]}
    exec(block.replace("path/or/hub-id", str(checkpoint)), namespace)
    assert (tmp_path / "runs" / "mine" / "scales").is_dir()


def _leads_somewhere(document, link):
    """Whether a link's file exists, and has the heading behind #, as GitHub writes it."""
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not anchor or not target.exists():
        return target.exists()
    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
