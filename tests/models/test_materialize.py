"""Random checkpoints in FP8. Oracle: transformers' own model of the config; the normal distribution."""

import json

import pytest
import torch

from octoscale.layers.stored import StoredLinear
from octoscale.models import loading
from octoscale.models.materialize import materialize

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.mark.parametrize(("size", "layers"), [("gpt-10m", 2), ("gpt-111m", 1)])
def test_it_is_the_model_of_that_size(size, layers, tmp_path):
    said = materialize(size, tmp_path / "out", num_layers=layers)
    model = loading.load(str(tmp_path / "out")).model
    expected = loading.config_of_size(size)
    expected.num_hidden_layers = layers
    with torch.device("meta"):
        plain = type(model)(expected)
    assert {n: p.shape for n, p in plain.named_parameters()}.items() <= {
        n: p.shape for n, p in model.named_parameters()
    }.items()
    assert said["bytes"] == sum(p.numel() * p.element_size() for p in model.parameters())
    stored = [module for module in model.modules() if isinstance(module, StoredLinear)]
    assert len(stored) == 4 * layers
    for layer in stored:
        values = layer.quantized_weight().dequantize(torch.float32)
        assert values.std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(values.mean().item()) < 2e-4
        assert values.abs().max() < 448 * 2**-11
    assert all(p.isfinite().all() for n, p in model.named_parameters() if p.dtype != torch.float8_e4m3fn)
    with torch.no_grad():
        assert model(torch.arange(8)[None]).logits.isfinite().all()


def test_a_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        materialize("gpt-10m", tmp_path / name, num_layers=1, seed=seed)
    files = [(tmp_path / name / "model-00001-of-00002.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_the_command_writes_what_validate_reads(tmp_path, run):
    code, out, err = run("models", "--materialize", "gpt-10m", "--layers", 1, "out", "--json")
    assert code == 0, err
    assert json.loads(out)["layers"] == 1
    (tmp_path / "text").write_text("To be, or not to be. " * 20)
    code, out, err = run("validate", "out", "--text", "text", "--window", 64, "--batch", "--json")
    assert code == 0, err
    assert list(json.loads(out)["perplexity"]) == ["stored"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["out"], "go together"),
        (["--materialize", "gpt-10m"], "name the new checkpoint's folder, once: OUT"),
        (["--layers", "2"], "--layers is for --materialize"),
        (["--materialize", "gpt-1", "out"], "unknown size 'gpt-1'"),
        (["--materialize", "gpt-10m", "--layers", "9", "out"], "9 layers: gpt-10m has 1 to 8"),
        (["--materialize", "gpt-10m", "there"], "exists already"),
    ],
)
def test_a_mistake_is_one_line(options, message, tmp_path, run):
    (tmp_path / "there").mkdir()
    code, out, err = run("models", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
