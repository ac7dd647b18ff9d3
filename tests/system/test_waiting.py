"""The spin of idle threads. Oracle: what GNU's OpenMP itself says that it took from the environment."""

import os
import subprocess
import sys

import pytest

from octoscale.system.waiting import SPIN_VARIABLE, SPINS, bound_spinning

COMMAND = "import sys; from octoscale.cli.main import main; sys.argv = ['octoscale', 'info']; main()"


def spins_of_a_command(**environment):
    """The spin count that the OpenMP runtime of a process prints when it starts."""
    clean = {name: value for name, value in os.environ.items() if name not in (SPIN_VARIABLE, "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND],
        env=clean | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line for line in done.stderr.splitlines() if SPIN_VARIABLE in line]
    if not found:
        pytest.skip("this torch brings another OpenMP runtime")
    return int(found[0].split("'")[1])


def test_a_command_bounds_the_spin_before_torch_is_loaded():
    assert spins_of_a_command() == SPINS


def test_what_the_user_set_stays():
    assert spins_of_a_command(**{SPIN_VARIABLE: "17"}) == 17
    assert spins_of_a_command(OMP_WAIT_POLICY="passive") == 0


def test_it_is_too_late_once_torch_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", object()))
    monkeypatch.delenv(SPIN_VARIABLE, raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert not bound_spinning()
    assert SPIN_VARIABLE not in os.environ
