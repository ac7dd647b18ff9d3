"""Layers whose weight a model's code reads. Oracle: the code of the classes below, and what a forward pass calls."""

import ast
from pathlib import Path

import pytest
import torch
import transformers as T
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import linear

import octoscale
from octoscale import Fp8Linear, Recipe
from octoscale.conversion.trial import layers_not_run
from octoscale.conversion.weight_reads import _FOREIGN, BYPASSED, TYPED, WRITTEN, why_kept


class Block(nn.Module):
    """A layer that is called, and one under test."""

    def __init__(self, flag: bool = True) -> None:
        super().__init__()
        self.up, self.proj, self.flag = nn.Linear(8, 8), nn.Linear(8, 8), flag

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.up(x))

    def use(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Product(Block):
    def use(self, x):
        return x @ self.proj.weight.t()


class TorchLinear(Block):
    def use(self, x):
        return functional.linear(x, self.proj.weight, self.proj.bias)


class BareLinear(Block):
    def use(self, x):
        return linear(x, self.proj.weight)


class Alias(Block):
    def use(self, x):
        proj = self.proj
        return torch.matmul(x, proj.weight)


class InAFunction(Block):
    def use(self, x):
        return multiply(self, x)


def multiply(block: Block, x: Tensor) -> Tensor:
    return torch.matmul(x, block.proj.weight)


class CalledIfAsked(Block):
    """As Mamba's mixer of Falcon."""

    def use(self, x, is_quantized=False):
        return self.proj(x) if is_quantized else x @ self.proj.weight


class InTraining(Block):
    """As Gemma 3n's predictor."""

    def use(self, x):
        if self.training and self.flag:
            weight = self.proj.weight.clamp(-1, 1)
            return functional.linear(x, weight)
        return self.proj(x)


class Typed(Block):
    """As T5."""

    def use(self, x):
        if isinstance(self.proj.weight, torch.Tensor) and x.dtype != self.proj.weight.dtype:
            x = x.to(self.proj.weight.dtype)
        return self.proj(x)


class Rescaled(Block):
    """As RWKV, from outside of the block."""

    def use(self, x):
        with torch.no_grad():
            for block in [self]:
                block.proj.weight.div_(2)
        return self.proj(x)


class RescaledData(Block):
    def use(self, x):
        self.proj.weight.data.clamp_(-1, 1)
        return self.proj(x)


class Assigned(Block):
    def use(self, x):
        self.proj.weight.data = self.proj.weight.data.clone()
        return self.proj(x)


class Augmented(Block):
    def use(self, x):
        with torch.no_grad():
            self.proj.weight *= 0.5
        return self.proj(x)


class Attention(Block):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def use(self, x):
        return self.proj(self.attention(x, x, x)[0])


KEPT = {
    **dict.fromkeys((Product, TorchLinear, BareLinear, Alias, InAFunction, CalledIfAsked, InTraining), BYPASSED),
    Typed: TYPED,
    **dict.fromkeys((Rescaled, RescaledData, Assigned, Augmented), WRITTEN),
}


class Dormant(Block):
    """As Bloom: the product is for models that were trained in slices."""

    def use(self, x):
        if not self.flag:
            return functional.linear(x, self.proj.weight)
        return self.proj(x)


class Returning(Block):
    def use(self, x):
        if self.flag:
            return self.proj(x)
        return x @ self.proj.weight


class Kernel(Block):
    """As Mamba-2: a kernel that takes the whole block, where there is one."""

    def use(self, x):
        if x.is_cuda:
            return kernel(x, weight=self.proj.weight)
        return self.proj(x)


def kernel(x: Tensor, weight: Tensor) -> Tensor:
    return x + weight


class Harmless(Block):
    def use(self, x):
        assert self.proj.weight.shape[0] == 8 * self.proj.weight.ndim // 2
        return self.proj(x) + getattr(self.proj.weight, "unknown", 0)


class Preparing(Block):
    def __init__(self):
        super().__init__()
        self.proj.weight.data.zero_()

    def reset_parameters(self):
        self.proj.weight.data.zero_()

    def _tie_weights(self):
        self.proj.weight = self.up.weight


class Unused(Block):
    def a_method_that_nobody_calls(self):
        return self.proj.weight.dtype


CALLED = (Block, Dormant, Returning, Kernel, Harmless, Preparing, Unused)


@pytest.mark.parametrize("cls", KEPT)
@pytest.mark.parametrize("name", ["", "model.layers.0"])
def test_a_layer_whose_weight_is_used_past_its_forward_stays(name, cls):
    model = cls()
    for part in reversed(name.split(".") if name else []):
        outer = nn.Module()
        outer.add_module(part, model)
        model = outer
    path = f"{name}.proj".removeprefix(".")
    kept = why_kept(model)
    assert kept[path] == f"{cls.__name__}: {KEPT[cls]}"
    assert f"{name}.up".removeprefix(".") not in kept


@pytest.mark.parametrize("cls", CALLED)
def test_a_layer_that_is_called_does_not(cls):
    assert why_kept(cls()) == {}


def test_the_models_settings_say_which_branch_is_taken():
    assert why_kept(Dormant(flag=False))["proj"] == f"Dormant: {BYPASSED}"
    assert why_kept(Returning(flag=False))["proj"] == f"Returning: {BYPASSED}"
    assert why_kept(InTraining(flag=False)) == {}


def called(model: nn.Module, names: list[str], x: Tensor) -> set[str]:
    """Which of these modules a forward pass calls."""
    ran = set()
    hooks = [model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.add(name)) for name in names]
    model(x)
    for hook in hooks:
        hook.remove()
    return ran


def test_the_projection_of_torchs_attention_is_read_and_never_called():
    """Oracle: a forward pass with hooks."""
    model = nn.Sequential(Attention(), nn.Linear(8, 8)).eval()
    report = octoscale.convert(model, Recipe.amax())
    converted = [row.module for row in report.converted]
    assert converted == ["0.up", "0.proj"]
    assert called(model, ["0.attention.out_proj", *converted], torch.randn(2, 3, 8)) == set(converted)


@pytest.mark.parametrize("cls", [*KEPT, *CALLED])
def test_what_goes_to_fp8_is_called_in_every_mode(cls):
    """Oracle: hooks."""
    model = nn.Sequential(cls(), nn.Linear(8, 8))
    converted = [row.module for row in octoscale.convert(model, Recipe.amax()).converted]
    for training in (False, True):
        model.train(training)
        assert called(model, converted, torch.randn(2, 8)) == set(converted)


def test_an_adapter_around_the_layer_changes_nothing():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(nn.Sequential(Typed(), nn.Linear(8, 8)), peft.LoraConfig(target_modules=["proj", "up"]))
    converted = [row.module for row in octoscale.convert(model, Recipe.amax()).converted]
    assert converted == ["base_model.model.0.up.base_layer"]


SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
GEMMA = {"intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def gemma3n():
    more = {"laurel_rank": 8, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96}
    layers = {
        "num_kv_shared_layers": 0,
        "layer_types": ["full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 2,
    }
    return T.Gemma3nForCausalLM(T.Gemma3nTextConfig(**SIZES, **GEMMA, **more, **layers))


def wavlm():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    convolutions = {"conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_conv_pos_embeddings": 16}
    return T.WavLMModel(T.WavLMConfig(**sizes, **convolutions, num_conv_pos_embedding_groups=4))


def mamba2():
    sizes = {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8}
    return T.Mamba2ForCausalLM(T.Mamba2Config(**SIZES, **sizes))


def bloom():
    return T.BloomForCausalLM(T.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4))


def rwkv():
    return T.RwkvForCausalLM(T.RwkvConfig(**SIZES, attention_hidden_size=32, context_length=32))


FAMILIES = {
    gemma3n: {"prediction_coefs": False, "correction_coefs": False, "q_proj": True, "down_proj": True},
    wavlm: {"q_proj": False, "out_proj": False, "intermediate_dense": True},
    mamba2: {"in_proj": True, "out_proj": True},
    bloom: {"query_key_value": True, "dense": True, "dense_4h_to_h": True},
    rwkv: {"attention.output": False, "feed_forward.value": False, "feed_forward.key": True},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", FAMILIES, ids=lambda build: build.__name__)
def test_layers_of_families(build):
    model = build().eval()
    octoscale.convert(model, Recipe.amax())
    for end, is_fp8 in FAMILIES[build].items():
        found = [module for name, module in model.named_modules() if name.endswith(f".{end}")]
        assert found
        assert {isinstance(module, Fp8Linear) for module in found} == {is_fp8}
    if model.main_input_name == "input_ids":
        assert layers_not_run(model) == []


@pytest.mark.slow
def test_a_file_that_is_not_parsed_reads_no_weight():
    """Oracle: the trees of all model files of transformers that are passed over."""
    files = sorted(Path(T.__file__).parent.glob("models/*/modeling_*.py"))
    passed_over = [file for file in files if not _FOREIGN.search(file.read_text(encoding="utf-8"))]
    assert len(passed_over) > 200
    for file in passed_over:
        weights = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if _is_weight(n)]
        assert all(isinstance(node.value, ast.Name) and node.value.id == "self" for node in weights), file.name


def _is_weight(node):
    return isinstance(node, ast.Attribute) and node.attr == "weight"
