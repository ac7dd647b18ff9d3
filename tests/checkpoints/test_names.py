"""Names in files and in models. Oracle: what transformers itself reads and writes, under each kind of rule."""

import pytest
import torch
from models import tiny_llama, tokens
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, conversion_mapping
from transformers.core_model_loading import Chunk, PrefixChange, WeightConverter, WeightRenaming

import octoscale
from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.checkpoints.names import Saving, parameters_of
from octoscale.checkpoints.settings import Quantization
from octoscale.checkpoints.shards import check_complete
from octoscale.layers.stored import StoredLinear
from octoscale.models.export import run_quantization
from octoscale.models.loading import skeleton

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

#: As models of transformers have them: DINOv2's and ViT's, phimoe's, Gemma 3's, nomic-bert's.
RULES = {
    "a part": lambda: [WeightRenaming("feed_forward", "mlp"), WeightRenaming(r"\.attn\.", ".self_attn.")],
    "up to the weight": lambda: [WeightRenaming("mlp.w2.weight", "mlp.down_proj.weight")],
    "another ending": lambda: [WeightRenaming(r"mlp\.w2", "mlp.down_proj.weight")],  # Inkling 2's convolutions
    "a prefix": lambda: [PrefixChange(prefix_to_remove="language_model")],
    "one to many": lambda: [
        WeightConverter("mlp.gate_up.weight", ["mlp.gate_proj.weight", "mlp.up_proj.weight"], [Chunk(dim=0)]),
        WeightConverter("attn.qkv", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], [Chunk(dim=0)]),
    ],
}
#: The layers that can be FP8: all but those whose weights are parts of one in the file.
WHOLE = {"a part": 14, "up to the weight": 14, "another ending": 14, "a prefix": 14, "one to many": 4}


@pytest.fixture(params=RULES)
def rules(request, monkeypatch):
    """Transformers' rules for a Llama are those."""
    conversion_mapping.get_checkpoint_conversion_mapping("llama")  # fills the table
    table = conversion_mapping._checkpoint_conversion_mapping_cache
    monkeypatch.setitem(table, "LlamaForCausalLM", RULES[request.param]())
    return request.param


@pytest.fixture
def source(rules, tmp_path):
    """A folder with the names in the files that the rules mean."""
    model = tiny_llama(num_key_value_heads=4).bfloat16()
    if rules == "a prefix":  # transformers writes one only where it has read one
        model._weight_conversions = RULES[rules]()
    model.save_pretrained(tmp_path / "model")
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert names != set(model.state_dict())
    return tmp_path / "model"


def logits(model):
    with torch.no_grad():
        return model.eval()(tokens()).logits


def layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, StoredLinear)]


def test_all_of_the_model_is_found(source):
    model = skeleton(str(source))
    check_complete(model, [source / "model.safetensors"])
    targets = parameters_of(model, load_file(source / "model.safetensors"))
    assert {name for target in targets.values() for name in target.parameters} == set(model.state_dict())


def test_quantize_keeps_the_names_of_the_files(source, rules, tmp_path):
    """Oracle: the model converted in memory, but for the layers that lie in the file in parts."""
    done = run_quantization(Quantization(model=str(source)), tmp_path / "out")
    assert done["layers"] == WHOLE[rules]
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    scales = {name for name in after if name.endswith(".weight_scale")}
    assert set(after) - scales == set(before)
    codes = [name for name, tensor in after.items() if tensor.element_size() == 1]
    assert {f"{name.removesuffix('.weight')}.weight_scale" for name in codes} == scales
    model = octoscale.load(str(tmp_path / "out")).model
    assert len(layers(model)) == WHOLE[rules]
    expected = LlamaForCausalLM.from_pretrained(source)
    kept = [name for name in layers_of_llama(expected) if name not in layers(model)]
    octoscale.convert(expected, octoscale.Recipe.amax(skip=kept))
    assert torch.equal(logits(model), logits(expected))


def layers_of_llama(model):
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return [name for name in linears if name != "lm_head"]


def test_quantized_while_loading_saved_and_loaded_again(source, rules, tmp_path):
    """Oracle: the logits before saving, bit for bit; the scale lies beside its weight, as others look for it."""
    model = LlamaForCausalLM.from_pretrained(source, quantization_config=OctoscaleConfig("amax"))
    assert len(layers(model)) == WHOLE[rules]
    expected = logits(model)
    for folder in ("once", "twice"):
        model.save_pretrained(tmp_path / folder)
        found = load_file(tmp_path / folder / "model.safetensors")
        codes = {name for name, tensor in found.items() if tensor.element_size() == 1}
        assert {f"{name.removesuffix('.weight')}.weight_scale" for name in codes} <= set(found)
        model = LlamaForCausalLM.from_pretrained(tmp_path / folder)
        assert len(layers(model)) == WHOLE[rules]
        assert torch.equal(logits(model), expected)


def test_codes_that_would_be_merged_are_refused(tmp_path, monkeypatch):
    """Two weights with a scale each cannot become one."""
    run_quantization(Quantization(model=str(save(tmp_path / "model"))), tmp_path / "out")
    conversion_mapping.get_checkpoint_conversion_mapping("llama")
    rule = WeightConverter("mlp.down_proj.weight", "mlp.up_proj.weight", [Chunk(dim=0)])
    table = conversion_mapping._checkpoint_conversion_mapping_cache
    monkeypatch.setitem(table, "LlamaForCausalLM", [rule])
    with pytest.raises(ValueError, match=r"mlp.down_proj.weight is in FP8, and becomes a part of .*mlp.up_proj.weight"):
        LlamaForCausalLM.from_pretrained(tmp_path / "out")


def save(folder):
    tiny_llama().bfloat16().save_pretrained(folder)
    return folder


def test_names_when_saved_are_those_of_transformers(source, rules):
    """Oracle: the files that save_pretrained wrote."""
    model = LlamaForCausalLM.from_pretrained(source)
    saving = Saving(model)
    names = load_file(source / "model.safetensors")
    whole = [name for name in model.state_dict() if saving.is_whole(name)]
    assert {saving.name_of(name) for name in whole} <= set(names)
    assert (len(whole) < len(model.state_dict())) == (rules == "one to many")
