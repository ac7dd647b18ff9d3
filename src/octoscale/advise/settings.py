"""What to advise on: the words, and the defaults, of the command advise."""

import math
from dataclasses import dataclass

from octoscale.conversion.settings import Conversion
from octoscale.numerics.formats import PRECISIONS
from octoscale.system.errors import UserError
from octoscale.system.settings import setting

#: Precisions of a model that gradients flow through: float16 flushes them.
DTYPES = ("fp32", "bf16")


@dataclass(frozen=True, kw_only=True)
class Advice(Conversion):
    """A model, what is planned for it, and the texts to ask it with; see `octoscale advise --help`.

    The search reads `tokens` of `text`; what it finds is verified on as many of `verify_text`, or on the next ones of
    `text`. bound: how much larger the perplexity may be.
    """

    scaling: str = setting("amax", "The scaling to advise on: amax, amax:margin=1, amax:row, cscale:-1.")
    text: str = setting("pydoc", "A UTF-8 text file, or pydoc: the search reads it.")
    verify_text: str | None = setting(None, "Another text, which verifies. Unless given, the next part of the same.")
    tokens: int = setting(4096, "Tokens that the search reads, and as many that verify.")
    window: int = setting(512, "Tokens in a window; each is one forward pass.")
    bound: str = setting("1%", "By how much FP8 may raise the perplexity: 1%, or 0.01.")
    keep_at_most: int = setting(10, "Layers that may stay in high precision.")
    dtype: str = setting("fp32", "The model's own precision: fp32 (less noise), or bf16.")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The one scaling."""
        return (self.scaling,)

    @property
    def limit(self) -> float:
        """The bound as a share: 0.01 for 1%. UserError for a text that is none."""
        number, percent = self.bound.strip().removesuffix("%"), self.bound.strip().endswith("%")
        try:
            value = float(number) / (100 if percent else 1)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf or (not percent and value >= 1):
            raise UserError(f"cannot read the bound {self.bound!r}: write a share above 0, as 1% or 0.01")
        return value

    def __post_init__(self) -> None:
        self.limit  # noqa: B018  raises if the text is none
        if self.scaling in PRECISIONS:
            raise UserError(f"scaling {self.scaling} is no FP8: there is nothing to advise on")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype {self.dtype!r}: advise computes gradients, in {' or '.join(DTYPES)}")
        if self.keep_at_most < 1:
            raise UserError(f"keep_at_most={self.keep_at_most}: must be at least 1")
        if self.window >= 2 and self.tokens < 2 * self.window:
            raise UserError(
                f"{self.tokens} tokens do not fill two windows of {self.window}, which an interval needs: "
                "raise --tokens or lower --window"
            )
