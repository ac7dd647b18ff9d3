"""A training's model in parts from the beginning. Oracles: the same model read whole; bytes in the files, by hand."""

import pytest
import torch
from checkpoints import byte_tokenizer
from many import MODELS
from placed import cut_otherwise, losses, read, refused, whole
from ranks import two_ranks  # noqa: F401
from safetensors import safe_open
from transformers import MixtralConfig, MixtralForCausalLM

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own

#: replicate, fsdp, tp
FSDP, TP, REPLICATE = (1, 2, 1), (1, 1, 2), (2, 1, 1)


def mixtral():
    """Experts that the files hold one by one, and the model as one tensor."""
    torch.manual_seed(3)
    config = MixtralConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=3,
        max_position_embeddings=64,
    )
    return MixtralForCausalLM(config)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a model, in bfloat16, by its name."""
    folder, made = tmp_path_factory.mktemp("saved"), {}

    def get(name):
        if name not in made:
            made[name] = folder / name
            model = mixtral() if name == "mixtral" else MODELS[name]()
            model.to(torch.bfloat16).save_pretrained(made[name])
            byte_tokenizer().save_pretrained(made[name])
        return str(made[name])

    return get


@pytest.mark.parametrize(
    ("name", "sizes", "scaling"),
    [
        *((name, FSDP, "amax") for name in MODELS if name != "wide"),
        ("mixtral", FSDP, "amax"),
        ("llama", TP, "amax"),
        ("uneven", TP, "amax"),
        ("gpt2", TP, "fp32"),
        ("tied", REPLICATE, "fp32"),
    ],
)
def test_parts_put_together_are_the_model_that_one_process_reads(name, sizes, scaling, saved, two_ranks):  # noqa: F811
    spec = saved(name)
    values, buffers = whole(spec)
    for found in two_ranks.call(read, spec, sizes, scaling):
        assert found["values"].keys() == values.keys()
        for key, value in values.items():
            assert torch.equal(found["values"][key], value), key
        assert found["buffers"].keys() == buffers.keys()
        assert all(torch.equal(found["buffers"][key], buffer) for key, buffer in buffers.items())
        assert len(found["tied"]) == (2 if name in ("tied", "gpt2") else 0)


@pytest.mark.parametrize("sizes", [FSDP, TP], ids=str)
@pytest.mark.parametrize("name", ["uneven", "narrow", "gpt2"])
def test_a_cut_is_where_torch_cuts(name, sizes, two_ranks):  # noqa: F811
    """Oracle: what FSDP2 and tensor parallel leave of values; some ranks have nothing. Four: test_four_ranks.py."""
    assert two_ranks.call(cut_otherwise, name, sizes) == [[], []]


def bytes_in(spec):
    """Of all tensors of a checkpoint, and of those of its decoder layers' linear ones."""
    both = [0, 0]
    with safe_open(f"{spec}/model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            num_bytes = file.get_tensor(name).nbytes
            both[0] += num_bytes
            both[1] += num_bytes * name.endswith("proj.weight")
    return both


@pytest.mark.parametrize("sizes", [FSDP, TP, REPLICATE], ids=str)
def test_a_rank_reads_and_holds_only_its_part(sizes, saved, two_ranks):  # noqa: F811
    """bfloat16 in the files is float32 in a training."""
    everything, split = bytes_in(saved("wide"))
    expected = {FSDP: everything // 2, TP: everything - split // 2, REPLICATE: everything}[sizes]
    for found in two_ranks.call(read, saved("wide"), sizes):
        assert found["read"] == expected
        assert found["held"] == 2 * expected


def test_what_the_first_batch_showed_is_forgotten(saved, two_ranks):  # noqa: F811
    """One process looks at it before anything is FP8. Oracle: ranks that did not look."""
    expected = two_ranks.call(losses, saved("llama"), FSDP, "delayed:history=3", 0)
    found = two_ranks.call(losses, saved("llama"), FSDP, "delayed:history=3", 2)
    assert found == expected
    assert all(past == {} for known, _, _ in found for past in known)


def test_files_that_differ_are_named(saved, two_ranks, tmp_path):  # noqa: F811
    """Each machine has a folder of its own: the same words, another model."""
    folders = []
    for rank, name in enumerate(("llama", "tied")):
        folders.append(tmp_path / str(rank))
        folders[-1].mkdir()
        (folders[-1] / "model").symlink_to(saved(name))
    for said in two_ranks.call(refused, folders, FSDP):
        assert said.startswith("rank 1 has another config.json of model than rank 0: ")
