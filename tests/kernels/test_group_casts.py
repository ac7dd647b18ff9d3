"""Casts with a scale for each group in the C++ core: its tiles and tails, its threads, the edge of memory.

Oracle: plain torch (kernels/portable.py), which test_groups.py compares with numerics/reference.py group by group.
"""

import math

import pytest
import torch
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st
from implementations import BACKENDS, HELD, using
from tensors import DTYPES, normal
from torch import Tensor

from octoscale.kernels import ops
from octoscale.numerics.formats import FORMATS, Format
from octoscale.numerics.granularity import BLOCK, MX, ROW, SQUARE, Granularity
from octoscale.numerics.scaling import Amax, amax_to_scale_bias

native = pytest.importorskip("octoscale.kernels.native", reason="the C++ core is not built")

NATIVE = [name for name in BACKENDS if name.startswith("native")]
EACH = (ROW, ROW.t(), BLOCK, BLOCK.t(), SQUARE, MX, MX.t())

LAYOUTS = {
    "rows that end in smaller groups": lambda x: x.view(-1)[: 7 * 999].view(7, 999),
    "whole groups": lambda x: x.view(-1)[: 12 * 640].view(12, 640),
    "rows with a stride": lambda x: x.view(64, 200)[::2, 3:150],
    "columns, contiguous": lambda x: x.view(64, 200).t(),
    "columns with a stride": lambda x: x.view(64, 200).t()[5:190, ::3],
    "no stride is 1": lambda x: x.view(64, 200)[:, ::3],
    "one column": lambda x: x.view(-1)[:300].view(300, 1),
    "one row, of several tiles": lambda x: x.view(1, -1)[:, :9001],
    "16 columns": lambda x: x.view(800, 16),
    "many rows": lambda x: x.view(-1)[: 400 * 31].view(400, 31),
}


def values(dtype: torch.dtype, *, finite: bool) -> Tensor:
    """Of 60 binades, in neighbours that differ, with zeros, subnormals, a run of zeros; infinity and NaN."""
    x = normal(12_800, seed=3) * torch.exp2(
        torch.randint(-40, 20, (12_800,), generator=torch.Generator().manual_seed(1))
    )
    x[::7], x[1::97], x[2100:3000] = 0, 1e-44, 0
    if not finite:
        x[5000], x[5200], x[12_000] = math.nan, -math.inf, math.inf
    return x.to(dtype)


def outcome(name: str, x: Tensor, fmt: Format, rule: Amax, granularity: Granularity) -> dict[str, Tensor]:
    """All that a cast returns."""
    with using(name):
        q = ops.quantize(x, fmt, rule, counts=True, exponents=True, granularity=granularity)
    return {"codes": q.codes.view(torch.uint8), "scale_bias": q.scale_bias, **vars(q.observed)}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for part, value in ours.items():
        torch.testing.assert_close(
            value, theirs[part], rtol=0, atol=0, equal_nan=True, msg=lambda text, p=part: f"{p}: {text}"
        )


def decoded(name: str, x: Tensor, rule: Amax, granularity: Granularity, dtype: torch.dtype) -> Tensor:
    """The values of its codes."""
    with using(name):
        return ops.quantize(x, "e4m3fn", rule, granularity=granularity).dequantize(dtype)


def rules(granularity: Granularity) -> list[Amax]:
    """With and without a margin, and both ways of rounding."""
    roundings = ("down", "up") if granularity.name == "mx" else ("",)
    return [Amax(granularity=granularity.name, margin=margin, round=round) for round in roundings for margin in (0, -2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("granularity", EACH, ids=lambda g: f"{g} {g.group}")
def test_each_layout_as_plain_torch(granularity, layout, dtype):
    for finite in (True, False):
        x = LAYOUTS[layout](values(dtype, finite=finite))
        for number, fmt in enumerate(HELD.values()):
            rule = rules(granularity)[(number + finite) % len(rules(granularity))]
            expected = outcome("portable", x, fmt, rule, granularity)
            for name in NATIVE:
                assert_same(outcome(name, x, fmt, rule, granularity), expected)
        back = decoded("portable", x, rules(granularity)[0], granularity, dtype)
        for name in NATIVE:
            ours = decoded(name, x, rules(granularity)[0], granularity, dtype)
            torch.testing.assert_close(ours, back, rtol=0, atol=0, equal_nan=True)


@given(data=st.data())
def test_any_matrix_as_plain_torch(data):
    sizes = [data.draw(st.integers(1, 70)), data.draw(st.sampled_from([1, 7, 31, 32, 33, 64, 100, 127, 128, 129, 300]))]
    strides = [data.draw(st.sampled_from([0, 1, 2, 70, 129, 160])) for _ in sizes]
    granularity, fmt = data.draw(st.sampled_from(EACH)), data.draw(st.sampled_from(list(HELD.values())))
    rule, dtype = data.draw(st.sampled_from(rules(granularity))), data.draw(st.sampled_from(DTYPES))
    x = (
        values(dtype, finite=data.draw(st.booleans()))
        .repeat(5)
        .as_strided(sizes, strides, data.draw(st.integers(0, 3)))
    )
    expected = outcome("portable", x, fmt, rule, granularity)
    for name in NATIVE:
        assert_same(outcome(name, x, fmt, rule, granularity), expected)


@pytest.mark.parametrize("granularity", [ROW, BLOCK, MX], ids=str)
def test_one_number(granularity):
    expected = outcome("portable", torch.tensor(-3.0), FORMATS["e5m2"], rules(granularity)[0], granularity)
    for name in NATIVE:
        assert_same(outcome(name, torch.tensor(-3.0), FORMATS["e5m2"], rules(granularity)[0], granularity), expected)


#: Enough for three threads; a row of 2**18 values is no tile any more.
LARGE = {
    "tiles": lambda: normal(130, 1001),
    "long rows": lambda: normal(2, (1 << 18) + 37),
    "a long column": lambda: normal((1 << 18) + 37, 1),
    "transposed": lambda: normal(700, 300).t(),
}


@pytest.mark.parametrize("granularity", EACH, ids=lambda g: f"{g} {g.group}")
@pytest.mark.parametrize("large", LARGE)
def test_threads_change_nothing(large, granularity):
    x, fmt, rule = LARGE[large](), FORMATS["e4m3fn"], rules(granularity)[0]
    x *= 2.0 ** (torch.arange(x.shape[1]) % 21 - 9)
    expected = outcome("portable", x, fmt, rule, granularity)
    threads = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            assert_same(outcome(NATIVE[-1], x, fmt, rule, granularity), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(1, 1), (3, 31), (2, 127), (129, 33), (5, 640), (130, 130)])
@pytest.mark.parametrize("granularity", EACH, ids=lambda g: f"{g} {g.group}")
@pytest.mark.parametrize("name", NATIVE)
def test_nothing_is_read_or_written_behind_the_tensors(name, granularity, shape):
    """A page fault would kill the process. Oracle for the rest: the same tensor elsewhere."""
    for dtype in DTYPES:
        x = normal(*shape).to(dtype)
        source = native.Groups(guarded(x), granularity, torch.float8_e4m3fn)
        amaxes, bias = (guarded(torch.zeros(source.num_groups, dtype=part)) for part in (torch.float32, torch.int32))
        codes, back = guarded(source.result.view(torch.uint8)), guarded(torch.zeros(source.result.shape, dtype=dtype))
        core, number = native._core, native.ISAS.index(name[7:-1])
        to = (amaxes.data_ptr(), bias.data_ptr(), codes.data_ptr(), 0)
        core.cast_groups(number, *source.where, source.result_number, 0, False, *to, 2)
        again = native.Groups(codes.view(torch.float8_e4m3fn), granularity, dtype)
        core.decode_groups(number, *again.where, bias.data_ptr(), back.data_ptr(), again.result_number, 2)
        rule = Amax(granularity=granularity.name, round="up" if granularity.name == "mx" else "")
        expected = outcome("portable", x, FORMATS["e4m3fn"], rule, granularity)
        assert torch.equal(codes, expected["codes"])
        assert torch.equal(bias, expected["scale_bias"])
        assert torch.equal(amaxes, expected["amaxes"])
        with using("portable"):
            assert torch.equal(back, ops.quantize(x, "e4m3fn", rule, granularity=granularity).dequantize(dtype))


def test_the_core_rounds_scales_as_scaling_py():
    """Every exponent, subnormals included, and the mantissas next to a format's largest."""
    bits = torch.tensor(
        [field << 23 | low for field in range(256) for low in (0, 1, 0x5FFFFF, 0x600000, 0x600001, 0x7FFFFF)]
    )
    amaxes = torch.cat([bits, 1 << torch.arange(23)]).to(torch.int32).view(torch.float32)
    for number, fmt in enumerate(HELD.values()):
        for margin, down in ((0, False), (0, True), (3, False), (-140, True)):
            expected = amax_to_scale_bias(amaxes, fmt, margin, down=down).tolist()
            found = [native._core.scale_bias(amax, number, margin, down) for amax in amaxes.tolist()]
            assert found == expected, (fmt, margin, down)
