"""The FP8 formats, each one row of data.

A format is three numbers and a rule for its special codes. Everything else (largest value, smallest normal,
which codes are NaN) follows from the row, so a number stands here once and cannot disagree with itself.

    value(code) = (-1)**sign * 2**(exponent - bias) * 1.mantissa       exponent field > 0
                  (-1)**sign * 2**(1 - bias)        * 0.mantissa       exponent field = 0 (subnormal)

`special` says what the codes at the edge mean:

    ieee   the highest exponent field holds infinity (mantissa 0) and NaN (any other mantissa)
    fn     finite: no infinity; only the all-ones code, with either sign, is NaN
    fnuz   finite, one zero: no infinity; the code of negative zero is the only NaN

Sources: `e4m3fn`, `e5m2`: Micikevicius et al. 2022 and the OCP 8-bit floating point specification.
`e4m3fnuz`, `e5m2fnuz`: Noune et al. 2022, the formats of Perez et al. 2023 (Table 7) and of AMD's MI300.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from octoscale.system.errors import UserError

Role = Literal["weight", "input", "grad_output"]
ROLES: tuple[Role, ...] = ("weight", "input", "grad_output")
#: The products of a linear layer, by their result.
RESULTS = ("output", "grad_input", "grad_weight")


@dataclass(frozen=True, kw_only=True)
class Format:
    """An 8-bit floating-point format: one sign bit, `exponent_bits`, `mantissa_bits`, an exponent `bias`.

    UserError where these are not 8 bits.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    special: Literal["ieee", "fn", "fnuz"]
    paper_name: str

    def __post_init__(self) -> None:
        bits = 1 + self.exponent_bits + self.mantissa_bits
        if bits != 8:
            raise UserError(
                f"format {self.name!r} would have {bits} bits, a sign, {self.exponent_bits} of exponent and "
                f"{self.mantissa_bits} of mantissa: codes have 8, so exponent_bits + mantissa_bits has to be 7"
            )

    @property
    def torch_name(self) -> str:
        """The name of torch's dtype for this format, e.g. `float8_e4m3fn`."""
        return f"float8_{self.name}"

    @property
    def has_inf(self) -> bool:
        """Whether the format has codes for infinity."""
        return self.special == "ieee"

    @property
    def has_negative_zero(self) -> bool:
        """Whether the code 0x80 is -0 (where it is not, it is NaN)."""
        return self.special != "fnuz"

    @property
    def max_code(self) -> int:
        """The code of the largest finite value."""
        return {"ieee": (1 << 7) - (1 << self.mantissa_bits) - 1, "fn": 0x7E, "fnuz": 0x7F}[self.special]

    @cached_property
    def nan_codes(self) -> frozenset[int]:
        """Every code that means NaN."""
        if self.special == "fnuz":
            return frozenset({0x80})
        first = self.max_code + (2 if self.has_inf else 1)
        return frozenset(code | sign for code in range(first, 0x80) for sign in (0x00, 0x80))

    @property
    def nan_code(self) -> int:
        """The one NaN code that `encode` writes: 0x80 (fnuz), else 0x7F, whatever the sign of the NaN."""
        return 0x80 if self.special == "fnuz" else 0x7F

    @cached_property
    def inf_codes(self) -> frozenset[int]:
        """The codes of +inf and -inf; empty where the format has none."""
        return frozenset({self.max_code + 1, (self.max_code + 1) | 0x80}) if self.has_inf else frozenset()

    @property
    def max(self) -> float:
        """The largest finite value."""
        exponent_field, mantissa = divmod(self.max_code, 1 << self.mantissa_bits)
        return float((1 + mantissa / (1 << self.mantissa_bits)) * 2.0 ** (exponent_field - self.bias))

    @property
    def max_exponent(self) -> int:
        """The exponent of the largest finite value: floor(log2(max))."""
        return (self.max_code >> self.mantissa_bits) - self.bias

    @property
    def min_normal_exponent(self) -> int:
        """The exponent of the smallest normal value."""
        return 1 - self.bias

    @property
    def min_subnormal_exponent(self) -> int:
        """The exponent of the smallest positive value."""
        return 1 - self.bias - self.mantissa_bits


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(name="e4m3fn", exponent_bits=4, mantissa_bits=3, bias=7, special="fn", paper_name="E4 (b)"),
        Format(name="e5m2", exponent_bits=5, mantissa_bits=2, bias=15, special="ieee", paper_name="E5 (b)"),
        Format(name="e4m3fnuz", exponent_bits=4, mantissa_bits=3, bias=8, special="fnuz", paper_name="E4 (a)"),
        Format(name="e5m2fnuz", exponent_bits=5, mantissa_bits=2, bias=16, special="fnuz", paper_name="E5 (a)"),
    )
}

#: A format set gives each role its format: E4 for weights and inputs, E5 for gradients (Perez et al., section 3).
FORMAT_SETS: dict[str, dict[Role, str]] = {
    "ocp": {"weight": "e4m3fn", "input": "e4m3fn", "grad_output": "e5m2"},
    "fnuz": {"weight": "e4m3fnuz", "input": "e4m3fnuz", "grad_output": "e5m2fnuz"},
}


#: What stands in a recipe's place when there is no FP8 at all -> the torch dtype that it means.
PRECISIONS: dict[str, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

#: The scaling of a checkpoint whose weights are in FP8 already: its own.
STORED = "stored"


def get_format(name: str) -> Format:
    """The format called `name`; ValueError, naming the known ones, if there is none."""
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}: the formats are {', '.join(FORMATS)}")
    return FORMATS[name]


def get_format_set(name: str) -> dict[Role, str]:
    """The format set called `name` (role -> format name); ValueError if there is none."""
    if name not in FORMAT_SETS:
        raise UserError(f"unknown format set {name!r}: the format sets are {', '.join(FORMAT_SETS)}")
    return FORMAT_SETS[name]
