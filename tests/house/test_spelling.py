"""Words are spelt as codespell's list of known mistakes has them. Oracle: that list.

Names that look like a mistake stand in spelling.txt, beside this file.
"""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IGNORED = Path(__file__).with_name("spelling.txt")
#: Folders and files with words of ours; data, pictures and the page's library are not.
WORDS = ["docs", "examples", "experiments", "src", "tests", "csrc", "bench", "dev"]
NOT_OURS = "*.png,*.svg,*.so,*.json,*.html,*.csv,uplot.*,*.pdf,__pycache__,spelling.txt,docs_site"


def mistaken(*words):
    """Whether codespell finds mistakes; it prints them."""
    codespell = pytest.importorskip("codespell_lib", reason="./dev setup installs it")
    return codespell.main("--ignore-words", str(IGNORED), "--skip", NOT_OURS, *map(str, words)) != 0


@pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="the documents are for a clone")
def test_documents_docstrings_and_comments_are_spelt_right(capsys):
    places = [*sorted(ROOT.glob("*.md")), *(ROOT / word for word in WORDS)]
    assert not mistaken(*places), capsys.readouterr().out


def test_a_mistake_is_found_and_a_name_is_none(tmp_path, capsys):
    wrong = "".join(("rec", "ie", "ve"))
    (tmp_path / "page.md").write_text(f"To {wrong} a oint is better.\n")
    assert mistaken(tmp_path / "page.md")
    out = capsys.readouterr().out
    assert wrong in out
    assert out.count("==>") == 1
