"""Every option of every command with values that nobody means: one line and exit code 2, or a run that ends well.

Oracle: the process itself, and the options that the commands really have. Long runs are left out.
"""

import os

import pytest
import torch
import typer
from checkpoints import save_tiny_llama
from forked import Command, faults, small_figures  # noqa: F401

from octoscale.cli import main as cli

pytestmark = [pytest.mark.slow, pytest.mark.forks, pytest.mark.filterwarnings("ignore")]

NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e400", "1" + "0" * 30, "x", ""]
TEXTS = ["", "x", "\x1b[2J", "FOLDER", "BINARY", "nowhere/at/all", "é" * 300, "cscale:" + "9" * 5000, "-"]
#: A command's least arguments; what is not here needs the network, minutes, or another machine.
LEAST = {
    "inspect": ["MODEL"],
    "validate": ["MODEL", "--text", "TEXT", "--window", "32", "--tokens", "64", "--scaling", "amax"],
    "sweep": ["MODEL", "--text", "TEXT", "--window", "32", "--tokens", "64", "--bias", "0"],
    "advise": ["MODEL", "--text", "TEXT", "--window", "32", "--tokens", "64", "--keep-at-most", "1"],
    "parity": ["MODEL", "--text", "TEXT", "--window", "32", "--tokens", "64", "--longest", "64"],
    "arena": ["MODEL", "--text", "TEXT", "--window", "32", "--tokens", "64", "--scaling", "amax"],
    "train": ["MODEL", "--text", "TEXT", "--window", "32", "--steps", "1", "--batch", "1"],
    "plan": ["MODEL", "--gpus", "1"],
    "quantize": ["MODEL", "out"],
    "generate": ["MODEL", "--prompt", "fox", "--max-new-tokens", "2"],
    "report": ["RUN"],
    "models": [],
}
#: Numbers that only say how long a run is.
LENGTHS = {("train", "--steps"), ("train", "--accumulate"), ("train", "--batch"), ("arena", "--train")}


def cases():
    commands = typer.main.get_command(cli.app).commands
    for name, least in LEAST.items():
        for parameter in commands[name].params:
            option = parameter.opts[0]
            if not option.startswith("--") or getattr(parameter, "is_flag", False):
                continue
            kinds = NUMBERS if parameter.type_descriptor.annotation in (int, float, int | None, float | None) else TEXTS
            for value in kinds:
                if not ((name, option) in LENGTHS and len(value) > 20):
                    yield name, [*least, f"{option}={value}"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "text").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    (folder / "binary").write_bytes(os.urandom(256) + b"\xff\xfe")
    (folder / "a_folder").mkdir()
    names = {"MODEL": save_tiny_llama(folder / "llama"), "TEXT": folder / "text", "RUN": folder / "run"}
    made = Command(lambda: ["validate", *_filled(LEAST["validate"], names)[:-2], "--out", str(folder / "run")], folder)
    assert made.end().code == 0
    return names | {"FOLDER": folder / "a_folder", "BINARY": folder / "binary"}


def _filled(arguments, places):
    filled = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        filled.append(f"{option}={places.get(value, value)}" if equals else str(places.get(argument, argument)))
    return filled


@pytest.mark.parametrize("name", LEAST)
def test_a_hostile_value_is_one_line(name, places, tmp_path_factory):
    torch.set_num_threads(1)
    wrong = []
    for command, arguments in cases():
        if command == name:
            folder = tmp_path_factory.mktemp(name)
            end = Command(lambda arguments=arguments: [name, *_filled(arguments, places)], folder).end()
            found = [fault for fault in faults(end, [""]) if "lines of errors" not in fault]
            wrong += [f"{end.arguments[:200]}: {found}: {end.err[-300:]}"] if found else []
    assert not wrong, f"{len(wrong)} are wrong:\n" + "\n".join(wrong)
