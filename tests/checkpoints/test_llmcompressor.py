"""What llmcompressor writes: a golden of what it says and holds, and files that it makes just now. Oracle: foreign.py.

The golden is of llmcompressor 0.14.0.1 and compressed-tensors 0.20.0, of `save_tiny_llama(folder, 160, 288)` by
by_llmcompressor.py: the second layer of each file. The slow test needs an environment of that library's own, by the
path of its Python in OCTOSCALE_LLMCOMPRESSOR.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from foreign import facts_of, means, save_foreign

import octoscale
from octoscale.checkpoints.said import read_config
from octoscale.layers.schemes import Scheme
from octoscale.layers.stored import StoredLinear
from octoscale.models.package_index import cached_checkpoint
from octoscale.models.texts import read_text, token_windows
from octoscale.validation.perplexity import window_loss

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


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_losses_are_those_of_the_decoded_weights_under_the_same_casts(name, tmp_path):
    """Of SmolLM2-135M in float32: no farther apart, on average, than casts near ties make single tokens."""
    python = os.environ.get("OCTOSCALE_LLMCOMPRESSOR")
    if python is None:
        pytest.skip("OCTOSCALE_LLMCOMPRESSOR does not name a Python that has llmcompressor")
    text = tmp_path / "text.txt"
    text.write_text(read_text("pydoc")[:20000])
    words = [python, HERE / "by_llmcompressor.py", cached_checkpoint("smollm2-135m"), tmp_path / "f", name]
    done = subprocess.run(
        [*map(str, words), *([str(text)] if name == "FP8" else [])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_losses(tmp_path / "f", name)


def check_losses(folder: Path, name: str) -> tuple[float, float, float]:
    """Our mean loss, the oracle's, and the standard error of the difference, token by token."""
    loaded = octoscale.load(str(folder), torch.float32)
    layers = [module for module in loaded.model.modules() if isinstance(module, StoredLinear)]
    assert len(layers) == 30 * 7 - 1
    held = sum(p.numel() * p.element_size() for layer in layers for p in layer.parameters())
    assert held < 1.04 * sum(layer.weight.numel() for layer in layers)  # a byte a weight, and the scales
    windows = token_windows(read_text("pydoc"), loaded.encode, window=128, num_tokens=1024, source="pydoc")
    ours = losses(loaded.model.eval(), windows)
    theirs = losses(means(folder, SCHEMES[name][0], KEPT) if name != "FP8" else static(folder), windows)
    differ = ours - theirs
    error = float(differ.std() / differ.numel() ** 0.5)
    assert abs(float(differ.mean())) < 3 * error + 1e-6, (float(ours.mean()), float(theirs.mean()), error)
    assert float(differ.std()) < 0.5 * float(theirs.std())
    return float(ours.mean()), float(theirs.mean()), error


def losses(model, windows):
    with torch.no_grad():
        return torch.cat([window_loss(model, window) for window in windows])


def static(folder: Path):
    """Each layer has a scale of its own, by the file: the hooks of `means` know one for all."""
    from safetensors.torch import load_file

    model, tensors = means(folder, "static", "_proj"), load_file(folder / "model.safetensors")

    def casting(scale: float):
        return lambda _, args: ((args[0] / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale, *args[1:])

    for name, module in model.named_modules():
        if f"{name}.input_scale" in tensors:
            module.register_forward_pre_hook(casting(float(tensors[f"{name}.input_scale"])))
    return model
