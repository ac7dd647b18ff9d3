"""The fused step stands for what is known, and for nothing else. Oracle: the same model, changed alike, unfused.

Each attribute, parameter, module, class and word of the config that a decoder layer, the decoder, its last norm and the
head have is changed, one at a time, before `fuse` and after it. Whether a change is taken over or ends the fusion, the
logits must be those of the usual path; where that one fails, the fused one must fail too.
"""

import copy
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from implementations import BACKENDS
from models import tiny_llama, tokens
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache, MistralConfig, MistralForCausalLM, cache_utils, masking_utils

from octoscale.checkpoints.hf import OctoscaleConfig, quantize_model
from octoscale.conversion.convert import replace_module
from octoscale.inference.fuse import fuse, unfuse
from octoscale.numerics.formats import FORMATS
from octoscale.numerics.recipe import Operand, Recipe
from octoscale.numerics.scaling import Amax

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ core is not built"),
]

SIZES = {"hidden_size": 64, "intermediate_size": 112}
IDS = tokens(batch=1, length=6)


def mistral():
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return MistralForCausalLM(MistralConfig(**SIZES, **sizes, sliding_window=None)).eval()


FAMILIES = {"llama": lambda: tiny_llama(**SIZES), "mistral": mistral}


def sharp(name: str):
    """A model in bfloat16 whose attention looks at few tokens, with codes for weights."""
    model = FAMILIES[name]().bfloat16()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 64
    return stored(model)


def stored(model, recipe: Recipe | None = None):
    config = OctoscaleConfig("amax")
    if recipe is not None:
        config.recipe = lambda: recipe
    quantize_model(model, config)
    return model


@torch.no_grad()
def decode(model, cache: DynamicCache | None = None) -> Tensor:
    cache = DynamicCache() if cache is None else cache
    rows = [model(IDS[:, :3], past_key_values=cache).logits]
    rows += [model(IDS[:, i : i + 1], past_key_values=cache).logits for i in range(3, IDS.shape[1])]
    return torch.cat(rows, dim=1).float()


def outcome(model) -> Tensor | str:
    """The logits, or the kind of error."""
    try:
        return decode(model)
    except Exception as error:  # noqa: BLE001  whatever a changed model raises
        return type(error).__name__


def agrees(found: Tensor | str, expected: Tensor | str) -> bool:
    if isinstance(found, str) or isinstance(expected, str):
        return isinstance(found, str) and isinstance(expected, str)
    if not (found.isfinite().all() and expected.isfinite().all()):
        return torch.equal(found.isfinite(), expected.isfinite())
    return bool((found - expected).norm() <= 0.04 * expected.norm())


def pieces(model) -> dict[str, nn.Module]:
    """All that decodes a token: one of the layers with all in it, and what stands around the layers."""
    layer = {f"layer {name}".strip(): module for name, module in model.model.layers[1].named_modules()}
    around = {"decoder": model.model, "norm": model.model.norm, "head": model.lm_head, "model": model}
    return layer | around | {"embedding": model.model.embed_tokens, "rotary": model.model.rotary_emb}


def doubled(y: Any) -> Any:
    """What a forward gave, changed."""
    if isinstance(y, Tensor):
        return y * 2 if y.is_floating_point() else y
    if isinstance(y, tuple):
        return tuple(map(doubled, y))
    for key in ("last_hidden_state", "logits"):
        if hasattr(y, key):
            y[key] = y[key] * 2
    return y


def other_value(value: Any) -> Any:
    """Another value of a plain attribute; None if it has none to offer."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 3 + 0.5
    return None


Change = Callable[[Any], Callable[[], None]]


def nothing() -> None:
    pass


def attribute(piece: str, name: str) -> Change:
    def change(model):
        module = pieces(model)[piece]
        setattr(module, name, other_value(module.__dict__[name]))
        return nothing

    return change


def parameter(piece: str, name: str) -> Change:
    def change(model):
        old = pieces(model)[piece]._parameters[name]
        new = old.detach().clone()
        new = new.flip(0).contiguous() if new.element_size() == 1 else new * 2
        pieces(model)[piece]._parameters[name] = nn.Parameter(new, requires_grad=False)
        return nothing

    return change


def own_forward(piece: str) -> Change:
    def change(model):
        module = pieces(model)[piece]
        usual = type(module).forward
        module.forward = lambda *args, **kwargs: doubled(usual(module, *args, **kwargs))
        return nothing

    return change


def class_forward(piece: str) -> Change:
    """As libraries do it: the wrapper bears the name of what it wraps."""

    def change(model):
        cls = type(pieces(model)[piece])
        is_own, usual = "forward" in cls.__dict__, cls.forward
        cls.forward = functools.wraps(usual)(lambda self, *args, **kwargs: doubled(usual(self, *args, **kwargs)))
        return functools.partial(setattr, cls, "forward", usual) if is_own else lambda: delattr(cls, "forward")

    return change


def subclass(piece: str) -> Change:
    def change(model):
        module = pieces(model)[piece]
        if module is model:
            return nothing
        cls = type(module)
        mine = type(cls.__name__, (cls,), {"forward": lambda self, *a, **k: doubled(cls.forward(self, *a, **k))})
        name = next(key for key, value in model.named_modules() if value is module)
        new = copy.copy(module)
        new.__dict__.pop("forward", None)
        new.__class__ = mine
        replace_module(model, name, new)
        return nothing

    return change


def hook(piece: str) -> Change:
    def change(model):
        pieces(model)[piece].register_forward_hook(lambda _, __, y: doubled(y))
        return nothing

    return change


def pre_hook(piece: str) -> Change:
    def change(model):
        def first_doubled(_, args, kwargs):
            kwargs = {key: value * 2 if key == "hidden_states" else value for key, value in kwargs.items()}
            return tuple(doubled(x) for x in args), kwargs

        pieces(model)[piece].register_forward_pre_hook(first_doubled, with_kwargs=True)
        return nothing

    return change


def word(name: str) -> Change:
    def change(model):
        for config in {id(m.config): m.config for m in pieces(model).values() if hasattr(m, "config")}.values():
            setattr(config, name, other_value(getattr(config, name)))
        return nothing

    return change


def attention_of_another(model) -> Callable[[], None]:
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward as usual

    AttentionInterface.register("mine", lambda *a, **k: (usual(*a, **k)[0] * 2, None))
    model.config._attn_implementation = "mine"
    return nothing


def sdpa_replaced(model) -> Callable[[], None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    table, usual = ALL_ATTENTION_FUNCTIONS._global_mapping, ALL_ATTENTION_FUNCTIONS._global_mapping["sdpa"]
    table["sdpa"] = lambda *a, **k: (usual(*a, **k)[0] * 2, None)
    return lambda: table.__setitem__("sdpa", usual)


def rotation_replaced(model) -> Callable[[], None]:
    import sys

    module = sys.modules[type(model).__module__]
    usual = module.apply_rotary_pos_emb
    module.apply_rotary_pos_emb = lambda q, k, *a, **n: (q, k)
    return lambda: setattr(module, "apply_rotary_pos_emb", usual)


def global_hook(model) -> Callable[[], None]:
    def change(module, _, y):
        return doubled(y) if type(module).__name__.endswith("MLP") else None

    return nn.modules.module.register_module_forward_hook(change).remove


def window(model) -> Callable[[], None]:
    model.config.sliding_window = 2
    return nothing


def no_causality(model) -> Callable[[], None]:
    model.config.is_causal = False
    return nothing


def weight_only(model) -> Callable[[], None]:
    model.model.layers[1].mlp.up_proj.fp8.activations = "none"
    return nothing


def coarser_input(model) -> Callable[[], None]:
    state = model.model.layers[1].mlp.up_proj.fp8
    coarse = Operand(format="e5m2", rule=Amax())
    state.recipe = Recipe(name="mine", weight=state.recipe.weight, input=coarse, grad_output=coarse)
    return nothing


def another_function(owner: Any, name: str, *, of_the_family: bool = False) -> Change:
    """A function of a library, as another library would replace it: by a wrapper that bears its name."""

    def change(model):
        place = sys.modules[type(model).__module__] if of_the_family else owner
        usual = getattr(place, name)
        setattr(place, name, functools.wraps(usual)(lambda *a, **k: doubled(usual(*a, **k))))
        return functools.partial(setattr, place, name, usual)

    return change


def first_position_unseen(usual: Callable[..., Any]) -> Callable[..., Any]:
    def mask(*_: Any, **words: Any) -> Tensor:
        x, past = words["inputs_embeds"], words["past_key_values"].get_seq_length()
        seen = torch.ones(1, 1, x.shape[1], past + x.shape[1], dtype=torch.bool).tril(past)
        seen[..., 0] = torch.arange(past, past + x.shape[1]) == 0
        return seen

    return functools.wraps(usual)(mask)


def mask_replaced(model) -> Callable[[], None]:
    module = sys.modules[type(model).__module__]
    usual = module.create_causal_mask
    module.create_causal_mask = first_position_unseen(usual)
    return functools.partial(setattr, module, "create_causal_mask", usual)


def mask_for_sdpa_replaced(model) -> Callable[[], None]:
    table = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
    usual = table["sdpa"]

    def mask(*args: Any, **words: Any) -> Tensor:
        seen = usual(*args, **words | {"allow_is_causal_skip": False}).clone()
        seen[..., 0] = torch.arange(seen.shape[2]) == 0
        return seen

    table["sdpa"] = mask
    return functools.partial(table.__setitem__, "sdpa", usual)


def bias_of_the_head(model) -> Callable[[], None]:
    model.lm_head.bias = nn.Parameter(torch.full((model.config.vocab_size,), 5.0, dtype=torch.bfloat16))
    return nothing


def weight_of_one_value(model) -> Callable[[], None]:
    model.model.layers[1].input_layernorm.weight = nn.Parameter(torch.full((1,), 2.0, dtype=torch.bfloat16))
    model.model.norm.weight = nn.Parameter(torch.full((1,), 3.0, dtype=torch.bfloat16))
    return nothing


def rotation_of_width_one(model) -> Callable[[], None]:
    class Rotary(nn.Module):
        def forward(self, x, position_ids):
            return (torch.full((1, x.shape[1], 1), value, dtype=x.dtype) for value in (0.5, 0.1))

    model.model.rotary_emb = Rotary()
    return nothing


class _Doubling(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        y = function(*args, **(kwargs or {}))
        return y * 2 if function is torch.nn.functional.scaled_dot_product_attention else y


def function_mode(model) -> Callable[[], None]:
    mode = _Doubling()
    mode.__enter__()
    return lambda: mode.__exit__(None, None, None)


def half_autocast(model) -> Callable[[], None]:
    mode = torch.autocast("cpu", dtype=torch.float16)
    mode.__enter__()
    return lambda: mode.__exit__(None, None, None)


FUNCTIONS = {
    "sdpa of torch": another_function(torch.nn.functional, "scaled_dot_product_attention"),
    "linear of torch": another_function(torch.nn.functional, "linear"),
    "silu of torch": another_function(torch.nn.functional, "silu"),
    "call of modules": another_function(nn.Module, "__call__"),
    "update of caches": another_function(cache_utils.Cache, "update"),
    "update of their layers": another_function(cache_utils.DynamicLayer, "update"),
    "half of a rotation": another_function(None, "rotate_half", of_the_family=True),
}
GLOBAL = FUNCTIONS | {
    f.__name__: f
    for f in (
        attention_of_another,
        sdpa_replaced,
        rotation_replaced,
        global_hook,
        window,
        no_causality,
        weight_only,
        coarser_input,
        mask_replaced,
        mask_for_sdpa_replaced,
        bias_of_the_head,
        weight_of_one_value,
        rotation_of_width_one,
        function_mode,
        half_autocast,
    )
}


def changes(model) -> Iterator[tuple[str, Change]]:
    """All changes, with a name for each."""
    for piece, module in pieces(model).items():
        for name, value in module.__dict__.items():
            if not name.startswith("_") and other_value(value) is not None:
                yield f"{piece}.{name}", attribute(piece, name)
        for name, value in module._parameters.items():
            if value is not None:
                yield f"{piece}.{name} (parameter)", parameter(piece, name)
        for kind in (own_forward, class_forward, subclass, hook, pre_hook):
            yield f"{piece}: {kind.__name__}", kind(piece)
    for name, value in vars(model.config).items():
        if not name.startswith("_") and other_value(value) is not None:
            yield f"config.{name}", word(name)
    yield from GLOBAL.items()


MOMENTS = ["before", "after", "after a sequence"]


@pytest.mark.slow
@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_is_changed_fused_and_unfused_agree(family, when):
    assert disagreeing(family, when, every=1) == []


@pytest.mark.parametrize(("family", "when"), list(zip([*FAMILIES, "llama"], MOMENTS, strict=True)))
def test_some_of_what_can_be_changed(family, when):
    """The same of a few changes, for every day."""
    assert disagreeing(family, when, every=17) == []


def disagreeing(family: str, when: str, every: int) -> list[str]:
    """The changes, each of so many, after which the fused model is not the usual one."""
    base = sharp(family)
    wrong = []
    for name, change in list(changes(base))[::every]:
        model = copy.deepcopy(base)
        if when != "before":
            assert len(fuse(model).fused) == 2
        if when == "after a sequence":
            decode(model)
        undo = change(model)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if when == "before":
                    fuse(model)
                found = outcome(model)
                unfuse(model)
                expected = outcome(model)
        finally:
            undo()
        if not agrees(found, expected):
            wrong.append(name)
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_changes_change_something(family):
    """Without this, the test above could compare two models that nothing was done to."""
    base = sharp(family)
    before = decode(base)
    changed = []
    for name, change in changes(base):
        model = copy.deepcopy(base)
        undo = change(model)
        after = outcome(model)
        undo()
        if isinstance(after, str) or (after - before).norm() > 0.04 * before.norm():
            changed.append(name)
    assert len(changed) > 100
    for name in ("layer self_attn.scaling", "layer mlp: own_forward", "layer mlp.act_fn: subclass", *GLOBAL):
        assert name in changed or name in UNHEARD[family]


#: What changes nothing in a family: a Llama has no window; what is cast otherwise changes little.
UNHEARD = {
    "llama": ("window", "half_autocast", "weight_only", "coarser_input"),
    "mistral": ("half_autocast", "weight_only", "coarser_input"),
}


class _OwnCache(DynamicCache):
    def update(self, keys, values, *args, **kwargs):
        keys, values = super().update(keys, values, *args, **kwargs)
        return keys, values * 2


def _with_own_update(place: str) -> DynamicCache:
    """A cache, or all of its layers, whose `update` was replaced in the object itself."""
    cache = DynamicCache(config=FAMILIES["llama"]().config)
    for thing in [cache] if place == "cache" else cache.layers:
        usual = thing.update
        thing.update = functools.partial(lambda usual, *a, **k: doubled(usual(*a, **k)), usual)
    return cache


CACHES = {
    "subclass": _OwnCache,
    "update of the cache": lambda: _with_own_update("cache"),
    "update of its layers": lambda: _with_own_update("layers"),
}


@pytest.mark.parametrize("name", CACHES)
def test_a_cache_of_ones_own_is_used(name):
    model = sharp("llama")
    expected, usual = decode(model, CACHES[name]()), decode(model)
    assert not agrees(usual, expected)
    fuse(model)
    decode(model)
    assert agrees(decode(model, CACHES[name]()), expected)
    assert agrees(decode(model), usual)


def test_a_default_device_ends_nothing(monkeypatch):
    from octoscale.inference import backbone

    model, calls = sharp("llama"), []
    step = backbone.step_through
    monkeypatch.setattr(backbone, "step_through", lambda *a: calls.append(1) or step(*a))
    fuse(model)
    with torch.device("cpu"):
        decode(model)
    assert len(calls) == 3


@pytest.mark.parametrize("input_format", FORMATS)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_each_pair_of_formats_reaches_the_kernel(weight_format, input_format):
    """fnuz weights read as e4m3fn would be twice as large."""
    e4, e5 = (Operand(format=name, rule=Amax()) for name in (weight_format, input_format))
    model = tiny_llama(**SIZES).bfloat16()
    expected = stored(copy.deepcopy(model), Recipe(name="mine", weight=e4, input=e5, grad_output=e5))
    found = copy.deepcopy(expected)
    assert len(fuse(found).fused) == 2
    assert agrees(decode(found), decode(expected))


def test_one_call_for_hidden_states_leaves_the_next_tokens_fused(monkeypatch):
    """transformers leaves hooks behind that collect in such a call only."""
    from octoscale.inference import backbone

    model, calls = sharp("llama"), []
    step = backbone.step_through
    monkeypatch.setattr(backbone, "step_through", lambda *a: calls.append(1) or step(*a))
    fuse(model)
    with torch.no_grad():
        seen = model(IDS, output_hidden_states=True, output_attentions=False).hidden_states
    assert len(seen) == 3
    decode(model)
    assert len(calls) == 3
    model.model.layers[0].register_forward_hook(lambda *_: None)
    decode(model)
    assert len(calls) == 3


def test_the_report_gives_each_layer_a_reason():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    others = [
        GPTNeoXForCausalLM(GPTNeoXConfig(hidden_size=32, intermediate_size=64, **sizes)),
        MixtralForCausalLM(MixtralConfig(hidden_size=32, intermediate_size=64, num_key_value_heads=2, **sizes)),
    ]
    for model, name in zip(others, ("GPTNeoXLayer", "MixtralDecoderLayer"), strict=True):
        report = fuse(model)
        assert len(report.left) == 2
        assert set(report.left.values()) == {f"{name} is not one of LlamaDecoderLayer, MistralDecoderLayer"}
    windowed = sharp("mistral")
    windowed.config.sliding_window = 4096
    assert set(fuse(windowed).left.values()) == {"it has a sliding window of 4096 tokens"}
