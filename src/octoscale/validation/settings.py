"""What to validate: one place for the words, and the defaults, of the commands validate, sweep and demo."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octoscale.numerics.formats import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to validate. Texts as on the command line; see `octoscale validate --help`.

    scalings: none stands for the model in its own precision, `dtype`, and FP8-AMAX.
    """

    model: str
    scalings: Sequence[str] = ()
    text: str = "pydoc"
    window: int = 512
    tokens: int | None = None
    formats: str = "ocp"
    skip: Sequence[str] = ()
    dtype: str = "bf16"
    every: int = 16
    task: Path | None = None
    limit: int | None = None
    by_layer: bool = False
    fp8_head: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in PRECISIONS:
            raise ValueError(f"unknown dtype {self.dtype!r}: one of {', '.join(PRECISIONS)}")
        if not self.scalings:
            object.__setattr__(self, "scalings", (self.dtype, "amax"))
        others = [scaling for scaling in self.scalings if scaling in PRECISIONS]
        if others and self.dtype not in others:
            raise ValueError(
                f"scaling {others[0]} is no FP8, and dtype {self.dtype} is another precision: --dtype {others[0]}"
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit={self.limit}: must be at least 1")
        if self.by_layer and self.task is not None:
            raise ValueError("questions are asked one by one, not layer by layer: leave --batch or --task out")
        if self.every < 0:
            raise ValueError(f"every={self.every}: histograms are recorded every N windows, N >= 1, or never, 0")
