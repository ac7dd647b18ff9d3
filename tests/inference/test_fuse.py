"""Fast decoding. Oracle: the model's own forward, token by token, with attention in float32."""

import copy
import gc
import io
import math
import tempfile
from pathlib import Path

import pytest
import torch
from implementations import BACKENDS, using
from models import TINY, tiny_gpt2, tiny_llama, tokens
from transformers import DynamicCache, MistralConfig, MistralForCausalLM

from octoscale.checkpoints.hf import OctoscaleConfig
from octoscale.inference.fuse import fuse, unfuse
from octoscale.layers.state import NonFiniteError
from octoscale.layers.stored import StoredLinear
from octoscale.numerics.formats import FORMATS, get_format
from octoscale.numerics.scaling import amax_to_scale_bias
from octoscale.runs.scales import Recorder

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # transformers' own
    pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ core is not built"),
]

NATIVES = [name for name in BACKENDS if name != "portable"]
SIZES = {"hidden_size": 64, "intermediate_size": 112}
SCALINGS = [("amax", "dynamic"), ("amax:margin=2", "dynamic"), ("cscale:3", "static"), ("amax", "none")]


@pytest.fixture
def saved(tmp_path):
    """A Llama in bfloat16 whose heads are 16 wide, on disk."""
    tiny_llama(**SIZES).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def sharp_llama(**sizes):
    """Attention of random weights is almost even, whatever the scores: here it is not."""
    model = tiny_llama(**SIZES | sizes).to(torch.bfloat16)
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 64
    return model


def load(folder, scaling: str = "amax", activations: str = "dynamic"):
    from transformers import AutoModelForCausalLM

    config = OctoscaleConfig(scaling, activations=activations)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config).eval()


@torch.no_grad()
def decode(model, ids: torch.Tensor, cache: DynamicCache | None = None, prefill: int = 4) -> torch.Tensor:
    """Logits of the last positions, one token at a time after the first few."""
    cache = DynamicCache() if cache is None else cache
    rows = [model(ids[:, :prefill], past_key_values=cache).logits[:, -1:]] if prefill else []
    rows += [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(prefill, ids.shape[1])]
    return torch.cat(rows, dim=1)


def exact_attention(module, q, k, v, mask, scaling=None, **_):
    """Attention whose sums and softmax are float32."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.float().repeat_interleave(groups, dim=1) for x in (k, v))
    scores = q.float() @ k.transpose(2, 3) * scaling
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
    y = scores.masked_fill(~ahead, -math.inf).softmax(-1) @ v
    return y.to(q.dtype).transpose(1, 2), None


@pytest.fixture
def float32_attention(monkeypatch):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", exact_attention)
    monkeypatch.setattr("octoscale.inference.known_layers.USUAL_ATTENTION", exact_attention)


@pytest.mark.usefixtures("float32_attention")
@pytest.mark.parametrize(("scaling", "activations"), SCALINGS)
@pytest.mark.parametrize("name", NATIVES)
def test_a_fused_layer_computes_what_the_layer_computes(name, scaling, activations, tmp_path):
    """Bit for bit up to the order of sums, which moves a value by a rounding now and then."""
    sharp_llama().save_pretrained(tmp_path)
    with using(name):
        model = load(tmp_path, scaling, activations)
        ids = tokens(batch=1, length=20)
        expected = decode(model, ids)
        assert str(fuse(model)) == "2 of 2 decoder layers fused, and the head"
        found = decode(model, ids)
    difference = (found - expected).float()
    assert (difference == 0).float().mean() > 0.5
    assert difference.norm() < 0.02 * expected.float().norm()


@pytest.mark.usefixtures("float32_attention")
@pytest.mark.parametrize(("activations", "bound"), [("dynamic", 0.035), ("none", 0.01)])
@pytest.mark.parametrize(("length", "head_dim"), [(2, 16), (16, 16), (63, 16), (65, 96), (200, 32)])
@pytest.mark.parametrize("name", NATIVES)
def test_the_first_tokens_go_through_a_fused_layer_together(name, length, head_dim, activations, bound, tmp_path):
    """Their weights of attention are rounded to bfloat16, as in torch's own attention."""
    sharp_llama(head_dim=head_dim, max_position_embeddings=256).save_pretrained(tmp_path)
    model = load(tmp_path, activations=activations)
    ids = tokens(batch=1, length=length + 3)
    with torch.no_grad(), using(name):
        expected = torch.cat([model(ids[:, :length]).logits, decode(model, ids, prefill=length)[:, 1:]], dim=1)
        fuse(model)
        found = torch.cat([model(ids[:, :length]).logits, decode(model, ids, prefill=length)[:, 1:]], dim=1)
        alone = model(ids[:, :length], use_cache=False).logits
    assert torch.equal(alone, found[:, :length])
    assert (found - expected).float().norm() < bound * expected.float().norm()


@pytest.mark.parametrize("name", NATIVES)
def test_the_core_and_scaling_py_choose_the_same_scale(name):
    from octoscale.kernels import _core

    edges = [
        2.0**e * m for e in (-149, -130, -126, -20, -1, 0, 1, 8, 15, 100, 127) for m in (1, 1.0000001, 1.75, 1.7500001)
    ]
    amaxes = [*edges, *(fmt.max for fmt in FORMATS.values()), 0.0, math.inf, math.nan]
    for number, fmt in enumerate(FORMATS):
        for margin in (0, 3, -2, 200):
            for amax in torch.tensor(amaxes, dtype=torch.float32):
                expected = amax_to_scale_bias(amax, get_format(fmt), margin).item()
                assert _core.scale_bias(amax.item(), number, margin, False) == expected, (fmt, margin, amax)


def test_generate_gives_the_same_text(saved):
    model = load(saved)
    ask = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(tokens(batch=1, length=5), **ask)
    fuse(model)
    assert torch.equal(model.generate(tokens(batch=1, length=5), **ask), expected)


def record(model):
    recorder = Recorder(Path(tempfile.mkdtemp()))
    for module in model.modules():
        if isinstance(module, StoredLinear):
            module.fp8.runtime.attach(recorder)


#: What the fused step leaves to the usual forward, and the number of sequences.
USUAL = {
    "two sequences": (lambda model: None, 2),
    "a recorder": (record, 1),
    "a hook": (lambda model: model.model.layers[0].mlp.register_forward_hook(lambda *_: None), 1),
    "training mode": (lambda model: model.train(), 1),
    "eager attention": (lambda model: model.set_attn_implementation("eager"), 1),
}


@pytest.mark.parametrize("case", USUAL)
def test_what_the_step_does_not_serve_goes_the_usual_way(case, saved, monkeypatch):
    change, batch = USUAL[case]
    model = load(saved)
    change(model)
    ids = tokens(batch=batch, length=10)
    expected = decode(model, ids)
    fuse(model)
    monkeypatch.setattr("octoscale.kernels.decoder.DecoderLayer.step", lambda *_: pytest.fail("the fused step ran"))
    layers = model.model.layers[:1] if case == "a hook" else model.model.layers
    if case == "a hook":
        unfuse(model.model.layers[1])
    assert all(("forward" in layer.__dict__) == (case != "eager attention") for layer in layers)
    assert torch.equal(decode(model, ids), expected)


def test_a_token_passes_all_layers_in_one_go(saved, monkeypatch):
    """Bit for bit as through one layer after the other, and with the positions that the cache implies."""
    model = load(saved)
    fuse(model)
    ids = tokens(batch=1, length=12)
    found = decode(model, ids, prefill=6)
    del model.model.__dict__["forward"]
    assert torch.equal(found, decode(model, ids, prefill=6))
    fuse(model)
    cache = DynamicCache()
    with torch.no_grad():
        model(ids[:, :6], past_key_values=cache)
        monkeypatch.setattr(
            "octoscale.inference.decoder_layer.FusedLayer.__call__", lambda *_, **__: pytest.fail("layer by layer")
        )
        words = {"position_ids": torch.tensor([[6]]), "attention_mask": torch.ones(1, 7)}
        given = model(ids[:, 6:7], past_key_values=cache, **words)
    assert torch.equal(given.logits[:, 0], found[:, 1])
    assert cache.get_seq_length() == 7


#: What a token asks for that it does not get in one go.
ONE_BY_ONE = {
    "hidden states": {"output_hidden_states": True},
    "tuples": {"return_dict": False},
    "padding": {"attention_mask": torch.tensor([[0] + [1] * 6])},
    "embeddings": {"inputs_embeds": torch.ones(1, 1, 64, dtype=torch.bfloat16)},
}


@pytest.mark.parametrize("case", ONE_BY_ONE)
def test_a_token_that_asks_for_more_passes_layer_by_layer(case, saved, monkeypatch):
    model = load(saved)
    ids = tokens(batch=1, length=7)
    words = {"input_ids": ids[:, 6:]} | ONE_BY_ONE[case]
    if case == "embeddings":
        del words["input_ids"]
    monkeypatch.setattr("octoscale.inference.backbone.step_through", lambda *_: pytest.fail("all layers in one go"))
    results = []
    for prepare in (unfuse, fuse):
        prepare(model)
        with torch.no_grad():
            cache = DynamicCache()
            model(ids[:, :6], past_key_values=cache)
            results.append(model.model(**words, past_key_values=cache))
    expected, found = ((r if isinstance(r, tuple) else r.to_tuple()) for r in results)
    assert len(found) == len(expected)
    assert (found[0] - expected[0]).float().norm() < 0.03 * expected[0].float().norm()
    if case == "hidden states":
        assert len(results[1].hidden_states) == 3


def test_a_hook_on_one_layer_sees_each_token(saved):
    model = load(saved)
    fuse(model)
    seen = []
    model.model.layers[1].register_forward_hook(lambda *_: seen.append(1))
    decode(model, tokens(batch=1, length=9))
    assert len(seen) == 6


def test_a_step_that_fails_leaves_the_cache_as_it_was(saved):
    model = load(saved)
    fuse(model)
    cache, ids = DynamicCache(), tokens(batch=1, length=7)
    decode(model, ids[:, :6], cache)
    norm = model.model.layers[1].input_layernorm
    good = norm.weight.detach().clone()
    with torch.no_grad():
        norm.weight[0] = math.nan
    with pytest.raises(NonFiniteError):
        decode(model, ids[:, 6:], cache, prefill=0)
    assert [layer.get_seq_length() for layer in cache.layers] == [6, 6]
    with torch.no_grad():
        norm.weight.copy_(good)
    assert torch.equal(decode(model, ids[:, 6:], cache, prefill=0), decode(model, ids)[:, -1:])


def test_gradients_and_float32_go_the_usual_way(saved, monkeypatch):
    model = load(saved)
    fuse(model)
    monkeypatch.setattr("octoscale.kernels.decoder.DecoderLayer.step", lambda *_: pytest.fail("the fused step ran"))
    cache = DynamicCache()
    model(tokens(batch=1, length=3), past_key_values=cache)
    embeddings = torch.randn(1, 1, 64, dtype=torch.bfloat16, requires_grad=True)
    model(inputs_embeds=embeddings, past_key_values=cache).logits.sum().backward()
    assert embeddings.grad is not None


def test_a_cache_that_is_cut_or_copied_goes_on_rightly(saved):
    """A step writes behind the cache that it was given, and never into one that someone else holds."""
    model = load(saved)
    fuse(model)
    ids = tokens(batch=1, length=24)
    cache = DynamicCache()
    decode(model, ids[:, :12], cache)
    held = [(layer.keys, layer.keys.clone()) for layer in cache.layers]
    fork = copy.deepcopy(cache)
    shallow = DynamicCache()
    for i, layer in enumerate(cache.layers):
        shallow.update(layer.keys, layer.values, i)
    first = decode(model, ids[:, 12:], cache, prefill=0)
    decode(model, ids[:, 1:9], shallow, prefill=0)
    assert torch.equal(decode(model, ids[:, 12:], fork, prefill=0), first)
    assert all(torch.equal(keys, before) for keys, before in held)
    cache.crop(-12)
    assert torch.equal(decode(model, ids[:, 12:], cache, prefill=0), first)
    assert torch.equal(decode(model, ids), torch.cat([decode(model, ids[:, :12]), first], dim=1))


def test_room_for_keys_grows(saved):
    model = load(saved)
    model.config.max_position_embeddings = 600
    ids = tokens(batch=1, length=530)
    expected = decode(model, ids, prefill=250)
    fuse(model)
    found = decode(model, ids, prefill=250)
    assert (found - expected).float().norm() < 0.03 * expected.float().norm()


def save_and_load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("clone", [copy.deepcopy, save_and_load])
def test_a_copy_decodes_with_its_own_weights(clone, saved):
    model = load(saved)
    fuse(model)
    ids = tokens(batch=1, length=10)
    expected = decode(model, ids)
    other = clone(model)
    for layer in model.model.layers:
        layer.self_attn.v_proj.weight.data.zero_()
    assert other.model.layers[0].forward._layer is other.model.layers[0]
    assert torch.equal(decode(other, ids), expected)
    assert not torch.equal(decode(model, ids), expected)


def test_a_weight_or_a_scale_that_changes_is_seen(saved):
    model = load(saved)
    fuse(model)
    ids = tokens(batch=1, length=10)
    decode(model, ids)
    layer = model.model.layers[0].mlp.down_proj
    layer.weight_scale.data = layer.weight_scale.data * 4
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone().flip(0), requires_grad=False)
    found = decode(model, ids)
    unfuse(model)
    expected = decode(model, ids)
    assert (found - expected).float().norm() < 0.03 * expected.float().norm()


def test_a_layer_that_is_replaced_is_seen_when_a_sequence_begins(saved):
    """A cache that was not seen before begins one, too. Until then the old weights are alive, and used."""
    model = load(saved)
    fuse(model)
    ids = tokens(batch=1, length=10)
    cache = DynamicCache()
    decode(model, ids[:, :8], cache)
    fork, again = copy.deepcopy(cache), copy.deepcopy(cache)
    before = decode(model, ids[:, 8:9], again, prefill=0)
    other = copy.deepcopy(model.model.layers[0].mlp.down_proj)
    other.weight = torch.nn.Parameter(other.weight.detach().clone().flip(0), requires_grad=False)
    decode(model, ids[:, 8:9], cache, prefill=0)
    model.model.layers[0].mlp.down_proj = other
    gc.collect()
    unchanged = decode(model, ids[:, 9:], cache, prefill=0)
    found = decode(model, ids[:, 8:9], fork, prefill=0)
    assert (found - before).float().norm() > 0.1 * before.float().norm()
    assert not torch.equal(unchanged, decode(model, ids[:, 9:], fork, prefill=0))
    model.model.layers[1].mlp.down_proj = torch.nn.Linear(112, 64, bias=False, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match=r"model\.layers\.1 decodes the usual way .*down_proj is not loaded in FP8"):
        found = decode(model, ids)
    unfuse(model)
    expected = decode(model, ids)
    assert (found - expected).float().norm() < 0.03 * expected.float().norm()


def transposed_in_memory(weight):
    return weight.view(torch.uint8).t().contiguous().t().view(weight.dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda weight: weight[:32], "do not fit together"), (transposed_in_memory, "are contiguous")],
)
def test_weights_that_would_be_read_out_of_bounds_go_the_usual_way(change, message, saved):
    """Where they fit nowhere, the usual way says so."""
    model = load(saved)
    fuse(model)
    cache = DynamicCache()
    decode(model, tokens(batch=1, length=6), cache)
    again = copy.deepcopy(cache)
    layer = model.model.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter(change(layer.weight.detach()), requires_grad=False)
    with pytest.warns(UserWarning, match=f"model.layers.1 decodes the usual way from now on: .*{message}"):
        found = outcome(model, again)
    unfuse(model)
    expected = outcome(model, cache)
    assert type(found) is type(expected)
    if isinstance(found, torch.Tensor):
        assert (found - expected).float().norm() < 0.02 * expected.float().norm()
    else:
        assert str(found) == str(expected)


def outcome(model, cache):
    try:
        return decode(model, tokens(batch=1, length=1), cache, prefill=0)
    except RuntimeError as error:
        return error


def test_infinity_names_the_layer(saved):
    model = load(saved)
    fuse(model)
    cache = DynamicCache()
    decode(model, tokens(batch=1, length=6), cache)
    with torch.no_grad():
        model.model.layers[1].post_attention_layernorm.weight[3] = math.inf
    with pytest.raises(NonFiniteError, match=r"layer model\.layers\.1\.mlp\.gate_proj: the input holds infinity"):
        decode(model, tokens(batch=1, length=1), cache, prefill=0)


def test_other_models_say_why_not(tmp_path):
    model = tiny_gpt2().to(torch.bfloat16)
    said = "0 of 2 decoder layers fused; transformer.h.0 and 1 more: GPT2Block is not one of Llama"
    assert str(fuse(model)).startswith(said)
    tiny = TINY["llama"]().to(torch.bfloat16)
    assert fuse(tiny).left["model.layers.1"] == "self_attn.q_proj is not loaded in FP8"
    tiny.save_pretrained(tmp_path)
    assert "multiples of 16" in str(fuse(load(tmp_path)))


def test_the_portable_backend_says_so(saved):
    model = load(saved)
    with using("portable"):
        assert "the backend is portable" in str(fuse(model))


def test_mistral_without_a_window_is_fused(tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(**SIZES, **sizes, sliding_window=None, tie_word_embeddings=True)
    MistralForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    model = load(tmp_path)
    ids = tokens(batch=1, length=20)
    expected = decode(model, ids)
    assert len(fuse(model).fused) == 2
    assert (decode(model, ids) - expected).float().norm() < 0.03 * expected.float().norm()
