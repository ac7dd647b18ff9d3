"""Tables show every number at any width, and names are text. Oracle: the words that went in; a console in memory."""

import io
import re

import pytest

from octoscale.report import terminal
from octoscale.report.tasks_table import tasks_table
from octoscale.system.printable import printable

HOSTILE = "[red]x[/red]\x1b[2J\x1b]0;title\x07:smile:[/]"
SUMMARY = {
    "model": "tiny-llama",
    "text": "pydoc",
    "tokens": 123456,
    "perplexity": {"bf16": 17.1234, "amax": 1.23e45, "cscale": {"-8": None, "6": 9876.5432}},
    "seconds": {"bf16": 1234.5, "amax": 2.0, "cscale": {"-8": 3.0, "6": 4.0}},
}
DIFFERENCE = {"estimate": -0.0123, "low": -0.02, "high": -0.005, "items": 1838, "gained": 12, "lost": 34}
TASKS = {
    "model": "tiny-llama",
    "tasks": {
        "piqa": {
            "metric": "acc_norm",
            "items": 1838,
            "against": "bf16",
            "scores": {
                "bf16": {"acc_norm": 0.6485, "standard_error": 0.0111},
                "amax": {"acc_norm": 0.6362, "standard_error": None, "difference": DIFFERENCE},
                "cscale": {"-1": {"acc_norm": 0.25, "difference": None}},
            },
        },
    },
}
TRAINING = {
    "model": "tiny",
    "scaling": "amax",
    "steps": 123456,
    "tokens": 9876543,
    "seconds": 1.5,
    "training_loss": 2.34567,
    "validation_loss": {"before": 5.4321, "after": None},
}
BENCH = {
    "what": "float32 -> e4m3fn",
    "machine": {"cpu": "a machine"},
    "seconds": {"ours": 0.0123456, "torchao": None},
    "ratios": {"ours: torch": 12.5},
}
TABLES = {
    "scores": lambda: terminal.scores_table(SUMMARY),
    "tasks": lambda: tasks_table(TASKS),
    "training": lambda: terminal.training_table(TRAINING),
    "runs": lambda: terminal.runs_table(["amax", "bf16"], [TRAINING, TRAINING | {"validation_accuracy": {"after": 1}}]),
    "formats": terminal.formats_table,
    "models": lambda: terminal.models_table(
        [{"name": "llama", "linear_weights": 12345678901, "description": "a size"}]
    ),
    "bench": lambda: terminal.bench_table(BENCH),
}


@pytest.fixture
def console():
    """Makes a console of a width, and a function that says what it printed."""

    def make(width, *, is_terminal=False):
        made = terminal.PlainConsole()
        made.file, made._width, made._force_terminal = io.StringIO(), width, is_terminal
        return made, made.file.getvalue

    return make


@pytest.mark.parametrize("width", [20, 32, 40, 60, 80, 200])
@pytest.mark.parametrize("name", TABLES)
def test_no_word_of_a_table_is_cut_at_any_width(name, width, console):
    wide, read_wide = console(500)
    wide.print_table(TABLES[name]())
    narrow, read = console(width)
    narrow.print_table(TABLES[name]())
    shown = set(re.findall(r"[^\s│┃━─┏┓┡┩┳╇┴└┘┌┐]+", read()))
    assert shown == set(re.findall(r"[^\s│┃━─┏┓┡┩┳╇┴└┘┌┐]+", read_wide()))


def test_names_in_tables_and_texts_are_text(console):
    made, read = console(200)
    made.print_table(terminal.scores_table(SUMMARY | {"model": HOSTILE, "perplexity": {HOSTILE: 1.0}, "seconds": {}}))
    made.print_text(HOSTILE)
    assert read().count(printable(HOSTILE)) == 4  # title, column, row, text
    assert "\x1b" not in read()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_names_in_progress_are_text(is_terminal, console):
    made, read = console(200, is_terminal=is_terminal)
    with terminal.progress_bar(made, 1) as progress:
        progress(HOSTILE, 1, 1)
    assert printable(HOSTILE) in read()
    assert "\x1b]0" not in read()
    assert "title\x07" not in read()


def test_a_long_path_is_never_folded(console):
    made, read = console(20)
    made.print_text("the run goes to " + "very/long/" * 30)
    assert read() == "the run goes to " + "very/long/" * 30 + "\n"


def test_progress_in_a_file_is_a_line_at_the_second_step_if_it_is_slow_and_one_at_the_end(console, monkeypatch):
    """Requests come in batches, and the last batch may be told twice."""
    now = iter([100.0, *[120.0] * 9])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    made, printed = console(80)
    with terminal.progress_bar(made, 1, "requests") as report:
        for done in (16, 32, 48, 64, 64):
            report("amax", done, 64)
    assert printed().splitlines() == ["amax: 32 of 64 requests; 40 s to go, about", "amax: 64 requests"]
