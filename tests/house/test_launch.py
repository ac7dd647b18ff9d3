"""Plans of the paper's sizes, and the lines that launch them. Oracles: the script, the planner, the command line."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANS = json.loads((ROOT / "docs" / "plans.json").read_text(encoding="utf-8"))
SLOW = [pytest.param(size, marks=pytest.mark.slow) for size in PLANS if size != "gpt-111m"]


@pytest.fixture
def launch(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.delitem(sys.modules, "launch", raising=False)
    import launch

    return launch


def test_files_are_what_the_script_writes(launch):
    written = launch.files(PLANS)
    assert len(written) == 2 + 2 * 5
    assert {name: (ROOT / name).read_text(encoding="utf-8") for name in written} == written


@pytest.mark.parametrize("size", ["gpt-111m", *SLOW])
def test_a_plan_is_what_it_was(launch, size):
    assert launch.planned(size) == PLANS[size]


def test_each_size_fits_on_its_mesh(launch):
    """Oracle: the bytes; and without FP8, the sizes from which on it does not."""
    for size, plan in PLANS.items():
        assert launch.mesh(plan)["bytes"]["peak"] <= 80e9, size
        assert plan["accumulate"] % (launch.mesh(plan)["ranks"]) == 0 or "tp" in launch.mesh(plan)["parallel"]
    assert list(PLANS) == list(launch.PAPER_SIZES)


def test_each_line_is_one_that_is_taken(launch, run, monkeypatch):
    """Oracle: the options and settings of train, under as many ranks; accelerate's and torchrun's own parsers."""
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    taken = []
    monkeypatch.setattr("octoscale.cli.train._train", lambda settings, *_: taken.append(settings))
    page = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^    (torchrun|accelerate launch) (.*)$", page, re.MULTILINE)
    assert len(found) == 2 * len(launch.LAUNCHED)
    for program, line in found:
        words = shlex.split(line)
        parser = get_args_parser() if program == "torchrun" else launch_command_parser()
        told = parser.parse_args([word if word != "N" else "1" for word in words])
        assert told.training_script == "octoscale"
        size = told.training_script_args[1]
        monkeypatch.setenv("WORLD_SIZE", str(launch.mesh(PLANS[size])["ranks"]))
        code, _, err = run(*told.training_script_args)
        assert code == 0, err
        if program == "torchrun":
            machines, each = int(told.nnodes.split(":")[0]), int(told.nproc_per_node)
            assert machines * each == launch.mesh(PLANS[size])["ranks"]
    assert {settings.parallel for settings in taken if settings.parallel} <= {
        launch.mesh(plan)["parallel"] for plan in PLANS.values()
    }


def test_accelerate_reads_its_configs(launch):
    from accelerate.commands.config.config_args import load_config_from_file

    for size in launch.LAUNCHED:
        config = load_config_from_file(str(ROOT / "experiments" / "launch" / f"{size}.yaml"))
        assert config.num_processes == launch.mesh(PLANS[size])["ranks"]
        assert config.num_machines == launch.layout(launch.mesh(PLANS[size]))[0]
