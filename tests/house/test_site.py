"""The pages of the site: none is missing, each command on them is one. Oracles: the command line, the package's data.

Links and anchors are in test_docs.py. Only the slow test builds the site.
"""

import ast
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml
from site_links import broken_links

import octoscale
from octoscale.cli.main import app
from octoscale.cli.options import Words
from octoscale.layers.layouts import LAYOUTS
from octoscale.report.diagnosis.rules import RULES
from octoscale.runs.scales import SCHEMA
from octoscale.system.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="the site is for a clone")
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
#: Documents with commands; the log has those of older versions, too.
WITH_COMMANDS = ["README.md", "experiments/README.md"]
WITH_COMMANDS += [path.relative_to(ROOT).as_posix() for path in sorted(DOCS.rglob("*.md")) if path.name != "LOG.md"]
#: Commands whose options are no settings.
NO_SETTINGS = {"info", "formats", "diagnose", "report", "figures", "watch", "bench", "docs"}
#: Refused here, and right where the page is read: files of the reader's, ranks that torchrun starts.
OF_THIS_MACHINE = re.compile(
    r"no such (?:text |task |recipe )?(?:file|folder)|there is one: start octoscale with torchrun"
)
UsageError = typer.BadParameter.__base__


def commands(command=None, name="octoscale"):
    """Whole name -> each command of the command line, groups included."""
    command = command or typer.main.get_command(app)
    found = {name: command}
    for key, child in getattr(command, "commands", {}).items():
        found |= commands(child, f"{name} {key}")
    return found


COMMANDS = commands()
BENCHES = COMMANDS["octoscale bench"].commands
LEAVES = {name: command for name, command in COMMANDS.items() if not hasattr(command, "commands")}


class SettingsRead(Exception):
    """A command has read its settings: nothing of its work is done."""


@pytest.fixture
def only_settings(monkeypatch):
    """Commands stop when their words are checked."""
    read = Words.settings

    def settings(self, **changed):
        read(self, **changed)
        raise SettingsRead

    monkeypatch.setattr(Words, "settings", settings)
    monkeypatch.setattr("octoscale.validation.run.scalings_for", lambda **_: ("bf16", "amax"))


@pytest.fixture
def script(monkeypatch):
    """A script of docs/, by its name."""
    monkeypatch.syspath_prepend(DOCS)

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return load


def commands_on(page):
    """The commands in blocks of code, and in code within a line that has options; of alternatives the first."""
    text = (ROOT / page).read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?: {4}|\t)+(.*)$", text, re.MULTILINE)
    lines += [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += [line for line in re.findall(r"`([^`\n]+)`", text) if " --" in line]
    launched = r"(?:[A-Z_]+=\S+ )*(?:(?:torchrun|accelerate launch|srun torchrun) .*-m )?(octoscale .*)"
    for line in lines:
        found = re.match(launched, line)
        if found and "..." not in line:
            yield re.sub(r"\|(?:\"[^\"]*\"|\S)+", "", found[1])


def refusal(text):
    """What the real command line says against a command, of which nothing is done; None if it would begin."""
    words = shlex.split(text, comments=True)[1:]
    words = words[: words.index(">")] if ">" in words else words
    command, name = typer.main.get_command(app), "octoscale"
    try:
        if words[0] not in NO_SETTINGS:
            command.main(words, standalone_mode=False)
        while hasattr(command, "commands"):
            command, name, words = command.commands[words[0]], words[0], words[1:]
        command.make_context(name, list(words))
    except SettingsRead:
        return None
    except (UsageError, UserError, OSError) as error:
        words = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        return None if OF_THIS_MACHINE.search(words) else words
    return None if name in NO_SETTINGS or command.name in BENCHES else "it read no settings"


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_each_command_on_a_page_is_read_by_the_real_command_line(page, only_settings):
    """Options, arguments, and what the settings say of them together."""
    refused = {text: refusal(text) for text in commands_on(page)}
    assert {text: why for text, why in refused.items() if why is not None} == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("octoscale validate M --bits 8", "No such option"),
        ("octoscale train M --steps 0", "steps"),
        ("octoscale watch", "Missing parameter: run"),
        ("octoscale bench linear --fp8", "No such option"),
        ("octoscale quantize M OUT --activations sometimes", "unknown activations"),
        ("octoscale guess M", "No such command"),
    ],
)
def test_a_command_that_is_none_is_seen(text, why, only_settings):
    assert why in (refusal(text) or "")


def test_pages_have_commands():
    """The search for commands finds them: many in all, in each form that pages write them in."""
    assert sum(len(list(commands_on(page))) for page in WITH_COMMANDS) > 150
    assert 'octoscale generate OUT --prompt "Once"' in set(commands_on("docs/MANY_RANKS.md"))


@pytest.mark.parametrize(("name", "make"), [("cli.md", "cli_page"), ("api.md", "api_page")])
def test_the_reference_is_made_of_the_code(script, name, make):
    """If this fails: python docs/make_reference.py."""
    assert (DOCS / "reference" / name).read_text("utf-8") == getattr(script("make_reference"), make)()


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_stands_in_the_reference_of_its_command(name):
    text = (DOCS / "reference" / "cli.md").read_text("utf-8")
    section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    words = {word for parameter in LEAVES[name].params for word in (*parameter.opts, *parameter.secondary_opts)}
    shown = set(re.findall(r"`(--[a-z0-9-]+)`", section))
    assert {word for word in words if word.startswith("--")} <= shown
    assert len(re.findall(r"^\| `", section, re.MULTILINE)) == len(LEAVES[name].params)


def test_every_public_name_stands_in_the_reference_once():
    text = (DOCS / "reference" / "api.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: octoscale\.(\w+)$", text, re.MULTILINE)) == octoscale.__all__


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_ends_with_an_example_and_the_page_that_explains_it(name, run, only_settings):
    code, out, _ = run(*name.split()[1:], "--help")
    *_, example, more = [line.strip() for line in out.splitlines() if line.strip()]
    assert code == 0
    assert example.startswith(f"Example: {name}")
    assert name == "octoscale" or refusal(example.removeprefix("Example: ")) is None
    page = more.removeprefix("More: octoscale docs ")
    path = ROOT / "experiments" / "README.md" if page == "experiments" else DOCS / f"{page}.md"
    assert name in path.read_text("utf-8")


def test_each_page_is_in_the_navigation_once():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for child in (entry if isinstance(entry, list) else entry.values()) for page in pages(child)]

    excluded = re.compile(r"results/[^/]+/table\d\.md")
    there = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    there = [page for page in there if not excluded.fullmatch(page)]
    assert sorted(pages(CONFIG["nav"])) == sorted([*there, "experiments/README.md"])


def test_the_site_is_told_to_fetch_nothing():
    """No font of others, no plugin that puts an address of others into pages."""
    assert CONFIG["theme"]["font"] is False
    assert [plugin if isinstance(plugin, str) else next(iter(plugin)) for plugin in CONFIG["plugins"]] == [
        "search",
        "mkdocstrings",
    ]
    assert "://" not in (ROOT / "mkdocs.yml").read_text("utf-8")


LINKS = [
    ("TOUR.md", "LOG.md", "[x](LOG.md)"),
    ("guides/a.md", "../LOG.md#b", "[x](../LOG.md#b)"),
    ("guides/a.md", "../../experiments/README.md", "[x](../experiments/README.md)"),
    ("experiments/README.md", "../docs/LOG.md", "[x](../LOG.md)"),
    ("results/README.md", "advise", "x"),
    ("TRAINING.md", "../examples/train_plain.py", "x"),
    ("TOUR.md", "missing.md", "x"),
    ("TOUR.md", "#words", "[x](#words)"),
    ("TOUR.md", "https://arxiv.org/abs/1", "[x](https://arxiv.org/abs/1)"),
]


@pytest.mark.parametrize(("source", "link", "expected"), LINKS)
def test_a_link_that_leaves_the_site_becomes_text(script, source, link, expected):
    pytest.importorskip("mkdocs")
    included = SimpleNamespace(inclusion=SimpleNamespace(is_included=lambda: True))
    known = dict.fromkeys(("LOG.md", "experiments/README.md"), included)
    files = SimpleNamespace(get_file_from_path=known.get)
    assert script("site_hooks").site_link("x", link, source, files) == expected


def test_the_methods_table_is_what_the_casts_do(script):
    """If the first fails: python docs/make_method.py."""
    page, method = (DOCS / "method.md").read_text("utf-8"), script("make_method")
    assert method.with_blocks_of(page, {"method": method.table}) == page
    assert "(window.png)" in page
    assert "(gradients.png)" in page


def test_the_methods_shares_are_those_of_the_window(script):
    """Oracle: magnitudes against the window's edges, by torch: half the smallest subnormal, and the largest value."""
    method = script("make_method")
    for rows, x in ((method.window(), method.values(1.0, 0.5)), (method.gradients(), method.values(2.6, 1e-6))):
        for row in rows:
            fmt, bias = octoscale.FORMATS[row["format"][0]], row["scale_bias"][0]
            scaled = x.abs().double() * 2.0**bias
            assert row["saturated"][0] == (scaled > fmt.max).sum()
            flushed = (scaled <= 2.0 ** (fmt.min_subnormal_exponent - 1)) & (scaled > 0)
            assert row["flushed"][0] == flushed.sum()
            assert row["saturated"][0] == 0 or row["scaling"][0] != "amax"


def test_the_record_has_the_columns_of_its_page():
    text = (DOCS / "reference" / "runs.md").read_text("utf-8")
    columns = re.findall(r"^\| `(\w+)` \| (\S+) \|", text, re.MULTILINE)
    assert columns == [(name, str(kind)) for name, kind in SCHEMA.items()]


def test_the_layouts_have_the_names_of_their_page():
    text = (DOCS / "reference" / "checkpoints.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \| `(\w+)` \| `(\S+)` \|", text, re.MULTILINE)
    layouts = LAYOUTS.values()
    assert rows == [(row.name, row.weight_scale, row.input_scale, str([*row.scale_shape])) for row in layouts]


def test_findings_on_a_page_are_rules():
    text = (DOCS / "guides" / "report.md").read_text("utf-8")
    table = text.partition("| finding |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[1:]))
    assert len(named) > 5
    assert [name for name in named if name not in RULES] == []


def test_messages_on_a_page_are_messages_of_the_source():
    """Each piece between the dots is a piece of a string."""
    strings = "\n".join(
        node.value
        for path in Path(octoscale.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    for page in ("reference/errors.md", "guides/foreign.md"):
        table = (DOCS / page).read_text("utf-8").partition("| the message ")[2].partition("\n\n")[0]
        cells = [line.split("|")[1] for line in table.splitlines()[2:]]
        pieces = [piece for cell in cells for text in re.findall(r"`([^`]+)`", cell) for piece in text.split("...")]
        assert len(pieces) >= 3
        assert [piece for piece in pieces if piece not in strings] == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nobody_for_anything(tmp_path, monkeypatch):
    """Oracle: mkdocs in strict mode; addresses of scripts, pictures, styles and frames in the pages that it writes."""
    build = pytest.importorskip("mkdocs.commands.build")
    for name in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name)
    config = pytest.importorskip("mkdocs.config")
    monkeypatch.chdir(ROOT)
    build.build(config.load_config("mkdocs.yml", strict=True, site_dir=str(tmp_path)))
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text("utf-8")
        assert re.findall(r"<(?:script|img|iframe|link|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//", text) == []
    assert broken_links(tmp_path) == []


def test_a_link_of_the_site_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "b.html").write_text('<h2 id="here">x</h2><a href="a.html"></a>')
    right = '<a href="b.html#here"></a><a href="#top"></a><p id="top"></p><a href="https://x.org/#y"></a>'
    (tmp_path / "a.html").write_text(right)
    assert broken_links(tmp_path) == []
    (tmp_path / "a.html").write_text(f'{right}<a href="b.html#there"></a><img src="c.png"><a href="#below"></a>')
    assert broken_links(tmp_path) == ["a.html: b.html#there", "a.html: c.png", "a.html: #below"]
