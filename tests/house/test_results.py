"""What the documents say of measurements is what docs/results holds. Oracle: its files, and the script of the docs."""

import json
import re
import sys
from pathlib import Path

import pytest

from octoscale.paper.write import markdown

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
FOLDERS = sorted(path for path in RESULTS.iterdir() if path.is_dir())
TABLES = sorted(RESULTS.rglob("table*.json"))
FILES = sorted(path for path in RESULTS.rglob("*") if path.suffix in {".json", ".md", ".csv", ".html", ".toml"})


@pytest.fixture
def make(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.delitem(sys.modules, "make", raising=False)
    import make

    return make


@pytest.mark.parametrize("name", ["README.md", "docs/results/README.md"])
def test_the_blocks_of_a_document_are_what_the_files_say(make, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- made:" in text
    assert make.with_blocks(text) == text


def test_a_number_that_was_changed_by_hand_is_seen(make):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- made: demo.*?<!-- end -->", text, re.DOTALL)
    assert block is not None
    digit = re.search(r"\d\.\d", block[0])
    assert digit is not None
    other = block[0].replace(digit[0], digit[0].replace(".", ".9"), 1)
    assert make.with_blocks(text.replace(block[0], other)) == text


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_each_result_says_its_command_machine_versions_and_date(folder):
    made, run = folder / "made.json", folder / "run.json"
    if made.exists():
        entries = json.loads(made.read_text(encoding="utf-8"))
        del entries["left_out"]
        for entry in entries.values():
            assert entry["command"].startswith("octoscale reproduce ")
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
            assert {"cpu", "reason", "threads", "octoscale", "torch", "transformers"} <= entry["machine"].keys()
    elif run.exists():
        header = json.loads(run.read_text(encoding="utf-8"))
        assert {"command", "started", "versions", "cpu", "reason", "threads"} <= header.keys()
    else:
        reports = [json.loads(path.read_text(encoding="utf-8"))["machine"] for path in folder.glob("*.json")]
        assert reports
        assert all({"cpu", "reason", "threads", "octoscale", "torch", "date"} <= machine.keys() for machine in reports)


@pytest.mark.parametrize(
    "path", sorted(RESULTS.rglob("table*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_table_in_markdown_is_that_of_its_json(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == markdown(content)
    assert markdown(content).replace("### ", "## ", 1) in (path.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RESULTS)))
def test_no_result_names_a_place_of_the_machine_that_measured_it(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|mnt|opt)\b", text) == []
