"""The head in FP8. Oracle: the same model with the values of the codes in bfloat16."""

import copy
import sys

import pytest
import torch
from checkpoints import byte_tokenizer, save_tiny_llama
from models import tiny_gpt2, tiny_llama, tokens
from torch import nn
from transformers import AutoModelForCausalLM

from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.checkpoints.settings import Quantization
from octoscale.conversion.head import StoredEmbedding, put_head_in_fp8
from octoscale.inference.fuse import fuse
from octoscale.inference.generate import Sampling, Writer
from octoscale.kernels import ops
from octoscale.layers.stored import StoredLinear
from octoscale.models.export import run_quantization
from octoscale.numerics.formats import STORED
from octoscale.numerics.scaling import Amax
from octoscale.runs.scales import read_scales
from octoscale.system.heap import page_out
from octoscale.validation.run import run_validation
from octoscale.validation.settings import Validation

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

MODELS = {
    "tied": lambda: tiny_llama(hidden_size=64, intermediate_size=112, tie_word_embeddings=True),
    "untied": lambda: tiny_llama(hidden_size=64, intermediate_size=112),
    "gpt2": tiny_gpt2,
}


def rounded(weight: torch.Tensor) -> torch.Tensor:
    return ops.quantize(weight.detach(), "e4m3fn", Amax()).dequantize(torch.bfloat16)


@pytest.fixture(params=MODELS)
def pair(request):
    """A model in bfloat16 with an FP8 head, its oracle, and whether they share the head's weight."""
    model, oracle = (MODELS[request.param]().to(torch.bfloat16).eval() for _ in range(2))
    head, embedding = oracle.get_output_embeddings(), oracle.get_input_embeddings()
    is_tied = head.weight is embedding.weight
    head.weight = nn.Parameter(rounded(head.weight))
    if is_tied:
        embedding.weight = head.weight
    return model, oracle, is_tied


def test_it_computes_with_the_values_of_the_codes(pair):
    model, oracle, is_tied = pair
    said = put_head_in_fp8(model)
    assert said.startswith("lm_head in FP8 (e4m3fn amax)")
    assert ("which shares its weight" in said) == is_tied
    ids = tokens()
    assert isinstance(model.get_output_embeddings(), StoredLinear)
    assert isinstance(model.get_input_embeddings(), StoredEmbedding) == is_tied
    with torch.no_grad():
        assert torch.equal(model.get_input_embeddings()(ids), oracle.get_input_embeddings()(ids))
        expected, found = oracle(ids).logits.float(), model(ids).logits.float()
        assert (found - expected).norm() < 0.01 * expected.norm()
        copied = copy.deepcopy(model)(ids).logits.float()
    assert torch.equal(copied, found)


def test_a_tied_weight_is_there_once(pair):
    model, _, is_tied = pair
    put_head_in_fp8(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight.dtype == torch.float8_e4m3fn
    assert (embedding.weight is head.weight) == is_tied
    assert embedding.num_embeddings == model.config.vocab_size


def test_it_cannot_be_saved(pair, tmp_path):
    model, _, _ = pair
    put_head_in_fp8(model)
    with pytest.raises(ValueError, match="for inference only: load it again to save it"):
        model.save_pretrained(tmp_path / "never")
    assert not list((tmp_path / "never").glob("*.safetensors"))


def test_what_it_cannot_do_is_said_and_changes_nothing(pair):
    model, _, _ = pair
    head = model.get_output_embeddings()
    head.forward = head.forward
    with pytest.raises(ValueError, match="lm_head cannot be in FP8: it is fused"):
        put_head_in_fp8(model)
    del head.__dict__["forward"]
    assert model.get_output_embeddings() is head
    put_head_in_fp8(model)
    with pytest.raises(ValueError, match="lm_head cannot be in FP8: it is FP8 already"):
        put_head_in_fp8(model)


def test_a_model_without_a_head_and_an_embedding_of_its_own_kind():
    model = tiny_llama()
    with pytest.raises(ValueError, match="LlamaModel cannot be in FP8: it has no head"):
        put_head_in_fp8(model.model)

    class Scaled(nn.Embedding):
        pass

    model = tiny_llama(tie_word_embeddings=True)
    other = Scaled(*model.model.embed_tokens.weight.shape)
    other.weight = model.lm_head.weight
    model.model.embed_tokens = other
    with pytest.raises(ValueError, match="lm_head cannot be in FP8: its weight is shared with a Scaled"):
        put_head_in_fp8(model)
    assert model.lm_head.weight.dtype == torch.float32


def test_generate_with_fused_layers_and_an_fp8_head(tmp_path):
    model = MODELS["tied"]().to(torch.bfloat16).eval()
    quantize_model(model, OctoscaleConfig("amax"))
    put_head_in_fp8(model)
    ask = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(tokens(batch=1, length=5), **ask)
    if (report := fuse(model)).fused:
        assert str(report) == "2 of 2 decoder layers fused, and the head"
    assert torch.equal(model.generate(tokens(batch=1, length=5), **ask), expected)


@pytest.fixture
def checkpoint(tmp_path):
    return save_tiny_llama(tmp_path / "llama")


@pytest.fixture
def fp8(checkpoint, tmp_path):
    run_quantization(Quantization(model=str(checkpoint)), tmp_path / "fp8")
    byte_tokenizer().save_pretrained(tmp_path / "fp8")
    return tmp_path / "fp8"


@pytest.mark.parametrize("by_layer", [False, True])
def test_validate_says_what_it_costs_and_records_its_scale(by_layer, fp8, tmp_path):
    words = {"model": str(fp8), "scalings": [STORED], "window": 16, "tokens": 64, "by_layer": by_layer}
    found = {}
    for fp8_head in (False, True):
        folder = run_validation(Validation(**words, fp8_head=fp8_head), tmp_path / f"run{fp8_head}", overwrite=False)
        found[fp8_head] = folder.read_json(folder.summary)["perplexity"][STORED]
        assert ("lm_head" in set(read_scales(folder.path)["module"])) == fp8_head
    model = AutoModelForCausalLM.from_pretrained(fp8)
    assert found[True] != found[False]
    assert found[True] == pytest.approx(found[False], rel=0.05)
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_the_command_line(run, checkpoint, fp8):
    code, _, err = run("generate", str(checkpoint), "--prompt", "Once", "--max-new-tokens", "4", "--fp8-head")
    assert code == 0, err
    assert "lm_head in FP8 (e4m3fn amax)" in err
    code, _, err = run("validate", str(checkpoint), "--fp8-head", "--tokens", "64", "--window", "16")
    assert code == 2
    assert f"error: --fp8-head is for FP8 checkpoints: octoscale quantize {checkpoint} OUT first" in err
    writer = Writer(str(fp8), fp8_head=True)
    new = writer.write(writer.encode("Once"), Sampling(max_new_tokens=3), lambda _: None)
    assert 1 <= len(new.ids) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="madvise is Linux's")
def test_pages_that_are_let_go_are_the_same_when_read_again(tmp_path):
    values = torch.arange(1 << 20, dtype=torch.int32)
    values.numpy().tofile(tmp_path / "values")
    mapped = torch.from_file(str(tmp_path / "values"), shared=False, size=1 << 20, dtype=torch.int32)

    def resident() -> int:
        import psutil

        return psutil.Process().memory_info().rss

    assert torch.equal(mapped, values)
    before = resident()
    assert page_out(mapped.data_ptr(), 4 << 20)
    assert resident() < before - (3 << 20)
    assert torch.equal(mapped, values)
    assert page_out(values.data_ptr(), 4 << 20)
    assert torch.equal(mapped, values)
    assert not page_out(values.data_ptr(), 100)
