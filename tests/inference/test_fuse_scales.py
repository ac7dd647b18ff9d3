"""Fast decoding with a scale for each row or block, and scales that are no powers of two. Oracle: the usual forward."""

import pytest
import torch
from implementations import BACKENDS, using
from models import tokens
from test_fuse import NATIVES, decode, float32_attention, load, sharp_llama  # noqa: F401  a fixture

from octoscale.inference.fuse import fuse
from octoscale.kernels.decoder import REFUSED, LinearFacts
from octoscale.layers.stored import StoredLinear

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # transformers' own
    pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ core is not built"),
    pytest.mark.usefixtures("float32_attention"),
]


def serves_rows(name: str) -> bool:
    """Whether this instruction set takes many tokens through a layer at once."""
    return name in ("native[avx512]", "native[amx]")


#: Blocks of 128 and what is left of them, in both directions; and less than one.
BLOCKS = {"hidden_size": 288, "intermediate_size": 400, "num_attention_heads": 6}
LESS = {"hidden_size": 64, "intermediate_size": 112}
SCHEMES = [
    ("amax:row", "dynamic"),
    ("amax:block", "dynamic"),
    ("weight=amax:row,input=amax:block", "dynamic"),
    ("weight=amax:block,input=amax:row", "dynamic"),
    ("weight=amax,input=amax:block", "dynamic"),
    ("amax:row", "none"),
    ("amax:block", "none"),
    ("weight=amax:block,input=cscale:3", "static"),
    ("amax", "dynamic"),
    ("cscale:3", "static"),
    ("amax", "none"),
]


def foreign(model) -> None:
    """Let the scales be such as others write: any positive numbers, of inputs as well."""
    generator = torch.Generator().manual_seed(0)
    for layer in (module for module in model.modules() if isinstance(module, StoredLinear)):
        with torch.no_grad():
            for name in layer.scale_names:
                scale = layer.get_parameter(name)
                scale.mul_(0.6 + torch.rand(scale.shape, generator=generator))


CASES = [(*scheme, is_foreign, BLOCKS) for scheme in SCHEMES for is_foreign in (False, True)]
CASES += [(*scheme, True, LESS) for scheme in SCHEMES if "block" in scheme[0]]


@pytest.mark.parametrize(("scaling", "activations", "is_foreign", "sizes"), CASES)
@pytest.mark.parametrize("name", NATIVES)
def test_a_fused_layer_computes_what_the_layer_computes(name, scaling, activations, is_foreign, sizes, tmp_path):
    model = sharp_llama(**sizes)
    model.save_pretrained(tmp_path)
    ids = tokens(batch=1, length=12)
    with using(name):
        model = load(tmp_path, scaling, activations)
        if is_foreign:
            foreign(model)
        expected = decode(model, ids)
        assert str(fuse(model)) == "2 of 2 decoder layers fused, and the head"
        found = decode(model, ids)
    difference = (found - expected).float()
    assert (difference == 0).float().mean() > 0.3
    assert difference.norm() < 0.02 * expected.float().norm()


@pytest.mark.parametrize("name", NATIVES)
def test_scales_too_far_apart_go_the_usual_way(name, tmp_path):
    """A run of an input that lies 2**100 below the others of its sum leaves float32: the usual way sums in float64."""
    sharp_llama(**BLOCKS).save_pretrained(tmp_path)
    ids = tokens(batch=1, length=8)
    with using(name):
        model = load(tmp_path, "amax:block")
        with torch.no_grad():
            model.model.layers[1].input_layernorm.weight[128:256] = 2.0**-100
        expected = decode(model, ids)
        fuse(model)
        found = decode(model, ids)
        layer = model.model.layers[1].forward
        for length in (1, 2):
            x, turn = (torch.ones(1, length, size, dtype=torch.bfloat16) for size in (288, layer.parts.head_dim))
            room = layer.room(None, length)
            answer = layer.core().step(x, turn, turn, room.keys, room.values, 0, torch.empty_like(x))
            assert answer == REFUSED
        assert layer.core().serves_rows == serves_rows(name)
    assert found.isfinite().all()
    assert (found - expected).float().norm() < 0.02 * expected.float().norm()


@pytest.mark.parametrize("scaling", ["amax:block", "weight=amax:block,input=amax"])
@pytest.mark.parametrize("name", NATIVES)
def test_many_tokens_at_once_are_refused(name, scaling, tmp_path):
    """A product of many rows knows no scale that changes along its sums, unless it is a power of two."""
    sharp_llama(**LESS).save_pretrained(tmp_path)
    with using(name):
        model = load(tmp_path, scaling)
        foreign(model)
        fuse(model)
        assert refuses_many(model)


@pytest.mark.parametrize("name", [name for name in NATIVES if not serves_rows(name)])
def test_many_tokens_at_once_are_refused_where_there_is_no_kernel(name, tmp_path):
    sharp_llama(**LESS).save_pretrained(tmp_path)
    with using(name):
        model = load(tmp_path, "amax:row")
        fuse(model)
        assert refuses_many(model)


def refuses_many(model) -> bool:
    layer = model.model.layers[0].forward
    assert layer.is_known()
    x, turn = (
        torch.ones(1, 2, size, dtype=torch.bfloat16) for size in (model.config.hidden_size, layer.parts.head_dim)
    )
    room = layer.room(None, 2)
    answer = layer.core().step(x, turn, turn, room.keys, room.values, 0, torch.empty_like(x))
    assert layer.core().serves_rows == (answer != REFUSED)
    return answer == REFUSED


MIXED = [
    ("weight=amax,input=amax:row", "dynamic"),
    ("weight=amax:row,input=amax", "dynamic"),
    ("weight=amax:block,input=amax", "dynamic"),
    ("weight=amax:row,input=cscale:3", "static"),
]
TOGETHER = [(*scheme, is_foreign) for scheme in (*SCHEMES, *MIXED) for is_foreign in (False, True)]
BLOCK_WEIGHTS = ("amax:block", "weight=amax:block")
TOGETHER = [case for case in TOGETHER if not (case[2] and case[0].startswith(BLOCK_WEIGHTS))]


@pytest.mark.parametrize("length", [2, 17, 70])
@pytest.mark.parametrize(("scaling", "activations", "is_foreign"), TOGETHER)
@pytest.mark.parametrize("name", [name for name in NATIVES if serves_rows(name)])
def test_the_first_tokens_go_through_a_fused_layer_together(name, scaling, activations, is_foreign, length, tmp_path):
    """With all of attention, as far apart as its roundings make it, as under one scale a tensor; without it, hardly."""
    ids = tokens(batch=1, length=length)
    model = sharp_llama(**BLOCKS, max_position_embeddings=256)
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        layer.mlp.up_proj.weight.data.mul_(2.0 ** torch.randint(-5, 5, (400, 1), generator=generator))
    model.save_pretrained(tmp_path / "all")
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    model.save_pretrained(tmp_path / "without")
    with torch.no_grad(), using(name):
        for folder, equal, bound in (("all", 0.02, 0.15), ("without", 0.95, 0.005)):
            model = load(tmp_path / folder, scaling, activations)
            if is_foreign:
                foreign(model)
            expected = model(ids).logits
            fuse(model)
            assert not refuses_many(model)
            found = model(ids).logits
            assert (found == expected).float().mean() > equal
            assert (found - expected).float().norm() < bound * expected.float().norm()


@pytest.mark.parametrize(
    ("scale_bias", "factor"),
    [((64, 1), (1, 1)), ((1, 64), 1.0), ((2, 1), 1.0), ((), (64, 1))],
)
def test_scales_that_would_be_read_out_of_bounds_are_refused(scale_bias, factor):
    factor = factor if isinstance(factor, float) else torch.ones(factor)
    codes = torch.zeros(64, 64, dtype=torch.float8_e4m3fn)
    with pytest.raises(ValueError, match="do not fit"):
        LinearFacts(
            codes=codes,
            format="e4m3fn",
            scale_bias=torch.zeros(scale_bias, dtype=torch.int32),
            factor=factor,
            input=None,
        )


def test_a_weight_whose_scales_lie_too_far_apart_is_not_fused(tmp_path):
    sharp_llama(**BLOCKS).save_pretrained(tmp_path)
    model = load(tmp_path, "amax:block")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight_scale[0, 1] *= 2.0**-100
    report = fuse(model)
    assert report.fused == ["model.layers.1"]
    assert "mlp.up_proj has scales along its sums that lie more than 2**92 apart" in report.left["model.layers.0"]


def test_a_scale_that_changes_is_seen_when_a_sequence_begins(tmp_path):
    sharp_llama(**BLOCKS).save_pretrained(tmp_path)
    model, ids = load(tmp_path, "amax:row"), tokens(batch=1, length=8)
    fuse(model)
    before = decode(model, ids)
    foreign(model)
    found = decode(model, ids)
    expected = decode(load_changed(tmp_path), ids)
    assert not torch.equal(found, before)
    assert (found - expected).float().norm() < 0.02 * expected.float().norm()


def load_changed(folder):
    model = load(folder, "amax:row")
    foreign(model)
    return model
