"""LoRA through peft on a base in FP8. Oracles: by hand, base plus adapter; the same adapters on the base alone."""

import octoscale.hf
import pytest
import torch
from models import TINY, tiny_gpt2, tiny_llama, tokens
from torch import nn

import octoscale
from octoscale import Fp8Linear, Recipe
from octoscale.runs.scales import read_scales

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own

TARGETS = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}


def adapted(name: str, *, convert_first: bool) -> nn.Module:
    """A tiny model with adapters that are not zero, and its base in FP8."""
    model = TINY[name]()
    if convert_first:
        octoscale.convert(model, Recipe.amax())
    config = peft.LoraConfig(r=4, target_modules=TARGETS[name], init_lora_weights=False)
    torch.manual_seed(1)
    model = peft.get_peft_model(model, config)
    if not convert_first:
        octoscale.convert(model, Recipe.amax())
    return model


@pytest.mark.parametrize("convert_first", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_the_base_is_in_fp8_and_adapters_are_not(name, convert_first):
    """Oracle: 14 or 8 linear layers of the base; the adapters are plain layers beside them."""
    model = adapted(name, convert_first=convert_first)
    in_fp8 = [key for key, module in model.named_modules() if isinstance(module, Fp8Linear)]
    assert len(in_fp8) == {"llama": 14, "gpt2": 8}[name]
    assert not any("lora" in key for key in in_fp8)
    assert sum("lora_A.default" in key for key, _ in model.named_modules()) == 4


@pytest.mark.parametrize("convert_first", [True, False])
@pytest.mark.parametrize("name", TINY)
def test_an_adapted_layer_is_the_fp8_base_plus_its_adapter(name, convert_first):
    model = adapted(name, convert_first=convert_first)
    layer = next(module for key, module in model.named_modules() if key.endswith(("q_proj", "c_attn")))
    x = torch.randn(3, 32)
    adapter = layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
    assert isinstance(layer.base_layer, Fp8Linear)
    assert torch.equal(layer(x), layer.base_layer(x) + adapter)


@pytest.mark.parametrize("convert_first", [True, False])
def test_only_the_adapters_learn_and_the_base_is_cast_once(convert_first, tmp_path):
    """Oracle: the records: 14 casts of weights in 5 steps; no gradient of a base's weight."""
    model = adapted("llama", convert_first=convert_first).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    with octoscale.record(model, tmp_path / "run"):
        for _ in range(5):
            loss = model(input_ids=tokens(), labels=tokens()).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if "lora" in key}
    rows = read_scales(tmp_path / "run")
    assert rows.filter(role="weight").height == 14
    assert rows.filter(role="grad_output", layer=1, kind="ffn_out").height == 5
    assert set(rows["kind"]) == {"attn_qkv", "attn_out", "ffn_in", "ffn_out"}


def test_a_frozen_base_gets_no_product_for_its_gradient(monkeypatch):
    """Oracle: counted by hand: 14 products forward; backward 7 in layer 1, and 4 in layer 0, for grad_input alone.

    What enters q, k, v of layer 0 comes from the frozen embedding, and needs no gradient.
    """
    model = adapted("llama", convert_first=True).train()
    calls = []
    matmul = octoscale.layers.linear.ops.matmul

    def counting(a, b, **options):
        calls.append(options["dtype"])
        return matmul(a, b, **options)

    monkeypatch.setattr(octoscale.layers.linear.ops, "matmul", counting)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    assert len(calls) == 14 + 7 + 4
    assert all(p.grad is None for key, p in model.named_parameters() if "lora" not in key)


def test_merged_adapters_are_seen_after_forget_casts():
    """Oracle: a model with the merged weights, converted anew. peft writes to weight.data, which leaves no trace."""
    model = adapted("gpt2", convert_first=False)
    model(tokens())
    merged = model.merge_and_unload()
    fresh = tiny_gpt2()
    fresh.load_state_dict(merged.state_dict())
    octoscale.convert(fresh, Recipe.amax())
    expected = fresh(tokens()).logits
    assert not torch.equal(merged(tokens()).logits, expected)
    octoscale.forget_casts(merged)
    assert torch.equal(merged(tokens()).logits, expected)


def test_a_skip_pattern_reads_names_as_without_adapters():
    model = peft.get_peft_model(tiny_llama(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    report = octoscale.convert(model, Recipe.amax(skip=["q_proj"]))
    assert len(report.converted) == 12


@pytest.mark.parametrize("name", TINY)
def test_adapters_on_stored_codes_have_the_dtype_of_the_model_and_learn(name):
    """Oracle: by hand, base plus adapter; values that e4m3fn does not have show that no adapter went through it."""
    model = TINY[name]().bfloat16()
    octoscale.hf.quantize_model(model, octoscale.hf.OctoscaleConfig("amax"))
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=TARGETS[name]))
    adapters = [p for key, p in model.named_parameters() if "lora_" in key]
    assert {p.dtype for p in adapters} == {torch.float32}
    assert any((p != p.to(torch.float8_e4m3fn).float()).any() for p in adapters)
    layer = next(module for key, module in model.named_modules() if key.endswith(("q_proj", "c_attn")))
    nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    adapter = layer.lora_B["default"](layer.lora_A["default"](x.float())) * layer.scaling["default"]
    assert torch.equal(layer(x), (layer.base_layer(x) + adapter).bfloat16())
    learning = [p for key, p in model.named_parameters() if "lora_B" in key]  # at first, A only where B is not zero
    before = [p.clone() for p in learning]
    optimizer = torch.optim.SGD(adapters, lr=0.1)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    optimizer.step()
    assert not any(torch.equal(old, new) for old, new in zip(before, learning, strict=True))
