"""The house: what a linter of imports cannot say. Oracle: the folders, and sys.modules of fresh interpreters.

That a room imports only from rooms below it is checked by import-linter (pyproject.toml), which ./dev lint runs.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import octoscale

SOURCE = Path(octoscale.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__")

#: What the command line needs before it knows whether a command needs torch.
TORCH_FREE = [
    "octoscale",
    *(f"octoscale.cli.{path.stem}" for path in sorted((SOURCE / "cli").glob("[a-z]*.py"))),
    *(f"octoscale.numerics.{name}" for name in ("formats", "reference")),
    *(f"octoscale.{room}.settings" for room in ROOMS if (SOURCE / room / "settings.py").exists()),
    *(f"octoscale.runs.{name}" for name in ("files", "folder")),
    *("octoscale.checkpoints.companions", "octoscale.conversion.kinds", "octoscale.layers.layouts"),
    *("octoscale.models.labels", "octoscale.models.hub"),
    *(f"octoscale.system.{path.stem}" for path in sorted((SOURCE / "system").glob("[a-z]*.py"))),
]


def test_ls_shows_rooms_and_nothing_else():
    files = {path.name for path in SOURCE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}  # torchrun -m octoscale
    assert all((SOURCE / room / "__init__.py").exists() for room in ROOMS)


@pytest.mark.skipif(not (ROOT / "csrc").exists(), reason="the C++ is in a clone")
def test_lines_of_cpp_are_no_longer_than_those_of_python():
    """ruff reads Python alone."""
    files = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp")]
    assert len(files) > 40
    long = [
        f"{path.name}:{i}"
        for path in files
        for i, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert not long


def test_the_linter_knows_every_room():
    """A room that is missing there could import whatever it likes."""
    text = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert layers is not None
    assert sorted(re.findall(r'"octoscale\.(\w+)"', layers[1])) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_and_names_each_of_its_files(room):
    """Its __init__ is one docstring, in which its files stand in reading order."""
    source = (SOURCE / room / "__init__.py").read_text()
    module = importlib.import_module(f"octoscale.{room}")
    assert module.__doc__ is not None
    assert source.strip() == f'"""{module.__doc__}"""'.strip()
    files = {path.stem for path in (SOURCE / room).glob("[a-z]*.py")}
    assert files <= set(re.findall(r"^    (\w+)", module.__doc__, re.MULTILINE))


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_it_does_not_load_torch(module):
    """Oracle: sys.modules of a fresh interpreter."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)


def test_every_public_name_is_found_where_the_table_says():
    for name in octoscale.__all__:
        module = importlib.import_module(f"octoscale.{octoscale._MODULE_OF[name]}")
        assert getattr(octoscale, name) is getattr(module, name)


def test_no_room_has_a_public_name():
    assert set(octoscale.__all__).isdisjoint(ROOMS)


def test_an_unknown_public_name_is_named():
    with pytest.raises(AttributeError, match="module 'octoscale' has no attribute 'quantise'"):
        octoscale.quantise  # noqa: B018


@pytest.mark.parametrize("first", ["octoscale.hf", "octoscale.checkpoints.hf"])
def test_a_name_that_people_wrote_is_the_same_module(first):
    """Before there were rooms, `import octoscale.hf` registered what reads FP8 checkpoints."""
    code = (
        f"import {first}, octoscale.hf, octoscale.checkpoints.hf as new; from octoscale.hf import OctoscaleConfig; "
        "assert octoscale.hf is new and new.__spec__.name == new.__name__ == 'octoscale.checkpoints.hf'"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_every_old_name_is_the_module_itself_and_hides_no_public_name():
    places = octoscale._OldNames.places
    code = (
        f"import sys, octoscale; from octoscale import convert; import {', '.join(places)}; "
        f"assert all(sys.modules[old] is sys.modules[new] for old, new in {places}.items()); "
        "assert octoscale.convert is convert; import octoscale.models; assert octoscale.models.load is octoscale.load; "
        "from octoscale.models import tasks, sizes; assert not hasattr(octoscale.models, 'nowhere')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("old", octoscale._OldNames.parts)
def test_a_file_that_was_split_is_found_with_all_its_names(old):
    """Oracle: the modules that it is in now."""
    module = importlib.import_module(old)
    assert module.__spec__.name == module.__name__ == old
    for part in map(importlib.import_module, octoscale._OldNames.parts[old]):
        own = {name: value for name, value in vars(part).items() if getattr(value, "__module__", "") == part.__name__}
        assert own
        assert all(getattr(module, name) is value for name, value in own.items())
