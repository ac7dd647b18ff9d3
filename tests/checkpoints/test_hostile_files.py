"""A folder of damaged and hostile checkpoints: each is one clear line, no crash, and no pickle is ever loaded.

Oracle: the message names the tensor or the file, and what is wrong with it. Good files of others are computed exactly.
"""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import octoscale.hf  # noqa: F401
import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from octoscale.checkpoints.settings import Quantization
from octoscale.models import loading
from octoscale.models.export import run_quantization
from octoscale.models.loading import ModelError

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint in FP8, as octoscale writes it."""
    folder = tmp_path_factory.mktemp("whole")
    run_quantization(Quantization(model=str(save_tiny_llama(folder / "model"))), folder / "fp8")
    byte_tokenizer().save_pretrained(folder / "fp8")
    return folder / "fp8"


@pytest.fixture
def folder(whole, tmp_path):
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for path in whole.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))  # type: ignore[return-value]


def header_of(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return bytes_of(damage)


def offsets(first: int, last: int) -> Callable[[Path], None]:
    return header_of(lambda header: header[f"{DOWN}.weight"].update(data_offsets=[first, last]))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = load_file(folder / WEIGHTS)
        change(content)
        save_file({name: value.contiguous() for name, value in content.items()}, folder / WEIGHTS, {"format": "pt"})

    return damage


def scale(value: float) -> Callable[[Path], None]:
    return tensors(lambda content: content.update({f"{DOWN}.weight_scale": torch.tensor([value])}))


def put(suffix: str, value: torch.Tensor) -> Callable[[Path], None]:
    return tensors(lambda content: content.update({f"{DOWN}{suffix}": value}))


def without(name: str) -> Callable[[Path], None]:
    return tensors(lambda content: content.pop(name))


def index(content: object) -> Callable[[Path], None]:
    """The weights move to a file of a shard, and an index names what it likes."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
        text = content if isinstance(content, str) else json.dumps({"metadata": {}, "weight_map": content})
        (folder / INDEX).write_text(text)

    return damage


def config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        change(content)
        (folder / "config.json").write_text(json.dumps(content))

    return damage


def static(content: dict) -> None:
    inputs = content["quantization_config"]["config_groups"]["group_0"]["input_activations"]
    inputs.update(dynamic=False)


def norm_of_codes(folder: Path) -> None:
    norm = torch.ones(32).to(torch.float8_e4m3fn)
    tensors(lambda content: content.update({"model.norm.weight": norm}))(folder)


E5M2, INTS = torch.zeros(32, 64).to(torch.float8_e5m2), torch.ones(1, dtype=torch.int32)
STRAY = torch.zeros(4, 4).to(torch.float8_e4m3fn)

#: What is done to the checkpoint, and what the message says.
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut in the data": (bytes_of(lambda data: data[:-100]), WEIGHTS),
    "cut in the header": (bytes_of(lambda data: data[:50]), WEIGHTS),
    "empty": (bytes_of(lambda data: b""), WEIGHTS),
    "a header longer than the file": (bytes_of(lambda data: struct.pack("<Q", 1 << 40) + data[8:]), WEIGHTS),
    "a header that is no JSON": (bytes_of(lambda data: data[:8] + b"x" * 40 + data[48:]), WEIGHTS),
    "offsets past the end": (offsets(0, 1 << 40), WEIGHTS),
    "offsets that go backwards": (offsets(2048, 0), WEIGHTS),
    "offsets below zero": (offsets(-2048, 0), WEIGHTS),
    "offsets of another tensor": (offsets(0, 2048), WEIGHTS),
    "no safetensors at all": (bytes_of(lambda data: b"PK\x03\x04" + b"\0" * 100), WEIGHTS),
    "a weight of E5": (put(".weight", E5M2), f"{DOWN}.weight is F8_E5M2"),
    "a scale of ints": (put(".weight_scale", INTS), f"{DOWN}.weight_scale is I32"),
    "a weight of another shape": (put(".weight", STRAY), f"{DOWN}.weight has shape [4, 4]"),
    "no scale": (without(f"{DOWN}.weight_scale"), f"{DOWN}.weight is in FP8, and no weight_scale"),
    "several scales": (put(".weight_scale", torch.ones(32, 1)), f"{DOWN}.weight_scale has shape [32, 1]"),
    "codes of no linear layer": (norm_of_codes, "model.norm.weight is in FP8, and the weight of no linear layer"),
    "scale 0": (scale(0.0), f"{DOWN}.weight_scale is 0.0"),
    "a scale below 0": (scale(-1.0), f"{DOWN}.weight_scale is -1.0"),
    "a scale that is NaN": (scale(torch.nan), f"{DOWN}.weight_scale is nan"),
    "a scale that is infinite": (scale(torch.inf), f"{DOWN}.weight_scale is inf"),
    "a scale that is subnormal": (scale(1e-42), f"{DOWN}.weight_scale is 1."),
    "static scales that are not there": (config(static), "inputs have static scales, and this layer has none"),
    "an index that leaves the folder": (index({"a": "../model.safetensors"}), "'../model.safetensors'"),
    "an index with a path of the machine": (index({"a": "/etc/passwd.safetensors"}), "'/etc/passwd.safetensors'"),
    "an index with a folder": (index({"a": "sub/model.safetensors"}), "'sub/model.safetensors'"),
    "an index with a pickle": (index({"a": "pytorch_model.bin"}), "'pytorch_model.bin'"),
    "an index with a number": (index({"a": 7}), "names 7"),
    "an index that is no JSON": (index("{"), "is no index of shards"),
    "an index without a map": (index("[]"), "is no index of shards"),
    "a shard that is missing": (index({"a": "model-00002-of-00002.safetensors"}), "which is missing"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_line_on_the_command_line(damage, folder, run):
    do, message = DAMAGES[damage]
    do(folder)
    code, out, err = run("generate", folder, "--prompt", "x", "--max-new-tokens", "1")
    assert (code, out) == (2, "")
    (line,) = (line for line in err.splitlines() if line.startswith("octoscale: error: "))
    assert message in line
    assert "Traceback" not in err


#: What transformers finds out before the quantizer is asked, in its own words.
THEIRS = [name for name in DAMAGES if "index" in name or "config" in name or "shard" in name]


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name not in THEIRS])
def test_from_pretrained_refuses_it_too(damage, folder):
    do, message = DAMAGES[damage]
    do(folder)
    with pytest.raises((ValueError, SafetensorError, OSError)) as caught:
        AutoModelForCausalLM.from_pretrained(folder)
    assert message in str(caught.value) or type(caught.value) is SafetensorError


class Mark:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", WEIGHTS, "model-00001-of-00001.safetensors"])
def test_no_pickle_is_ever_loaded(name, folder, tmp_path, run):
    trace = tmp_path / "loaded"
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Mark(trace)))
    if "00001" in name:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": name}}))
    code, _, err = run("generate", folder, "--prompt", "x")
    assert code == 2, err
    with pytest.raises(ModelError):
        loading.load(str(folder))
    assert not trace.exists()
    pickle.loads((folder / name).read_bytes())  # it is one that works
    assert trace.exists()


@pytest.mark.parametrize("value", [0.0123, 1.9999999, 3e-5, 1e20])
def test_a_foreign_scale_is_taken_exactly(value, folder):
    """Oracle: float64 products of the codes' values and the scale, of an input that FP8 holds as it is."""
    scale(value)(folder)
    content = load_file(folder / WEIGHTS)
    layer = loading.load(str(folder), torch.float32).model.get_submodule(DOWN)
    x = torch.randint(-8, 9, (3, 64)).float()
    found = layer(x).detach()
    expected = x.double() @ content[f"{DOWN}.weight"].double().T * content[f"{DOWN}.weight_scale"].double()
    assert torch.allclose(found.double(), expected, rtol=2e-7, atol=0)
