"""What to train: one place for the words, and the defaults, of the command train."""

from collections.abc import Sequence
from dataclasses import dataclass

from octoscale.formats import PRECISIONS

#: The precisions that Trainer offers on every device -> the argument that turns its autocast on.
TRAINING_DTYPES = {"bf16": {"bf16": True}, "fp32": {}}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train. Texts as on the command line; see `octoscale train --help`.

    A step is `accumulate` micro-batches of `batch` windows of `window` tokens. The last `validation` part of the text's
    windows is kept for validation. every: histograms of exponents on each N-th step; 0 for never.
    """

    model: str
    scaling: str = "amax"
    text: str = "pydoc"
    tokens: int | None = None
    window: int = 256
    steps: int = 200
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 4e-5
    validation: float = 0.1
    formats: str = "ocp"
    skip: Sequence[str] = ()
    dtype: str = "bf16"
    seed: int = 0
    every: int = 10

    def __post_init__(self) -> None:
        if self.dtype not in TRAINING_DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r} for training: one of {', '.join(TRAINING_DTYPES)}")
        if self.scaling in PRECISIONS and self.scaling != self.dtype:
            raise ValueError(
                f"scaling {self.scaling} is no FP8, and dtype {self.dtype} is another precision: --dtype {self.scaling}"
            )
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation={self.validation}: the part of the text kept for validation, between 0 and 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning rate {self.learning_rate}: must be above 0")
        if self.every < 0:
            raise ValueError(f"every={self.every}: histograms are recorded every N steps, N >= 1, or never, 0")
