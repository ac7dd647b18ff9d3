"""A remedy that a message names exists. Oracle: the options that each command really has."""

import ast
import re
from pathlib import Path

import pytest
import typer
from checkpoints import save_tiny_llama

import octoscale
from octoscale.cli import main as cli

SOURCE = Path(octoscale.__file__).parent

#: Whose messages a user reads after which commands; those of other modules, after any.
READERS = {
    **dict.fromkeys(("checkpoints/quantize", "models/export", "system/terms", "layers/layouts"), ("quantize",)),
    "system/whole_folder": ("quantize", "models"),
    "inference/generate": ("generate", "chat"),
    "validation/by_layer": ("validate",),
    "runs/folder": ("validate", "sweep", "demo", "train", "advise", "parity"),
    "validation/kept": ("sweep", "advise", "parity"),
    **dict.fromkeys(
        ("training/trainer", "training/settings", "training/data", "training/resume", "training/share"), ("train",)
    ),
    "models/labels": ("train",),
    **dict.fromkeys(("training/plan", "training/planning"), ("plan",)),
    "bench/generate": ("bench generate",),
}
#: Options of other programs, which the source calls.
FOREIGN = {"--reflink", "--quiet", "--no-deps", "--dest", "--help", "--nproc-per-node", "--standalone", "--site"}


def options_of(command, name=""):
    """Command -> its options, with those of the groups' commands."""
    found = {name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}}
    for key, child in getattr(command, "commands", {}).items():
        found |= options_of(child, f"{name} {key}".strip())
    return found


OPTIONS = options_of(typer.main.get_command(cli.app))


def messages():
    """Module, line and text of each string that is no docstring."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                yield path.relative_to(SOURCE).with_suffix("").as_posix(), node.lineno, node.value


def named():
    """Each option in a message: module, line, option, and the command that the message names before it, if any."""
    for module, line, text in messages():
        for found in re.finditer(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text):
            words = re.findall(r"[a-z]+", text[: found.start()])
            pairs = zip(["", *words], words, strict=False)
            before = [next((name for name in (f"{a} {b}", b) if name in OPTIONS), None) for a, b in pairs]
            before = [name for name in before if name is not None]
            if found[0] not in FOREIGN:
                yield module, line, found[0], before[-1] if before else None


@pytest.mark.parametrize(("module", "line", "option", "command"), sorted(set(named()), key=str))
def test_an_option_in_a_message_exists(module, line, option, command):
    readers = (command,) if command in OPTIONS else READERS.get(module)
    if readers is None:
        assert any(option in options for options in OPTIONS.values())
    else:
        assert [reader for reader in readers if option not in OPTIONS[reader]] == []


def test_a_command_in_a_message_exists():
    named = {
        (module, word) for module, _, text in messages() for word in re.findall(r"octoscale ([a-z]+) [A-Z{-]", text)
    }
    assert named
    assert [(module, word) for module, word in named if word not in OPTIONS] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["quantize", "MODEL", "out", "--scaling", "amax:formats=fnuz"], "hold e4m3fn, leave formats= out"),
        (["sweep", "FP8"], "validate measures it"),
        (["validate", "FP8", "--scaling", "amax"], "leave --scaling out"),
        (["quantize", "FP8", "out"], "holds FP8 weights with their scales already: quantize what it was made from"),
        (["demo", "--tokens", "100"], "--tokens 100: the demo reads windows of 512 tokens"),
    ],
)
def test_a_remedy_is_one_of_the_command(args, message, run, tmp_path):
    model = save_tiny_llama(tmp_path / "llama")
    if "FP8" in args:
        assert run("quantize", model, tmp_path / "fp8")[0] == 0
    code, _, err = run(*({"MODEL": model, "FP8": tmp_path / "fp8"}.get(arg, arg) for arg in args))
    assert code == 2
    assert message in err


def test_the_readers_are_of_modules():
    assert all((SOURCE / f"{module}.py").exists() for module in READERS)
