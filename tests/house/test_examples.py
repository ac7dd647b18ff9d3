"""The examples run, and do what they say. Oracle: the records that they leave."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from checkpoints import save_tiny_llama

import octoscale
from octoscale.models.loading import load
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
