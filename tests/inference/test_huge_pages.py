"""Weights in huge pages. Oracle: the model as it was, bit for bit."""

from itertools import pairwise
from types import SimpleNamespace

import psutil
import pytest
import torch
from implementations import BACKENDS
from models import tiny_llama, tokens

from octoscale.inference import huge_pages
from octoscale.inference.huge_pages import allocate, gather_huge_pages

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

LINUX = pytest.mark.skipif(huge_pages._why_none() is not None, reason="the system has no huge pages")


@LINUX
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_stays_as_it_is(tied):
    model = tiny_llama(tie_word_embeddings=tied).to(torch.bfloat16).eval()
    ids, before = tokens(), dict(model.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in before.items()}
    with torch.no_grad():
        expected = model(ids).logits
        assert gather_huge_pages(model, least_bytes=0).startswith("0.0 GB of weights in huge pages")
        assert torch.equal(model(ids).logits, expected)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    assert all(torch.equal(after[name], value) for name, value in values.items())
    weights = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (weights[0].data_ptr() == weights[1].data_ptr()) == tied


@LINUX
def test_the_copies_share_a_block_and_do_not_overlap():
    model = tiny_llama().to(torch.bfloat16)
    gather_huge_pages(model, least_bytes=0)
    spans = sorted((p.data_ptr(), p.data_ptr() + p.numel() * p.element_size()) for p in model.parameters())
    assert spans[0][0] % (2 << 20) == 0
    assert all(start % 64 == 0 for start, _ in spans)
    assert all(first[1] <= second[0] < first[1] + 64 for first, second in pairwise(spans))


@LINUX
def test_parameters_of_two_shapes_in_the_same_memory_stay_where_they_are():
    model = torch.nn.Module()
    memory = torch.arange(12.0)
    model.flat, model.rows = torch.nn.Parameter(memory), torch.nn.Parameter(memory.view(3, 4))
    gather_huge_pages(model, least_bytes=0)
    assert model.flat.data_ptr() == model.rows.data_ptr() == memory.data_ptr()
    assert (model.flat.shape, model.rows.shape) == ((12,), (3, 4))


@LINUX
def test_the_system_gives_huge_pages():
    before = huge_pages._huge_bytes()
    block = allocate(64 << 20).fill_(1)
    if huge_pages._huge_bytes() == before:
        pytest.skip("memory is in pieces")
    assert huge_pages._huge_bytes() - before >= 32 << 20
    assert block.sum().item() == block.numel()


@pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ core is not built")
@LINUX
def test_the_file_is_let_go_of(tmp_path):
    from transformers import AutoModelForCausalLM

    from octoscale.checkpoints.settings import Quantization
    from octoscale.inference.fuse import fuse
    from octoscale.models.export import run_quantization

    tiny_llama(hidden_size=64, intermediate_size=112).to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    run_quantization(Quantization(model=str(tmp_path / "bf16")), tmp_path / "fp8")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "fp8").eval()
    assert is_mapped(tmp_path / "fp8")
    with torch.no_grad():
        expected = model(tokens()).logits
        gather_huge_pages(model, least_bytes=0)
        assert torch.equal(model(tokens()).logits, expected)
    fuse(model)
    assert not is_mapped(tmp_path / "fp8")


def is_mapped(folder) -> bool:
    return any(row.path.startswith(str(folder)) for row in psutil.Process().memory_maps())


@pytest.mark.parametrize(
    ("setting", "available", "least_bytes", "reason"),
    [
        (None, 1 << 40, 0, "this system has no others"),
        ("always madvise [never]", 1 << 40, 0, "enabled says never"),
        ("always [madvise] never", 1 << 40, 1 << 30, "0 MB gain nothing"),
        ("always [madvise] never", 1000, 0, "0.0 GB are too much for the 0.0 GB of memory that are available"),
    ],
)
def test_what_cannot_be_moved_stays_and_says_why(setting, available, least_bytes, reason, tmp_path, monkeypatch):
    path = tmp_path / "enabled"
    if setting is not None:
        path.write_text(setting)
    monkeypatch.setattr(huge_pages, "_SETTING", path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    model = tiny_llama()
    before = [parameter.data_ptr() for parameter in model.parameters()]
    said = gather_huge_pages(model, least_bytes)
    assert said.startswith("weights left in pages of 4 KiB: ")
    assert said.endswith(reason)
    assert [parameter.data_ptr() for parameter in model.parameters()] == before
    assert allocate(100).numel() >= 100
