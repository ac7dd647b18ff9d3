"""The examples run, and do what they say. Oracles: the records that they leave, the reference."""

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
from octoscale.numerics import reference
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


@pytest.fixture
def notebooks(monkeypatch):
    """The script that makes pages of the notebooks."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    for name in ("make", "make_notebooks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import make_notebooks

    return make_notebooks


def code_cells(notebook):
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("started", [".", "examples"])
def test_a_notebook_loads_a_run_shows_a_frame_and_draws_two_figures(started, tmp_path, monkeypatch, notebooks):
    """Started beside the runs, or opened where it is; Jupyter makes that the working folder.

    Oracle: a run written by hand, in which all down_proj under amax flush 2 of 100 values, of three roles each.
    """
    write_run(tmp_path / "runs" / "demo", small_run(), SUMMARY)
    (tmp_path / started).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / started)
    run, frame, *figures = [value for _, value in notebooks.run(ROOT / "examples" / "look_at_a_run.ipynb")]
    assert isinstance(run, Run)
    assert frame.height == 6
    assert frame["flushed, %"][0] == 2.0
    assert [type(figure).__mro__[1] for figure in figures] == [Figure, Figure]
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in figures)
    assert (tmp_path / started / "exponents.pdf").read_bytes().startswith(b"%PDF")


def test_a_notebook_casts_a_tensor_to_four_formats(notebooks):
    """Oracles: the reference for each rounded number; the page, which is of one machine, for all that is shown."""
    notebook = ROOT / "examples" / "a_tensor_in_four_formats.ipynb"
    shown = notebooks.run(notebook)
    _, rounded, table, *figures = [value for _, value in shown]
    numbers = torch.tensor([1000.0, 300.0, 3.3, 1.0, 0.1, 0.003, 0.0001, 0.000001])
    for name, fmt in octoscale.FORMATS.items():
        assert rounded[name].to_list() == [reference.round(x, fmt) for x in numbers.tolist()]
    assert table["saturated"].to_list() == [0, 0, 0, 0]
    fine, coarse = table["sqnr_db"][0], table["sqnr_db"][1]
    assert 5.5 < fine - coarse < 6.5  # one bit of mantissa is 6.02 dB
    assert [type(figure) for figure in figures] == [Figure, Figure]
    page = (notebooks.PAGES / f"{notebook.stem}.md").read_text("utf-8")
    for printed, value in shown[:3]:
        assert notebooks.text(printed, value) in page


def test_a_notebook_records_the_scales_of_a_fine_tune(notebooks):
    """Oracles: a power of two as loss scale changes no bit under amax; gradients move further than weights do."""
    shown = notebooks.run(ROOT / "examples" / "scales_during_a_fine_tune.ipynb")
    (learned, _, _, moves, steps, _, exponents, findings) = [value for _, value in shown]
    first, last = map(float, re.findall(r"\d+\.\d+", learned))
    assert last < first - 1
    assert "28 linear layers in FP8" in shown[1][0]
    mean = dict(moves.select("role", "moves").iter_rows())
    assert mean["grad_output"] > 2 * mean["weight"]
    assert "the same losses: True" in shown[5][0]
    assert shown[5][1].rows() == [("grad_output", [-12]), ("input", [0]), ("weight", [0])]
    assert isinstance(steps, Figure)
    assert isinstance(exponents, Figure)
    assert findings == []


def test_each_page_of_a_notebook_has_its_words_and_its_code(notebooks):
    """If this fails: python docs/make_notebooks.py."""
    assert len(notebooks.NOTEBOOKS) == 3
    for notebook in notebooks.NOTEBOOKS:
        page = (notebooks.PAGES / f"{notebook.stem}.md").read_text("utf-8")
        assert notebooks.without_outputs(page) == notebooks.page(notebook, [])
        assert page.count("<!-- output -->") >= 4


def test_notebooks_are_committed_without_outputs():
    for notebook in (ROOT / "examples").glob("*.ipynb"):
        for cell in code_cells(notebook):
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
