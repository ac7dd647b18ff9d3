"""What llmcompressor writes: a golden of what it says and holds, which the files of foreign.py are held to.

The golden is of llmcompressor 0.14.0.1 and compressed-tensors 0.20.0, of `save_tiny_llama(folder, 160, 288)` by
by_llmcompressor.py, in an environment of that library's own: the second layer of each file.
"""

import json
from pathlib import Path

import pytest
from foreign import facts_of, save_foreign

from octoscale.checkpoints.said import read_config
from octoscale.layers.schemes import Scheme

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own
HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "llmcompressor.json").read_text())
#: Its name of a scheme -> ours of such a file, and what is read of it.
SCHEMES = {
    "FP8_DYNAMIC": ("FP8_DYNAMIC", Scheme(weight="row", input="row")),
    "FP8_BLOCK": ("FP8_BLOCK", Scheme(weight="block", input="block")),
    "FP8": ("static", Scheme(activations="static")),
}
KEPT = "model.layers.1.self_attn.o_proj"


@pytest.mark.parametrize("name", SCHEMES)
def test_what_it_says_is_read(name):
    said = read_config(GOLDEN[name]["quantization_config"])
    assert said.scheme_of(["model.layers.1.mlp.up_proj"], ["Linear"]) == SCHEMES[name][1]
    assert said.keeps([KEPT], ["Linear"]) == KEPT
    assert said.keeps(["model.layers.0.self_attn.o_proj"], ["Linear"]) is None


@pytest.mark.parametrize("name", SCHEMES)
def test_files_of_our_tests_hold_what_its_files_hold(name, tmp_path):
    """Names, dtypes and shapes: the layout facts that the other tests rest on."""
    ours = facts_of(save_foreign(tmp_path / "f", SCHEMES[name][0]))["tensors"]
    theirs = GOLDEN[name]["tensors"]
    assert theirs.pop(f"{KEPT}.weight") == ["BF16", 160, 160]
    assert theirs == {key: ours[key] for key in ours if ".layers.1." in key and not key.startswith(KEPT)}
