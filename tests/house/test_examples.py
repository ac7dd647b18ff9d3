"""The examples run, and do what they say. Oracle: the records that they leave."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import save_tiny_llama
from matplotlib.figure import Figure
from written_runs import SUMMARY, small_run, write_run

import octoscale
from octoscale.models.loading import load
from octoscale.report.run import Run
from octoscale.runs.scales import read_scales

ROOT = Path(__file__).resolve().parents[2]


def test_a_training_loop_of_25_lines(tmp_path):
    """The loss falls, every step of the loop has its rows of all roles, and transformers loads the model again."""
    script = ROOT / "examples" / "train_plain.py"
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200)
    checkpoint = save_tiny_llama(tmp_path / "llama")
    environment = {**os.environ, "PYTHONPATH": str(Path(octoscale.__file__).parents[1])}
    command = [sys.executable, script, checkpoint, tmp_path / "text.txt", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert losses[-1] < losses[0] - 1
    rows = read_scales(tmp_path / "run")
    assert set(rows["step"]) == set(range(len(losses)))
    assert dict(rows.filter(step=0).group_by("role").len().iter_rows()) == dict.fromkeys(
        ("weight", "input", "grad_output"), 14
    )
    before, after = (load(str(path)).model.state_dict() for path in (checkpoint, tmp_path / "run" / "model"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])


def test_the_loop_has_25_lines():
    lines = (ROOT / "examples" / "train_plain.py").read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith('"""')]) <= 25


def cells_of(notebook):
    """The code cells of a notebook, each as its text."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def run_cell(source, names):
    """Run a cell as a notebook does; returns the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("started", [".", "examples"])
def test_a_notebook_loads_a_run_shows_a_frame_and_draws_two_figures(started, tmp_path, monkeypatch):
    """Started beside the runs, or opened where it is; Jupyter makes that the working folder.

    Oracle: a run written by hand, in which all down_proj under amax flush 2 of 100 values, of three roles each.
    """
    write_run(tmp_path / "runs" / "demo", small_run(), SUMMARY)
    (tmp_path / started).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / started)
    names: dict = {}
    notebook = ROOT / "examples" / "look_at_a_run.ipynb"
    run, frame, *figures = [run_cell("".join(cell["source"]), names) for cell in cells_of(notebook)]
    assert isinstance(run, Run)
    assert frame.height == 6
    assert frame["flushed, %"][0] == 2.0
    assert [type(figure).__mro__[1] for figure in figures] == [Figure, Figure]
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in figures)
    assert (tmp_path / started / "exponents.pdf").read_bytes().startswith(b"%PDF")


def test_notebooks_are_committed_without_outputs():
    for notebook in (ROOT / "examples").glob("*.ipynb"):
        for cell in cells_of(notebook):
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
