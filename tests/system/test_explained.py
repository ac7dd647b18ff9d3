"""A mistake is one line and exit code 2, a defect a traceback and exit code 1. Oracle: the process's own ends."""

import polars as pl
import pytest
import torch

import octoscale
from octoscale.system.errors import UserError
from octoscale.system.explained import explained

MISTAKES = {
    "user": (UserError("what is wrong\nand more"), "what is wrong"),
    "file": (FileNotFoundError(2, "No such file or directory", "a\x1b[2Jb"), r"a\x1b[2Jb"),
    "not finite": (FloatingPointError("layer x: infinity"), "layer x: infinity"),
    "memory": (MemoryError(), "not enough memory: MemoryError"),
    "memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB"), "not enough memory: Default"),
    "a package": (ModuleNotFoundError("No module named 'datasets'", name="datasets"), "'octoscale[train]'"),
    "a package, in words": (ImportError("Using the `Trainer` requires accelerate"), "pip install it"),
}
DEFECTS = [
    ValueError("too many values to unpack (expected 2)"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    TypeError("'int' object is not iterable"),
    AttributeError("no attribute"),
    KeyError("key"),
    IndexError("index"),
    AssertionError(),
    RecursionError("too deep"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ModuleNotFoundError("No module named 'octoscale.nowhere'", name="octoscale.nowhere"),
    ImportError("cannot import name 'nothing' from 'torch'", name="torch"),
    pl.exceptions.PanicException("rust"),
]


def ended(error, capsys):
    """The exit code and stderr of a command that raises this."""
    with pytest.raises(SystemExit) as stop, explained():
        raise error
    out, err = capsys.readouterr()
    assert out == ""
    return stop.value.code, err


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, capsys):
    error, message = MISTAKES[name]
    code, err = ended(error, capsys)
    assert code == 2
    assert err.startswith("octoscale: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_memory_that_torch_cannot_have_is_a_mistake(capsys):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert ended(caught.value, capsys)[0] == 2


@pytest.mark.parametrize("error", DEFECTS, ids=lambda error: type(error).__name__)
def test_a_defect_is_a_traceback_and_asks_for_a_report(error, capsys):
    code, err = ended(error, capsys)
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith(f"octoscale: this is a defect of octoscale {octoscale.__version__}: please")


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()], ids=["exit", "ctrl-c"])
def test_ends_that_are_no_errors_pass(end):
    with pytest.raises(type(end)), explained():
        raise end


def test_the_traceback_of_a_mistake_is_shown_on_request(monkeypatch):
    monkeypatch.setenv("OCTOSCALE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="what is wrong"), explained():
        raise UserError("what is wrong")
