"""Sums as tensor cores make them. Oracles: mmaemu, which replays an H100's bits; Python's integers for all the rest."""

import math

import pytest
import torch
from mmaemu import accumulate
from models import tiny_llama
from torch import Tensor

from octoscale.checkpoints.settings import Quantization
from octoscale.conversion.convert import convert
from octoscale.kernels.ops import matmul, quantize
from octoscale.models.export import run_quantization
from octoscale.numerics.accumulators import ACCUMULATORS, dot, get_accumulator
from octoscale.numerics.formats import FORMAT_SETS
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.numerics.scaling import Amax
from octoscale.system.errors import UserError

native = pytest.importorskip("octoscale.kernels.native", reason="the C++ core was not built")

PAIRS = [("e4m3fn", "e4m3fn"), ("e4m3fn", "e5m2"), ("e5m2", "e4m3fn")]
REPLAYED = ["hopper", "ada"]
#: Terms of a sum: fewer than a block, several, and more than a chain, whole and not.
TERMS = [0, 1, 7, 16, 32, 33, 100, 128, 257, 1030]


def codes(num_rows: int, num_terms: int, name: str, kind: str, seed: int = 0) -> Tensor:
    """Finite codes: of any bits, of normal numbers, of such that cancel each other, of the smallest ones."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, f"float8_{name}")
    if kind in ("any", "small"):
        found = torch.randint(0, 256, (num_rows, num_terms), generator=generator, dtype=torch.uint8)
        found = found & 0x87 if kind == "small" else found
        return torch.where(found.view(dtype).float().isfinite(), found, 0).view(dtype)
    x = torch.randn(num_rows, num_terms, generator=generator) * 20
    if kind == "cancelling":
        x[:, 1::2] = -x[:, : num_terms - 1 : 2]
        x[:, ::3] *= 0.01
    return x.to(dtype)


def core(isa: str, a: Tensor, b: Tensor, name: str, fast: bool) -> Tensor:
    return native.Native(isa).accumulate(a, b.t(), get_accumulator(name).rule(fast=fast))


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", ["any", "normal", "cancelling", "small"])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", REPLAYED)
def test_the_core_has_the_bits_of_the_gpu(name, pair, kind, fast):
    for num_terms in TERMS[1:]:
        a, b = codes(23, num_terms, pair[0], kind, 1), codes(37, num_terms, pair[1], kind, 2)
        expected = accumulate(a, b, use_fast_accum=fast, profile=name, splitk=1)
        for isa in native.available():
            assert same_bits(core(isa, a, b, name, fast), expected), (num_terms, isa)


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLAYED)
def test_a_million_sums_have_the_bits_of_the_gpu(name):
    """From 1 to 8,192 terms."""
    count = 0
    for seed, num_terms in enumerate([1, 2, 31, 64, 150, 333, 512, 1000, 2048, 4095, 8192]):
        for pair in PAIRS:
            side = 200 if num_terms < 2000 else 150
            for kind in ("any", "cancelling"):
                a, b = codes(side, num_terms, pair[0], kind, seed), codes(side, num_terms, pair[1], kind, seed + 100)
                for fast in (True, False):
                    expected = accumulate(a, b, use_fast_accum=fast, profile=name, splitk=1)
                    assert same_bits(core(native.chosen(), a, b, name, fast), expected)
                    count += side * side
    assert count > 1_000_000


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", ["any", "cancelling", "small"])
@pytest.mark.parametrize("pair", [*PAIRS, ("e4m3fnuz", "e5m2fnuz")])
@pytest.mark.parametrize("name", ACCUMULATORS)
def test_the_core_sums_as_integers_do(name, pair, kind, fast):
    for num_terms in TERMS:
        a, b = codes(5, num_terms, pair[0], kind, 3), codes(19, num_terms, pair[1], kind, 4)
        rows, columns = a.view(torch.uint8).tolist(), b.view(torch.uint8).tolist()
        expected = torch.tensor([[dot(r, c, pair, ACCUMULATORS[name], fast=fast) for c in columns] for r in rows])
        for isa in native.available():
            assert same_bits(core(isa, a, b, name, fast), expected.view(5, 19)), (num_terms, isa)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCUMULATORS)
def test_a_million_sums_are_those_of_integers(name):
    """Mostly short ones: the oracle adds half a million products a second."""
    count = 0
    for seed, (num_terms, side) in enumerate(
        [(1, 500), (3, 500), (40, 400), (33, 500), (200, 200), (1500, 20), (8192, 6)]
    ):
        for pair in PAIRS:
            a, b = codes(side, num_terms, pair[0], "any", seed), codes(side, num_terms, pair[1], "any", seed + 100)
            rows, columns = a.view(torch.uint8).tolist(), b.view(torch.uint8).tolist()
            expected = [[dot(r, c, pair, ACCUMULATORS[name], fast=True) for c in columns] for r in rows]
            assert same_bits(core(native.chosen(), a, b, name, True), torch.tensor(expected))
            count += side * side
    assert count > 1_000_000


def test_what_hopper_forgets():
    """By hand: 2**-14 below the largest product of a block is cut off, above it is kept."""
    one, half, tiny = 0x38, 0x30, 0x08  # 1, 0.5, 2**-6
    hopper = ACCUMULATORS["hopper"]
    assert dot([one, tiny], [one, tiny], ("e4m3fn",) * 2, hopper, fast=True) == 1 + 2.0**-12
    assert dot([one, tiny], [one, 0x04], ("e4m3fn",) * 2, hopper, fast=True) == 1 + 2.0**-13
    assert dot([one, tiny], [one, 0x02], ("e4m3fn",) * 2, hopper, fast=True) == 1
    assert dot([one, tiny], [one, 0x02], ("e4m3fn",) * 2, ACCUMULATORS["blackwell"], fast=True) == 1 + 2.0**-14
    ones = [one] * 16384 + [half]
    assert dot(ones, ones, ("e4m3fn",) * 2, hopper, fast=True) == 16384
    assert dot(ones, ones, ("e4m3fn",) * 2, hopper, fast=False) == 16384.25


def test_codes_that_are_not_finite_are_not_lost():
    a, b = codes(4, 50, "e4m3fn", "normal"), codes(6, 50, "e5m2", "normal")
    a.view(torch.uint8)[1, 7] = 0x7F
    b.view(torch.uint8)[2, 9] = 0x7C  # infinity
    for isa in native.available():
        sums = core(isa, a, b, "hopper", True)
        assert sums[1].isnan().all()
        assert sums[[0, 2, 3]][:, 2].isinf().all()
        assert sums[[0, 2, 3]][:, [0, 1, 3, 4, 5]].isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "with gaps"])
def test_operands_may_lie_as_they_like(layout):
    a, b = codes(6, 70, "e4m3fn", "normal", 1), codes(5, 70, "e4m3fn", "normal", 2)
    expected = core("scalar", a, b, "hopper", True)
    if layout == "transposed":
        a, b = a.t().contiguous().t(), b.t().contiguous().t()
    elif layout == "with gaps":
        a = torch.cat([a, a], dim=1)[:, :70]
    assert same_bits(core(native.chosen(), a, b, "hopper", True), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_unscaled_and_gets_its_bias(dtype):
    a, b = (quantize(torch.randn(6, 40, generator=torch.Generator().manual_seed(i)), "e4m3fn", Amax()) for i in (1, 2))
    sums = core("scalar", a.codes, b.codes, "hopper", True)
    bias = torch.arange(6.0)
    expected = (sums * 2.0 ** -float(a.scale_bias + b.scale_bias) + bias).to(dtype)
    assert torch.equal(matmul(a, b.t(), dtype=dtype, bias=bias, fast=True, accumulate="hopper"), expected)


def test_a_model_is_computed_as_its_recipe_says():
    """Each pass with its own sums; the loss moves, and no gradient is lost."""
    found = {}
    for text in ("amax", "amax:accumulate=hopper", "amax:accumulate=hopper,fast=none", "amax:accumulate=blackwell"):
        torch.manual_seed(0)
        model = tiny_llama(hidden_size=64, intermediate_size=640).train()
        convert(model, parse_scaling(text))
        ids = torch.randint(0, model.config.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        found[text] = loss.item(), [parameter.grad for parameter in model.parameters()]
    losses = [loss for loss, _ in found.values()]
    assert len(set(losses)) >= 3
    assert all(math.isclose(loss, losses[0], rel_tol=1e-3) for loss in losses)
    for _, gradients in found.values():
        assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.slow
def test_compiled_layers_imitate_too():
    model = tiny_llama().eval()
    convert(model, parse_scaling("amax:accumulate=hopper"))
    ids = torch.randint(0, model.config.vocab_size, (1, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert torch.equal(torch.compile(model, backend="eager")(input_ids=ids).logits, expected)


def test_another_name_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="unknown accumulator 'volta': one of hopper, ada, blackwell, mi300"):
        parse_scaling("amax:accumulate=volta")
    assert isinstance(parse_scaling("cscale:1,accumulate=ada,fast=both"), Recipe)


def test_other_devices_are_refused():
    a = quantize(torch.ones(2, 2), "e4m3fn", Amax())
    meta = quantize(torch.ones(2, 2, device="meta"), "e4m3fn", Amax())
    assert matmul(a, a, accumulate="ada").tolist() == [[2, 2], [2, 2]]
    with pytest.raises(UserError, match="accumulate=ada is computed on a CPU, and the model is on meta"):
        matmul(meta, meta, accumulate="ada")


def test_every_row_says_where_it_comes_from():
    for row in ACCUMULATORS.values():
        assert "arXiv" in row.source
        assert row.unknown


@pytest.mark.parametrize("text", ["amax:accumulate=hopper", "amax:fast=none"])
def test_a_checkpoint_does_not_say_how_products_are_summed(text, tmp_path):
    with pytest.raises(UserError, match=f"scaling {text}: a checkpoint does not hold how products are summed"):
        run_quantization(Quantization(model="gpt-10m", scaling=text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_an_mi300_forgets():
    """By hand: the halves of a block are cut off each by itself; the sum so far is rounded down, then to nearest."""
    mi300, pair = ACCUMULATORS["mi300"], ("e5m2fnuz",) * 2
    one, least, minus_least = 0x40, 0x01, 0x81  # 1, 2**-17 and -2**-17
    assert dot([one, least], [one, least], pair, mi300, fast=True) == 1  # the odd one's 2**-34 is lost when they meet
    assert dot([one, minus_least], [one, least], pair, mi300, fast=True) == 1 - 2.0**-24  # rounded down
    assert dot([one, 0, least], [one, 0, least], pair, mi300, fast=True) == 1
    assert dot([one, 0, minus_least], [one, 0, least], pair, mi300, fast=True) == 1  # cut off towards zero
    zeros = [0] * 15
    assert dot([one, *zeros, minus_least], [one, *zeros, least], pair, mi300, fast=True) == 1  # 31 bits, then nearest


@pytest.mark.parametrize(("name", "formats"), [("mi300", "ocp"), ("hopper", "fnuz")])
def test_a_core_is_not_asked_for_formats_that_it_does_not_take(name, formats):
    with pytest.raises(UserError, match=rf"accumulate={name} sums codes of .*: formats={ACCUMULATORS[name].formats}$"):
        parse_scaling(f"amax:accumulate={name}", formats)
    assert isinstance(parse_scaling(f"amax:accumulate={name},formats={ACCUMULATORS[name].formats}"), Recipe)
    codes = quantize(torch.ones(2, 2), FORMAT_SETS[formats]["input"], Amax())
    with pytest.raises(UserError, match=f"accumulate={name} sums codes of"):
        matmul(codes, codes, accumulate=name)
