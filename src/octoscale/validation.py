"""What to validate: one place for the words, and the defaults, of the commands validate, sweep and demo."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octoscale.formats import PRECISIONS

#: The scaling of a checkpoint whose weights are in FP8 already: its own.
STORED = "stored"
DEFAULT_SCALINGS = ("bf16", "amax")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What to validate. Texts as on the command line; see `octoscale validate --help`."""

    model: str
    scalings: Sequence[str] = DEFAULT_SCALINGS
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
        if self.every < 0:
            raise ValueError(f"every={self.every}: histograms are recorded every N windows, N >= 1, or never, 0")
