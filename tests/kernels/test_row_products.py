"""Products with a scale for each row and column in the C++ core: blocks and tails, the order of sums, threads.

Oracles: float64 on the same codes (intervals.py), the same rows alone, the same operands elsewhere in memory.
"""

import pytest
import torch
from grouped import values_of
from guarded import guarded
from implementations import BACKENDS, HELD, using
from intervals import assert_within, interval
from tensors import DTYPES, normal
from torch import Tensor

from octoscale.kernels import ops
from octoscale.kernels.ops import Quantized, matmul, quantize
from octoscale.numerics.granularity import ROW
from octoscale.numerics.scaling import Amax

native = pytest.importorskip("octoscale.kernels.native", reason="the C++ core is not built")

NATIVE = [name for name in BACKENDS if name.startswith("native")]
VECTOR = [name for name in NATIVE if name != "native[scalar]"]
BY_ROW = Amax(granularity="row")

#: Rows, length of the sum, columns: few and many rows, blocks of 512 along the sum, of 24 columns, of 128 rows.
SIZES = [(1, 1, 1), (4, 7, 23), (5, 8, 24), (3, 513, 25), (6, 520, 49), (7, 1031, 3), (17, 64, 71), (258, 40, 26)]


def operands(m: int, k: int, n: int, format: str = "e4m3fn") -> tuple[Quantized, Quantized]:
    x, w = normal(m, k) * 2.0 ** (torch.arange(m)[:, None] % 30 - 15), normal(n, k, seed=1)
    return quantize(x, format, BY_ROW), quantize(w, format, BY_ROW)


@pytest.mark.parametrize("format", HELD)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NATIVE)
def test_products_are_within_the_bound_of_float64(name, size, format):
    with using(name):
        a, b = operands(*size, format)
        bias, values = normal(size[2], seed=2), (values_of(a), values_of(b).t())
        for dtype in DTYPES:
            assert_within(matmul(a, b.t(), dtype=dtype, bias=bias.to(dtype)), interval(*values, dtype, bias.to(dtype)))
        wide = normal(*size[:2]).bfloat16()
        assert_within(ops.linear(wide, b, dtype=torch.float32), interval(wide.double(), values[1], torch.float32))


def layouts(codes: Tensor) -> list[Tensor]:
    """The same matrix by row, by column, with gaps."""
    gaps = torch.zeros(codes.shape[0], codes.shape[1] + 3, dtype=torch.uint8)
    gaps[:, 1:-2] = codes.view(torch.uint8)
    return [codes, codes.t().contiguous().t(), gaps[:, 1:-2].view(codes.dtype)]


@pytest.mark.parametrize("size", [(5, 70, 30), (2, 520, 49)], ids=str)
@pytest.mark.parametrize("name", NATIVE)
def test_layouts_and_threads_change_no_bit(name, size):
    a, b = operands(*size)
    threads = torch.get_num_threads()
    results = []
    try:
        with using(name):
            for num_threads in (1, 2, 3):
                torch.set_num_threads(num_threads)
                for of_a, of_b in zip(layouts(a.codes), layouts(b.codes), strict=True):
                    left, right = (
                        Quantized(codes=codes, scale_bias=q.scale_bias, format=q.format, granularity=ROW)
                        for codes, q in ((of_a, a), (of_b, b))
                    )
                    results.append(matmul(left, right.t()))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("k", [7, 520, 1100])
@pytest.mark.parametrize("name", VECTOR)
def test_any_number_of_rows_has_the_bits_of_each_row_alone(name, k):
    with using(name):
        b = operands(1, k, 50)[1].t()
        x = normal(270, k, seed=3)
        alone = torch.cat([matmul(quantize(row[None], "e4m3fn", BY_ROW), b) for row in x[:12]])
        for num_rows in (2, 3, 4, 5, 8, 11, 12, 17, 257, 270):
            together = matmul(quantize(x[:num_rows], "e4m3fn", BY_ROW), b)
            assert torch.equal(together[:12], alone[:num_rows])


@pytest.mark.parametrize("size", [(1, 65, 3), (4, 130, 17), (5, 63, 5), (9, 520, 25)], ids=str)
@pytest.mark.parametrize("name", NATIVE)
def test_nothing_but_the_operands_is_read(name, size):
    """A page fault would kill the process."""
    a, b = operands(*size)
    expected = interval(values_of(a), values_of(b).t(), torch.float32)
    for by_column in (False, True):
        codes = (
            guarded(a.codes.view(torch.uint8).t().contiguous()).t() if by_column else guarded(a.codes.view(torch.uint8))
        )
        left, right = (
            Quantized(
                codes=raw.view(torch.float8_e4m3fn), scale_bias=guarded(q.scale_bias), format=q.format, granularity=ROW
            )
            for raw, q in ((codes, a), (guarded(b.codes.view(torch.uint8)), b))
        )
        with using(name):
            assert_within(matmul(left, right.t()), expected)


@pytest.mark.parametrize("k", [40, 1 << 20])
@pytest.mark.parametrize("name", NATIVE)
def test_no_rows_give_no_rows(name, k):
    """An expert without tokens; the long rows would be read beyond any scratch memory."""
    b = quantize(torch.ones(3, k), "e4m3fn", BY_ROW).t()
    with using(name):
        assert matmul(quantize(torch.empty(0, k), "e4m3fn", BY_ROW), b).shape == (0, 3)
        none = quantize(torch.empty(0, k), "e4m3fn", BY_ROW).t()
        assert matmul(quantize(torch.ones(2, k), "e4m3fn", BY_ROW), none).shape == (2, 0)


class LikeAvx512(native.Native):
    """The way of AVX-512, with the products of AVX2."""

    number = native.ISAS.index("avx2")


@pytest.mark.parametrize("num_rows", [2, 17, 40])
@pytest.mark.parametrize("backend", [native.Native("avx2"), LikeAvx512("avx512")], ids=["avx2", "avx512"])
def test_a_product_is_no_view(backend, num_rows):
    """Else what follows could not be computed in place."""
    if "avx2" not in native.available():
        pytest.skip("this CPU has no AVX2")
    a, b = operands(num_rows, 40, 5)
    assert not backend.matmul(a, b.t(), None, torch.float32)._is_view()
