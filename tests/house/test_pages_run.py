"""Each command on a page is run, or says why it is not. Oracles: exit codes, and lines that a page says are printed.

The commands of a page are run in its order, in a folder of their own with small stand-ins for what is the reader's
(tests/support/page_commands.py). The page's marks say what is slow, and what a test cannot do.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from page_commands import PAGES, ROOT, Command, Output, make_world, smaller, steps_of, steps_of_page

import octoscale
from octoscale.cli import main as cli

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="the pages are those of a clone")

STEPS = {page: steps for page in PAGES if (steps := steps_of_page(page))}
RUN = [page for page, steps in STEPS.items() if any(isinstance(step, Command) and step.mode == "run" for step in steps)]
SLOW = [
    page for page, steps in STEPS.items() if any(isinstance(step, Command) and step.mode == "slow" for step in steps)
]
#: What a page takes for granted, as commands that another page shows.
BEFORE = {
    "docs/guides/report.md": [
        "octoscale validate MODEL --text my.txt --tokens 1024 --out runs/first",
        "octoscale train MODEL --text my.txt --scaling bf16 --out runs/bf16",
        "octoscale train MODEL --text my.txt --scaling amax --out runs/amax",
    ],
    "docs/MANY_RANKS.md": ["octoscale quantize MODEL OUT"],
    "docs/guides/foreign.md": ["octoscale quantize ORIGINAL FOLDER --scaling amax --overwrite"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("pages") / "world")


@pytest.fixture
def follow(world, tmp_path, monkeypatch, capsys):
    """Do what a page says, in these modes; what its commands print is checked where it says so."""
    folder = tmp_path / "reader"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")

    def call(page, modes):
        if page == "docs/guides/foreign.md":
            shutil.rmtree("FOLDER")
        said = ""
        for step in [*(Command(text, "run") for text in BEFORE.get(page, [])), *STEPS[page]]:
            if isinstance(step, Output):
                assert [line for line in step.lines if flat(line) not in flat(said)] == []
            elif step.mode in modes:
                code, said = do(step.text, monkeypatch, capsys)
                assert code == 0, f"{step.text}\n{said}"

    return call


def flat(text):
    """Words without the lines of tables, in whatever width."""
    return " ".join(re.sub(r"[\u2500-\u257f|]", " ", text).split())


def do(text, monkeypatch, capsys):
    """Run a command here, or a program of its own: (exit code, all that it said)."""
    words = smaller(shlex.split(text, comments=True))
    while re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        del words[0]
    if words[0] == "octoscale":
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out + err
    assert words[0] == "torchrun", f"say how this is tested: {text}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(octoscale.__file__).parents[1])}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run(page, follow):
    follow(page, {"run"})


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_all_commands_of_a_page_run_in_its_order(page, follow):
    follow(page, {"run", "slow"})


@pytest.mark.parametrize("page", STEPS)
def test_what_is_not_run_says_why(page):
    """And is there: a script of the repository, a command of ./dev."""
    known = set(re.findall(r"^    (\w+)[) |]|^    ([\w| ]+)\) setup", (ROOT / "dev").read_text("utf-8"), re.MULTILINE))
    known = {word for pair in known for words in pair for word in words.replace("|", " ").split()}
    for step in STEPS[page]:
        if isinstance(step, Command) and step.mode == "parse":
            assert len(step.reason.split()) >= 3, step.text
            words = shlex.split(step.text, comments=True)
            if words[0] == "./dev":
                assert words[1] in known
            if words[0] in ("python", "sbatch"):
                assert (ROOT / words[1]).exists(), step.text


def test_most_commands_run():
    modes = [step.mode for steps in STEPS.values() for step in steps if isinstance(step, Command)]
    assert len(modes) > 140
    assert modes.count("run") + modes.count("slow") > 80


def test_marks_are_read():
    text = """
<!-- test: slow -->
<!-- test: parse chat: it waits -->

    octoscale info
    octoscale chat M      # a comment
    not a command

<!-- test: parse watch: it never ends -->

    octoscale watch M|N
    octoscale info
    torchrun -m octoscale train M \\
        --steps 2

<!-- test: output -->
```text
one
two
```

```python
python = 1
```
"""
    assert [*steps_of(text)] == [
        Command("octoscale info", "slow"),
        Command("octoscale chat M      # a comment", "parse", "it waits"),
        Command("octoscale watch M", "parse", "it never ends"),
        Command("octoscale info", "run"),
        Command("torchrun -m octoscale train M          --steps 2", "run"),
        Output(("one", "two")),
    ]
