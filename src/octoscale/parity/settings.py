"""What to compare the sums of: the words, and the defaults, of the command parity."""

from collections.abc import Sequence
from dataclasses import dataclass

from octoscale.conversion.settings import Conversion
from octoscale.numerics.formats import PRECISIONS
from octoscale.system.errors import UserError
from octoscale.system.settings import check_seed, setting
from octoscale.validation.settings import Validation

#: The shortest sum of made operands; each next one is twice as long.
SHORTEST = 64

#: No sum is longer: its operands are made in memory.
_LONGEST = 2**20


@dataclass(frozen=True, kw_only=True)
class Parity(Conversion):
    """A model, a text for it to read, and the tensor cores whose sums are imitated; see `octoscale parity --help`."""

    scaling: str = setting("amax", "The FP8 scaling: amax, amax:margin=1, cscale:-1.")
    accumulate: str = setting("hopper", "Whose sums are imitated, with commas: hopper, ada, blackwell, mi300.")
    text: str = setting("pydoc", "A UTF-8 text file, or pydoc: the model reads it.")
    tokens: int = setting(1024, "How many tokens of the text to read.")
    window: int = setting(512, "Tokens in a window; each is one forward pass.")
    rows: int = setting(64, "Tokens, spread over the text, whose products are computed in each way.")
    gradients: bool = setting(False, "Compare the products of one backward pass, too: those of the first window.")
    longest: int = setting(16384, f"Sums of made operands have {SHORTEST} products, twice as many, ... up to this.")
    seed: int = setting(0, "Of the made operands.")
    dtype: str = setting("bf16", "The model's own precision: bf16, fp16 or fp32.")

    @property
    def wanted(self) -> Sequence[str]:
        """The one scaling."""
        return (self.scaling,)

    @property
    def accumulators(self) -> list[str]:
        """What --accumulate names."""
        return [name.strip() for name in self.accumulate.split(",")]

    @property
    def lengths(self) -> list[int]:
        """Of the sums of made operands."""
        return [length for k in range(40) if (length := SHORTEST << k) <= self.longest]

    @property
    def imitating(self) -> list[str]:
        """The scaling under each of the tensor cores."""
        from octoscale.numerics.accumulators import with_accumulate

        return [with_accumulate(self.scaling, name) for name in self.accumulators]

    def validation(self) -> Validation:
        """What is asked of perplexities: high precision, the scaling with float32's sums, and with each other's."""
        return Validation(
            model=self.model,
            formats=self.formats,
            skip=self.skip,
            scalings=(self.dtype, self.scaling, *self.imitating),
            text=self.text,
            tokens=self.tokens,
            window=self.window,
            dtype=self.dtype,
            every=0,
        )

    def __post_init__(self) -> None:
        from octoscale.numerics.accumulators import get_accumulator

        for name in self.accumulators:
            get_accumulator(name)
        if len(set(self.accumulators)) < len(self.accumulators):
            raise UserError(f"--accumulate {self.accumulate}: each name once")
        if self.scaling in PRECISIONS:
            raise UserError(f"scaling {self.scaling} is no FP8: tensor cores sum it in another way")
        if "accumulate=" in self.scaling:
            raise UserError(f"scaling {self.scaling}: here --accumulate names whose sums are imitated")
        if self.dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {self.dtype!r}: one of {', '.join(PRECISIONS)}")
        if self.gradients and self.dtype == "fp16":
            raise UserError("--gradients with dtype fp16: float16 flushes them; take bf16 or fp32")
        if self.rows < 1:
            raise UserError(f"rows={self.rows}: must be at least 1")
        if not SHORTEST <= self.longest <= _LONGEST:
            raise UserError(f"longest={self.longest}: the products of a sum, from {SHORTEST} to {_LONGEST:,}")
        check_seed(self.seed)
