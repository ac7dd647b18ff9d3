"""Differences in ulp. Oracles: torch's own neighbors, sums worked out by hand, mmaemu's bits and numpy."""

import numpy as np
import pytest
import torch
from mmaemu import accumulate

from octoscale.kernels.ops import Quantized, quantize
from octoscale.numerics.formats import get_format
from octoscale.numerics.scaling import Amax
from octoscale.parity.differences import EXPONENTS, Differences, compare, ulp
from octoscale.parity.products import Product
from octoscale.parity.ways import FLOAT32, exact, ways_of
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError

pytest.importorskip("octoscale.kernels.native", reason="the C++ core was not built")

LAYER = LayerName(module="m", layer=0, kind="other")
ONE, SIXTEENTH, TINY, TINIEST = 0x38, 0x18, 0x08, 0x02  # 1, 2**-4, 2**-6, 2**-8


def coded(rows: list[list[int]], scale_bias: int = 0) -> Quantized:
    codes = torch.tensor(rows, dtype=torch.uint8).view(torch.float8_e4m3fn)
    return Quantized(codes=codes, scale_bias=torch.tensor(scale_bias, dtype=torch.int32), format=get_format("e4m3fn"))


def random_product(seed: int, rows: int = 5, terms: int = 300, columns: int = 7, with_bias: bool = True) -> Product:
    chance = torch.Generator().manual_seed(seed)
    x, w = torch.randn(rows, terms, generator=chance), torch.randn(columns, terms, generator=chance) * 0.02
    bias = torch.randn(columns, generator=chance) if with_bias else None
    high = x.double() @ w.t().double() + (0 if bias is None else bias.double())
    a, b = quantize(x, "e4m3fn", Amax()), quantize(w, "e4m3fn", Amax()).t()
    return Product(layer=LAYER, result="output", a=a, b=b, high=high, bias=bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_an_ulp_is_the_way_to_the_next_number(dtype):
    info = torch.finfo(dtype)
    x = torch.cat(
        [
            torch.tensor([0.0, info.smallest_normal, info.smallest_normal / 2, 1.0, 1.5, 2.0, 255.0]),
            torch.randn(500, generator=torch.Generator().manual_seed(0)).abs() * 30,
        ]
    ).to(dtype)
    neighbors = torch.nextafter(x, torch.full_like(x, torch.inf))
    expected = neighbors.double() - x.double()
    assert torch.equal(ulp(x.double(), dtype), expected)
    assert torch.equal(ulp(-x.double(), dtype), expected)


def test_what_hopper_forgets_is_counted():
    """1 * 1 + 2**-6 * 2**-8: the second is cut off. An ulp of bfloat16 is 2**-7 there, of which 2**-7 is missing."""
    a, b = coded([[ONE, TINY]], 3), coded([[ONE], [TINIEST]], -3)
    product = Product(layer=LAYER, result="output", a=a, b=b, high=torch.tensor([[1.25]], dtype=torch.float64))
    found = compare(product, ways_of(["hopper", "blackwell"]), torch.bfloat16)
    assert [*found] == ["float32", "hopper", "hopper, promoted", "blackwell"]
    nothing = Differences(outputs=1, casts=(0.25 - 2.0**-14) ** 2)
    assert found["float32"] == found["blackwell"] == nothing
    above = [1 if exponent == -8 else 0 for exponent in EXPONENTS]
    expected = Differences(outputs=1, above=above, sums=2.0**-28, casts=(0.25 - 2.0**-14) ** 2)
    assert found["hopper"] == found["hopper, promoted"] == expected
    assert found["hopper"].of_casts == 2.0**-14 / (0.25 - 2.0**-14)


def test_an_output_that_rounds_to_another_number_has_changed():
    """1 + 2**-8 is a tie, which rounds to 1; a little more rounds up. In float32 both differ unrounded."""
    a, b = coded([[ONE, SIXTEENTH, TINY]]), coded([[ONE], [SIXTEENTH], [TINIEST]])
    product = Product(layer=LAYER, result="output", a=a, b=b, high=exact(a, b))
    for dtype in (torch.bfloat16, torch.float32):
        found = compare(product, ways_of(["hopper"]), dtype)
        assert (found["float32"].changed, found["hopper"].changed) == (0, 1)
    assert found["hopper"].of_casts is None
    a, b = coded([[ONE, TINY]]), coded([[ONE], [TINIEST]])
    found = compare(
        Product(layer=LAYER, result="output", a=a, b=b, high=exact(a, b)), ways_of(["hopper"]), torch.bfloat16
    )
    assert found["hopper"].changed == 0


@pytest.mark.parametrize(("name", "fast"), [("hopper", True), ("hopper, promoted", False), ("ada", True)])
def test_differences_are_those_of_the_replayed_bits(name, fast):
    """Oracle: mmaemu, and numpy's float64 and logarithms."""
    product = random_product(1)
    profile = name.partition(",")[0]
    found = compare(product, ways_of(["hopper", "ada"]), torch.bfloat16)[name]
    rows, columns = product.a.codes, product.b.codes.t().contiguous()
    sums = accumulate(rows, columns, use_fast_accum=fast, profile=profile, splitk=1).numpy()
    scale, bias = np.float32(2.0 ** -int(product.a.scale_bias + product.b.scale_bias)), product.bias.numpy()
    sums = (sums * scale + bias).astype(np.float64)
    right = rows.double().numpy() @ columns.double().numpy().T * float(scale) + bias
    unit = 2.0 ** (np.floor(np.log2(np.abs(right))) - 7)
    away = np.abs(sums - right) / unit
    assert found.outputs == right.size == 35
    assert found.above == [int((away > 2.0**e).sum()) for e in EXPONENTS]
    assert found.sums == pytest.approx(((sums - right) ** 2).sum(), rel=1e-9)
    assert found.casts == pytest.approx(((right - product.high.numpy()) ** 2).sum(), rel=1e-9)
    plain = FLOAT32.sums(product.a, product.b, product.bias).bfloat16()
    assert found.changed == int((torch.from_numpy(sums).float().bfloat16() != plain).sum())
    assert 0 < found.above[EXPONENTS.index(-4)] < found.above[0]


def test_float32_differs_from_nothing_and_is_next_to_exact():
    found = compare(random_product(2), ways_of([]), torch.bfloat16)
    assert [*found] == ["float32"]
    assert (found["float32"].changed, found["float32"].above[0]) == (0, 0)
    assert 0 < found["float32"].of_casts < 1e-4


def test_terms_that_cancel_are_far_away_in_ulp_and_nothing_else():
    """1 - 1 + 2**-6 * 2**-8 in one block: nothing is left of what is small, and the unit is that of 2**-14."""
    a, b = coded([[ONE, ONE, TINY]]), coded([[ONE], [ONE | 0x80], [TINIEST]])
    product = Product(layer=LAYER, result="output", a=a, b=b, high=exact(a, b) + 1)
    found = compare(product, ways_of(["hopper"]), torch.bfloat16)["hopper"]
    assert found.above == [int(2.0**exponent < 2**7) for exponent in EXPONENTS]
    assert (found.changed, found.of_casts) == (1, 2.0**-14)


def test_outputs_add_up():
    """Oracle: the same rows at once. A scale of one part is that of the whole, as its codes are."""
    whole = random_product(3, rows=6)
    parts = [
        Product(
            layer=LAYER,
            result="output",
            a=Quantized(codes=whole.a.codes[part].clone(), scale_bias=whole.a.scale_bias, format=whole.a.format),
            b=whole.b,
            high=whole.high[part],
            bias=whole.bias,
        )
        for part in (slice(0, 2), slice(2, 6), slice(6, 6))
    ]
    total = Differences()
    for part in parts:
        total.add(compare(part, ways_of(["hopper"]), torch.bfloat16)["hopper"])
    expected = compare(whole, ways_of(["hopper"]), torch.bfloat16)["hopper"]
    assert (total.outputs, total.changed, total.above) == (expected.outputs, expected.changed, expected.above)
    assert total.of_casts == pytest.approx(expected.of_casts)


def test_a_way_that_is_not_known_is_refused():
    with pytest.raises(UserError, match="unknown accumulator 'volta': one of hopper, ada, blackwell"):
        ways_of(["hopper", "volta"])
