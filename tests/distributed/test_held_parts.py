"""Inference on two ranks, each with its part of the weights. Oracle: one process.

Weights have its codes and scales, bit for bit. Sums that are in parts are added up in another order: a perplexity of
these models, near that of random guesses, then differs by less than 2e-3 of it (a last bit of bfloat16 is 4e-3 of a
value, and a loss is a mean over some hundred).
"""

import json
import shutil

import pytest
import torch
from checkpoints import quantize
from held import codes, measured, measured_with_infinity, memory, recorded, refused, written
from many import MODELS
from models import stories
from ranks import two_ranks  # noqa: F401
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from octoscale.models.materialize import byte_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own

BOUND = 2e-3


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a model, in bfloat16, by its name, and by what it was quantized to."""
    folder, made = tmp_path_factory.mktemp("saved"), {}

    def get(name, **words):
        if name not in made:
            made[name] = folder / name
            MODELS[name]().to(torch.bfloat16).save_pretrained(made[name])
            byte_tokenizer().save_pretrained(made[name])
        if words.get("activations") == "static":
            words = {"calibrate": str(_text(folder)), "tokens": 512, "window": 16, **words}
        key = json.dumps([name, words])
        if words and key not in made:
            made[key] = folder / f"quantized-{len(made)}"
            quantize(made[name], made[key], **words)
        return str(made[key if words else name])

    return get


def _text(folder):
    """Letters of which the tiny models have embeddings: there is no space among them."""
    path = folder / "text.txt"
    path.write_text("thequickbrownfoxjumpsoverthelazydog" * 20)
    return path


def compare_codes(ranks, spec, *words):
    """The codes of all ranks, put together, and their scales are those of one process."""
    expected, parts = codes(spec, *words), ranks.call(codes, spec, *words)
    assert all(part.keys() == expected.keys() for part in parts)
    for module, (whole, bias) in expected.items():
        assert [part[module][1] for part in parts] == [bias] * ranks.size, module
        here = [part[module][0] for part in parts]
        assert any(_is_together(here, dim, whole) for dim in (0, 1)), module


def _is_together(parts, dim, whole):
    return sum(part.shape[dim] for part in parts) == whole.shape[dim] and torch.equal(torch.cat(parts, dim), whole)


def compare_perplexities(ranks, spec, scalings):
    expected, answers = measured(spec, scalings), ranks.call(measured, spec, scalings)
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].keys() == expected.keys()
    for scaling, (perplexity, failure) in expected.items():
        assert failure is None
        assert answers[0][scaling] == (pytest.approx(perplexity, rel=BOUND), None), scaling


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_the_perplexities_of_one_process(name, saved, two_ranks):  # noqa: F811
    """In its own precision, too, in which the same layers are in parts."""
    compare_perplexities(two_ranks, saved(name), ["bf16", "amax", "cscale:2", "delayed:history=3"])


@pytest.mark.parametrize(
    ("name", "scaling"),
    [*((name, "amax") for name in MODELS), ("llama", "cscale:3"), *((n, "loading amax") for n in ("gpt2", "uneven"))],
)
def test_weights_have_the_codes_and_scales_of_one_process(name, scaling, saved, two_ranks):  # noqa: F811
    compare_codes(two_ranks, saved(name), scaling)


STATIC = {"activations": "static"}
LAYOUTS = [
    ("llama", {"layout": "compressed-tensors"}),
    ("llama", {"layout": "compressed-tensors", "activations": "none"}),
    ("llama", {"layout": "compressed-tensors", **STATIC}),
    ("llama", {"layout": "compressed-tensors", "tie_fused": True}),
    ("llama", {"layout": "vllm-fp8", "scaling": "cscale:4", **STATIC}),
    ("llama", {"layout": "vllm-fp8", **STATIC}),
    ("llama", {"layout": "hf-fp8"}),
    ("gpt2", {"layout": "compressed-tensors", "activations": "none"}),
    ("gpt2", {"layout": "vllm-fp8"}),
    ("gpt2", {"layout": "hf-fp8", **STATIC}),
]


@pytest.mark.parametrize(("name", "words"), LAYOUTS, ids=str)
def test_every_layout_is_read_in_parts(name, words, saved, two_ranks):  # noqa: F811
    spec = saved(name, **words)
    compare_codes(two_ranks, spec, "stored")
    compare_perplexities(two_ranks, spec, ["stored"])


@pytest.mark.parametrize("name", ["uneven", "tied", "few KV heads", "phi", "narrow"])
def test_fp8_folders_of_what_does_not_divide(name, saved, two_ranks):  # noqa: F811
    spec = saved(name, layout="compressed-tensors")
    compare_codes(two_ranks, spec, "stored")
    compare_perplexities(two_ranks, spec, ["stored"])


@pytest.mark.parametrize("activations", ["dynamic", "static", "none"])
def test_scales_of_others_that_are_no_powers_of_two(activations, saved, two_ranks, tmp_path):  # noqa: F811
    """Their factor is taken once, of the whole sum."""
    shutil.copytree(saved("llama", activations=activations), tmp_path / "fp8")
    weights = tmp_path / "fp8/model.safetensors"
    tensors = load_file(weights)
    save_file({k: t * 1.3 if k.endswith("_scale") else t for k, t in tensors.items()}, weights, {"format": "pt"})
    compare_perplexities(two_ranks, str(tmp_path / "fp8"), ["stored"])


def test_a_stored_weight_is_recorded_by_its_part_and_the_amax_of_the_whole(saved, two_ranks):  # noqa: F811
    spec = saved("llama", layout="compressed-tensors")
    one, other = two_ranks.call(recorded, spec)
    together = {name: [*one[name][:2], one[name][2] + other[name][2]] for name in one}
    assert [seen[:2] for seen in one.values()] == [seen[:2] for seen in other.values()]
    assert together == recorded(spec)


def sizes(spec):
    """Bytes of all tensors of a checkpoint, and of those of its decoder layers' linear ones."""
    both = [0, 0]
    with safe_open(f"{spec}/model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            num_bytes = file.get_tensor(name).nbytes
            both[0] += num_bytes
            both[1] += num_bytes * name.endswith("proj.weight")
    return both


@pytest.mark.parametrize("words", [{}, {"layout": "compressed-tensors"}, {"layout": "hf-fp8"}], ids=str)
def test_a_rank_reads_and_holds_half_of_what_is_split_and_all_else(words, saved, two_ranks):  # noqa: F811
    spec = saved("wide", **words)
    everything, split = sizes(spec)
    for answer in two_ranks.call(memory, spec):
        assert answer["read"] == everything - split // 2
        assert answer["parameters"] == everything - split // 2
        assert all(held == used for held, used in answer["copies of columns"])
    assert memory(spec)["parameters"] == everything


def test_a_rank_reads_half_of_what_is_quantized_on_loading(saved, two_ranks):  # noqa: F811
    everything, split = sizes(saved("wide"))
    scales = 7 * 2 * 4  # of two layers' linear ones, a float32 each
    for answer in two_ranks.call(memory, saved("wide"), True):
        assert answer["read"] == everything - split // 2
        assert answer["parameters"] == everything - split + split // 4 + scales


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """stories260K, and a tokenizer of bytes, all of which it has embeddings for."""
    folder = tmp_path_factory.mktemp("stories")
    stories().to(torch.bfloat16).save_pretrained(folder / "bf16")
    byte_tokenizer().save_pretrained(folder / "bf16")
    quantize(folder / "bf16", folder / "fp8")
    return folder


@pytest.mark.parametrize(
    ("model", "scaling", "activations"),
    [
        ("bf16", None, None),
        ("bf16", "bf16", None),
        ("bf16", "cscale:1", "static"),
        ("bf16", "amax", "none"),
        ("fp8", None, None),
    ],
)
def test_a_trained_model_writes_what_it_writes_in_one_process(model, scaling, activations, trained, two_ranks):  # noqa: F811
    expected, _, _ = written(str(trained / model), scaling, activations)
    answers = two_ranks.call(written, str(trained / model), scaling, activations)
    for ids, said, emitted in answers:
        assert ids == expected
        assert emitted == answers[0][2]
        if scaling != "bf16":
            assert "its weights are in parts on several ranks" in said
    assert len(set(expected)) > 3


def test_ranks_that_draw_tokens_draw_the_same(trained, two_ranks):  # noqa: F811
    one, other = two_ranks.call(written, str(trained / "fp8"), None, None, 24, 1.0)
    assert one == other


@pytest.mark.parametrize("where", ["weight", "input"])
@pytest.mark.parametrize("scaling", ["amax", "cscale:2"])
def test_infinity_in_one_ranks_part_is_a_failure_on_all(scaling, where, saved, two_ranks):  # noqa: F811
    """And what is asked next is answered."""
    said = f"layer model.layers.1.mlp.down_proj: the {where} holds infinity or NaN"
    for failure, others in two_ranks.call(measured_with_infinity, saved("llama"), scaling, where):
        assert failure.startswith(said)
        assert others == 1


def test_infinity_that_is_quantized_on_loading_is_refused_on_all(saved, two_ranks, tmp_path):  # noqa: F811
    model = AutoModelForCausalLM.from_pretrained(saved("llama"))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, -1] = torch.inf
    model.save_pretrained(tmp_path)
    said = two_ranks.call(refused, str(tmp_path), True)
    assert all("model.layers.1.mlp.down_proj.weight holds infinity or NaN" in line for line in said)


def test_an_adapter_is_refused(saved, two_ranks, tmp_path):  # noqa: F811
    shutil.copytree(saved("llama"), tmp_path / "adapted")
    (tmp_path / "adapted/adapter_config.json").write_text("{}")
    said = two_ranks.call(refused, str(tmp_path / "adapted"))
    assert all("holds an adapter, which is not split among ranks: load it in one process" in line for line in said)


def test_a_size_with_random_weights_is_the_same_model(two_ranks):  # noqa: F811
    compare_codes(two_ranks, "gpt-10m", "amax")
