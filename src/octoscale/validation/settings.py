"""What to validate: one place for the words, and the defaults, of the commands validate, sweep and demo."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from octoscale.conversion.settings import Conversion, FromFile, Head, every_in_vain, said_by_recipe
from octoscale.numerics.formats import PRECISIONS
from octoscale.system.errors import UserError
from octoscale.system.settings import setting

#: Tokens that the demo and a sweep read, unless told otherwise.
DEMO_TOKENS, QUICK_TOKENS = 8192, 1024


def _limit_in_vain(settings: "Measurement") -> str | None:
    if settings.task is not None:
        return None
    return "--limit is for the questions of --task: give one, or leave it out"


@dataclass(frozen=True, kw_only=True)
class Measurement(Conversion):
    """A text, and questions, that a model is measured with."""

    text: str = setting("pydoc", "A UTF-8 text file, or pydoc: the help texts that come with Python.")
    window: int = setting(512, "Tokens in a window; each is one forward pass.")
    tokens: int | None = setting(None, "How many tokens of the text to read. All, if not given.")
    dtype: str = setting("bf16", "The model's own precision: bf16, fp16 or fp32.")
    every: int = setting(16, "Record histograms of exponents on each N-th window; 0 for never.", in_vain=every_in_vain)
    task: Path | None = setting(None, 'Also answer multiple-choice questions: JSON lines {"query", "choices", "gold"}.')
    limit: int | None = setting(None, "Use only the first N questions of --task.", in_vain=_limit_in_vain)


@dataclass(frozen=True, kw_only=True)
class Validation(FromFile, Head, Measurement):
    """What to validate. Texts as on the command line; see `octoscale validate --help`.

    scalings: none stands for the model in its own precision, `dtype`, and FP8-AMAX.
    """

    scalings: Sequence[str] = setting(
        (),
        "bf16, fp16, fp32 (no FP8), amax, amax:margin=3, cscale:-1, delayed:history=16. Repeat it to compare. "
        "Unless given: bf16 and amax; a checkpoint of FP8 weights has one only, its own.",
        option="--scaling",
        in_vain=said_by_recipe("--scaling"),
    )
    by_layer: bool = setting(
        False, "Layer by layer over all windows: each weight is read once. Larger than memory.", option="--batch"
    )

    @property
    def wanted(self) -> Sequence[str]:
        """The scalings."""
        return self.scalings

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {self.dtype!r}: one of {', '.join(PRECISIONS)}")
        self.take_recipe("scalings", self.dtype)
        if not self.scalings:
            object.__setattr__(self, "scalings", (self.dtype, "amax"))
        others = [scaling for scaling in self.scalings if scaling in PRECISIONS]
        if others and self.dtype not in others:
            raise UserError(
                f"scaling {others[0]} is no FP8, and dtype {self.dtype} is another precision: --dtype {others[0]}"
            )
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit={self.limit}: must be at least 1")
        if self.by_layer and self.task is not None:
            raise UserError("questions are asked one by one, not layer by layer: leave --batch or --task out")
        if self.every < 0:
            raise UserError(f"every={self.every}: histograms are recorded every N windows, N >= 1, or never, 0")


@dataclass(frozen=True, kw_only=True)
class Sweep(Measurement):
    """Which constants to look at; see `octoscale sweep --help`."""

    bias: str = setting("-8:6", "The CSCALE biases: a range -8:6, or a list -3,0,3.")
    tokens: int | None = setting(DEMO_TOKENS, "How many tokens of the text to read.")

    @property
    def wanted(self) -> Sequence[str]:
        """High precision, FP8-AMAX, and each constant."""
        return (self.dtype, "amax", *constants(self.bias))

    def validation(self) -> Validation:
        """The same as a validation: high precision, FP8-AMAX and each constant. ValueError for biases that are none."""
        shared = {field.name: getattr(self, field.name) for field in fields(Measurement)}
        return Validation(scalings=self.wanted, **shared)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo reads; see `octoscale demo --help`."""

    quick: bool = setting(False, "1,024 tokens and three biases: about a minute.")
    tokens: int | None = setting(None, f"Tokens of text: {DEMO_TOKENS}, or {QUICK_TOKENS} with --quick.")

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < Validation.window:
            raise UserError(
                f"--tokens {self.tokens}: the demo reads windows of {Validation.window} tokens, one at least"
            )

    def validation(self) -> Validation:
        """The same as a validation."""
        tokens = self.tokens if self.tokens is not None else QUICK_TOKENS if self.quick else DEMO_TOKENS
        biases = constants("-8,-1,6" if self.quick else "-8:6")
        return Validation(model="smollm2-135m", scalings=("bf16", "amax", *biases), tokens=tokens)


def constants(biases: str) -> list[str]:
    """The scalings that a range or a list of biases means, as in `parse_biases`."""
    return [f"cscale:{bias}" for bias in parse_biases(biases)]


def parse_biases(text: str) -> list[int]:
    """`-8:6` -> -8..6 with both ends; `-8,-1,6` -> these. ValueError for anything else, or an empty range."""
    try:
        if ":" in text:
            low, high = (int(part) for part in text.split(":"))
            biases = list(range(low, high + 1))
        else:
            biases = sorted({int(part) for part in text.split(",")})
    except ValueError:
        biases = []
    if not biases:
        raise UserError(f"cannot read the biases {text!r}: write a range from low to high, -8:6, or a list, -8,-1,6")
    return biases
