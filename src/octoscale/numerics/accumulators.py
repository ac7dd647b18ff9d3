"""How tensor cores sum, as data: what a GPU will compute, known on a laptop.

A tensor core adds a block of products at once, together with the sum so far, and not as IEEE 754 says: each is cut off,
towards zero, some bits below the largest exponent among them, whatever it still held; what remains is added exactly,
and cut off again. The exponent of a product is that of its two factors together; a subnormal has the least normal one.

AMD's matrix cores join the sum so far in a second step. Of a block, the products with even numbers and those with odd
ones are cut off and added, each beside the largest exponent of its own half. Both sums are then rounded down some bits
below the larger exponent, and added; their sum and the sum so far are rounded down beside the larger of *their*
exponents, and the result is rounded to float32 as IEEE 754 says.

    recipe = parse_scaling("amax:accumulate=hopper")
    dot(a, b, ("e4m3fn", "e4m3fn"), ACCUMULATORS["hopper"], fast=True)     one sum, in Python's integers

The C++ core (csrc/accumulate) computes the same for matrices; `dot` is its oracle. `fast` is what torch calls
use_fast_accum: one sum from the first product to the last. Without it a new sum begins after each `chain` products, and
the sums are added in float32.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octoscale.numerics.formats import FORMATS, Format, get_format_set
from octoscale.system.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """How one instruction sums.

    block: products that are added at once. fraction: bits that are kept below the largest exponent of a block. kept:
    bits of a sum below its own exponent. floor: the least exponent to which a block is aligned. joined: 0 where the sum
    so far is one of a block's terms; else the bits of a block's sum that are kept when the sum so far joins it. chain:
    products after which slow sums begin anew; 0: none. formats: which it takes, a key of FORMAT_SETS. instruction: what
    it describes. source: who measured that. unknown: what nobody has.
    """

    name: str
    instruction: str
    block: int
    fraction: int
    kept: int
    floor: int
    chain: int
    source: str
    unknown: str
    joined: int = 0
    formats: str = "ocp"

    def rule(self, *, fast: bool) -> tuple[int, int, int, int, int, int]:
        """The numbers, as the C++ core takes them."""
        return (self.block, self.fraction, self.kept, self.floor, self.joined, 0 if fast else self.chain)


#: By the name that a recipe gives: `amax:accumulate=hopper`.
ACCUMULATORS = {
    row.name: row
    for row in (
        Accumulator(
            name="hopper",
            instruction="wgmma of FP8 on an H100, as cuBLASLt 12.8 calls it",
            block=32,
            fraction=13,
            kept=13,
            floor=-132,
            chain=128,
            source="arXiv 2512.07004 (Khattak and Mikaitis); mmaemu 0.1.0, bit for bit on an H100 PCIe",
            unknown="whether a call splits K over blocks of threads, and so adds its sums in another order; other GPUs",
        ),
        Accumulator(
            name="ada",
            instruction="mma.sync m16n8k32 of FP8 on SM 8.9",
            block=16,
            fraction=13,
            kept=13,
            floor=-132,
            chain=128,
            source="arXiv 2512.07004 (Khattak and Mikaitis); mmaemu 0.1.0, bit for bit on an RTX 4060",
            unknown="whether a call splits K over blocks of threads, and so adds its sums in another order",
        ),
        Accumulator(
            name="blackwell",
            instruction="tcgen05.mma of FP8 on a B200",
            block=32,
            fraction=25,
            kept=23,
            floor=-133,
            chain=0,
            source="arXiv 2511.10909 (Xie et al.), which finds 25 bits of fraction where Hopper has 13",
            unknown="how cuBLAS adds sums of several instructions; nobody has replayed its products bit for bit",
        ),
        Accumulator(
            name="mi300",
            instruction="v_mfma_f32_16x16x32 and 32x32x16 of FP8 on CDNA 3 (MI300)",
            block=16,
            fraction=24,
            kept=23,
            floor=-126,
            joined=31,
            chain=0,
            formats="fnuz",
            source="arXiv 2511.10909 (Xie et al.) and their simulator MMA-Sim: 24 and 31 bits of fraction for CDNA 3",
            unknown="in which order hipBLASLt hands K to the instruction, and how it adds sums of several; MI350's",
        ),
    )
}


def get_accumulator(name: str) -> Accumulator:
    """A row of `ACCUMULATORS`. UserError for another name."""
    if name not in ACCUMULATORS:
        raise UserError(f"unknown accumulator {name!r}: one of {', '.join(ACCUMULATORS)}")
    return ACCUMULATORS[name]


def check_formats(accumulator: Accumulator, formats: Sequence[str]) -> None:
    """UserError for a format whose codes this tensor core does not take."""
    taken = sorted(set(get_format_set(accumulator.formats).values()))
    others = [name for name in formats if name not in taken]
    if others:
        raise UserError(
            f"accumulate={accumulator.name} sums codes of {' and '.join(taken)}, not of {others[0]}: "
            f"formats={accumulator.formats}"
        )


def with_accumulate(scaling: str, name: str) -> str:
    """The text of an FP8 scaling with the sums of a tensor core; unchanged where it says so already.

    UserError for an unknown name, and for a text that says another one.
    """
    get_accumulator(name)
    _, said, rest = scaling.partition("accumulate=")
    if not said:
        return f"{scaling}{',' if ':' in scaling else ':'}accumulate={name}"
    if rest.partition(",")[0] != name:
        raise UserError(f"scaling {scaling} says whose sums are imitated: leave --accumulate {name} out")
    return scaling


def dot(a: Sequence[int], b: Sequence[int], formats: tuple[str, str], accumulator: Accumulator, *, fast: bool) -> float:
    """One sum of products of codes, in integers. a, b: codes as bytes, none of them NaN or infinity."""
    chain = len(a) if fast or not accumulator.chain else accumulator.chain
    parts = [[_parts(code, FORMATS[name]) for code in codes] for codes, name in zip((a, b), formats, strict=True)]
    products = [(m * n, e + f) for (m, e), (n, f) in zip(*parts, strict=True)]
    behind = sum(FORMATS[name].mantissa_bits for name in formats)  # bits of a product below its exponent
    if accumulator.joined:
        return _joined(products, behind, accumulator)
    total = np.float32(0)
    for first in range(0, len(products), max(chain, 1)):
        sum_so_far = (0, 0)  # significand, and the exponent of its last bit
        for start in range(first, min(first + chain, len(products)), accumulator.block):
            block = products[start : min(start + accumulator.block, first + chain)]
            sum_so_far = _add(sum_so_far, block, behind, accumulator)
        significand, exponent = sum_so_far
        value = np.float32(math.ldexp(significand, exponent))
        total = value if first == 0 else np.float32(total + value)
    return float(total)


def _add(
    sum_so_far: tuple[int, int], block: Sequence[tuple[int, int]], behind: int, accumulator: Accumulator
) -> tuple[int, int]:
    """The sum of a block and what was there before."""
    terms = [(product, exponent - behind, exponent) for product, exponent in block if product]
    significand, last = sum_so_far
    if significand:
        terms.append((significand, last, last + abs(significand).bit_length() - 1))
    unit = max([accumulator.floor, *(exponent for *_, exponent in terms)]) - accumulator.fraction
    total = sum(_shifted(number, last - unit) for number, last, _ in terms)
    more = max(abs(total).bit_length() - 1 - accumulator.kept, 0)
    return _shifted(total, -more), unit + more


def _joined(products: Sequence[tuple[int, int]], behind: int, accumulator: Accumulator) -> float:
    """The sum of products, (significand, exponent) each, where blocks join the sum so far."""
    fraction, joined = accumulator.fraction, accumulator.joined
    sum_so_far = np.float32(0)
    for start in range(0, len(products), accumulator.block):
        block = products[start : start + accumulator.block]
        (even, exponent), (odd, other) = (_half(block[first::2], behind, accumulator) for first in (0, 1))
        largest = max(exponent, other)
        total = (even >> (largest - exponent)) + (odd >> (largest - other))  # Python's >> rounds down
        before = max(math.frexp(sum_so_far)[1] - 1, accumulator.floor) if sum_so_far else accumulator.floor
        significand = int(math.ldexp(float(sum_so_far), fraction - before))
        top = max(largest, before)
        added = (total << (joined - fraction)) >> (top - largest)
        if top - before <= fraction + 1:
            added += (significand >> (top - before)) << (joined - fraction)
        sum_so_far = np.float32(math.ldexp(added, top - joined))
    return float(sum_so_far)


def _half(products: Sequence[tuple[int, int]], behind: int, accumulator: Accumulator) -> tuple[int, int]:
    """The sum of half a block, in units of `fraction` bits below its largest exponent, and this exponent."""
    largest = max([accumulator.floor, *(exponent for product, exponent in products if product)])
    up = accumulator.fraction - behind - largest
    return sum(_shifted(product, up + exponent) for product, exponent in products), largest


def _shifted(number: int, left: int) -> int:
    """`number * 2**left`, towards zero."""
    magnitude = abs(number) << left if left >= 0 else abs(number) >> -left
    return -magnitude if number < 0 else magnitude


def _parts(code: int, fmt: Format) -> tuple[int, int]:
    """A code's significand, and the exponent of a first bit in front of its mantissa bits."""
    field, mantissa = divmod(code & 0x7F, 1 << fmt.mantissa_bits)
    magnitude = mantissa | (1 << fmt.mantissa_bits if field else 0)
    return -magnitude if code & 0x80 else magnitude, max(field, 1) - fmt.bias
