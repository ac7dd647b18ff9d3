"""Four ranks: parts of parts. Oracle: one process; sums have another order, so the losses are close, not equal."""

import pytest
import torch
from checkpoints import byte_tokenizer, quantize
from held import measured, written
from many import MODELS, norms, train, train_alone
from models import stories
from placed import cut_otherwise, read, whole
from ranks import Ranks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STEPS = 20


@pytest.fixture(scope="module")
def four_ranks():
    ranks = Ranks(4)
    yield ranks
    ranks.close()


@pytest.mark.parametrize(("fsdp", "tp"), [(4, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("name", MODELS)
def test_losses_are_those_of_one_process(name, fsdp, tp, four_ranks):
    losses, weights = train_alone(name, "amax", fsdp, 4, STEPS, {})
    answers = four_ranks.call(train, name, "amax", fsdp, tp, 4, STEPS, {})
    for rank, (found, _) in enumerate(answers):
        expected = [of_ranks[rank // tp] for of_ranks in losses]
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert found == pytest.approx(expected, rel=5e-2)
    for module, (_, bias) in weights[0].items():
        assert {casts[0][module][1] for _, casts in answers} == {bias}, module
        if tp == 1:
            codes = torch.cat([casts[0][module][0] for _, casts in answers])
            assert torch.equal(codes, weights[0][module][0]), module


@pytest.mark.parametrize(("fsdp", "tp"), [(4, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("name", ["llama", "tied", "uneven"])
def test_the_norm_is_that_of_all_values_on_every_rank(name, fsdp, tp, four_ranks):
    answers = four_ranks.call(norms, name, fsdp, tp)
    assert len({found for found, _ in answers}) == 1
    for found, expected in answers:
        assert found == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("sizes", [(1, 4, 1), (1, 2, 2), (1, 1, 4), (2, 1, 2)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_a_cut_is_where_torch_cuts(name, sizes, four_ranks):
    """Oracle: what FSDP2 and tensor parallel leave of values."""
    assert four_ranks.call(cut_otherwise, name, sizes) == [[]] * 4


@pytest.mark.parametrize("sizes", [(1, 2, 2), (1, 1, 4), (2, 2, 1)], ids=str)
@pytest.mark.parametrize("name", ["uneven", "tied", "narrow", "gpt2"])
def test_a_training_reads_parts_of_the_same_model(name, sizes, four_ranks, tmp_path):
    MODELS[name]().to(torch.bfloat16).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    values, _ = whole(tmp_path)
    for found in four_ranks.call(read, str(tmp_path), sizes):
        assert found["values"].keys() == values.keys()
        assert [key for key, value in values.items() if not torch.equal(found["values"][key], value)] == []


@pytest.mark.parametrize("name", MODELS)
def test_inference_is_that_of_one_process(name, four_ranks, tmp_path):
    """Parts that are empty, heads that four ranks do not divide."""
    MODELS[name]().to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    byte_tokenizer().save_pretrained(tmp_path / "bf16")
    quantize(tmp_path / "bf16", tmp_path / "fp8")
    for model, scalings in (("bf16", ["bf16", "amax", "cscale:2"]), ("fp8", ["stored"])):
        expected = measured(str(tmp_path / model), scalings)
        for answer in four_ranks.call(measured, str(tmp_path / model), scalings):
            for scaling, (perplexity, failure) in expected.items():
                assert answer[scaling] == (pytest.approx(perplexity, rel=2e-3), failure), (model, scaling)


def test_a_trained_model_writes_what_it_writes_in_one_process(four_ranks, tmp_path):
    stories().to(torch.bfloat16).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    expected, _, _ = written(str(tmp_path))
    assert [ids for ids, _, _ in four_ranks.call(written, str(tmp_path))] == [expected] * 4
