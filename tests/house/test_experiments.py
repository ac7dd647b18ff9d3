"""The page of experiments keeps its promises. Oracles: the script that computes its tables, the command line itself."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
PAGE = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {*re.findall(r"^    (octoscale .*)$", PAGE, re.MULTILINE), *re.findall(r"`(octoscale r.* .*?)`", PAGE)}
)


@pytest.fixture
def plan(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.delitem(sys.modules, "plan", raising=False)
    import plan

    return plan


def test_its_tables_are_what_the_script_prints(plan):
    assert plan.table_of_llama() in PAGE
    assert plan.table_of_gpt() in PAGE


def test_an_estimate_by_hand(plan):
    """Oracle: GPT 111M, 10 layers of 12 * 768**2 weights; one token of 1e9 parameters on both rates."""
    assert plan.counted("gpt-111m")[1] == 10 * 12 * 768**2
    assert 110e6 < plan.counted("gpt-111m")[0] < 113e6
    assert plan.lasting(3 * 86_400) == "3 days"
    assert plan.lasting(90) == "2 minutes"
    assert plan.times(plan.GPU * 7200).endswith("| 2 hours")


def test_the_rate_that_was_measured_is_the_logs(plan):
    """Oracle: the entry that the script and the page cite."""
    log = (ROOT / "docs" / "LOG.md").read_text(encoding="utf-8")
    entry = log.partition("## 2026-11-24 The demo in 3 min 15 s\n")[2].partition("\n## ")[0]
    seconds = re.search(r"over 8,192 tokens.* bf16 ([\d.]+) s", " ".join(entry.split()))
    assert seconds is not None
    assert pytest.approx(2 * 134.5e6 * 8192 / float(seconds[1])) == plan.CORES
    source = (EXPERIMENTS / "plan.py").read_text(encoding="utf-8")
    for text in (PAGE, source.replace("\n#: ", " ")):
        text = " ".join(text.split())
        assert f"{seconds[1]} s" in text
        assert "2026-11-24, the demo in 3 min 15 s)" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_one_that_is_taken(run, tmp_path, monkeypatch, command):
    taken = []

    def stop(settings, folder, **_):
        taken.append((settings, folder))
        raise KeyboardInterrupt

    monkeypatch.setattr("octoscale.paper.reproduce.reproduce", stop)
    monkeypatch.setattr("octoscale.arena.run.hold", stop)
    (tmp_path / "data").mkdir()
    code, _, err = run(*shlex.split(command)[1:])
    assert code == 130
    ((settings, folder),) = taken
    assert "the same command goes on" in err
    assert settings.wanted
    assert str(folder).startswith("runs/")


def test_what_the_tasks_read_is_named_and_no_file_of_questions_has_the_name_of_a_task():
    """A folder with NAME.yaml and NAME.jsonl is refused. Oracle: the YAML files."""
    tasks = sorted((EXPERIMENTS / "tasks").glob("*.yaml"))
    read = [name for path in tasks for name in re.findall(r"data/([\w.-]+)", path.read_text(encoding="utf-8"))]
    assert len(read) == len(tasks) > 0
    for page in (PAGE, (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")):
        assert [name for name in read if f"`{name}`" not in page] == []
        assert [path.stem for path in tasks if f"`{path.stem}.jsonl`" in page] == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/results/*/made.json")), ids=lambda path: path.parent.name)
def test_what_was_measured_has_the_command_of_the_page(path):
    """The same tables and figures are made by the same words, but for the folder. Oracle: what the results note.

    Of an arena the page has several, for its kinds of contests.
    """
    made = json.loads(path.read_text("utf-8"))
    for command in {of_one["command"] for name, of_one in made.items() if name != "left_out"}:
        _, kind, what = shlex.split(command)[:3]
        found = [words for words in COMMANDS if shlex.split(words)[1:3] == [kind, what] and "--pretrained" not in words]
        on_page = {_without_folder(words) for words in found}
        assert _without_folder(command) in on_page if kind == "arena" else on_page <= {_without_folder(command)}


def _without_folder(command):
    return re.sub(r" --out \S+", "", command)
