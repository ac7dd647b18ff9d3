"""What to plan: one place for the words, and the defaults, of the command plan."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from octoscale.conversion.settings import Conversion, FromFile, said_by_recipe
from octoscale.numerics.formats import PRECISIONS
from octoscale.system.errors import UserError
from octoscale.system.settings import setting
from octoscale.training.settings import AMAX_GROUPS, TRAINING_DTYPES

#: Bytes, by the unit that a text of memory ends with.
UNITS = {
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}

#: More than there are of these anywhere.
_MOST = {"gpus": 2**17, "seq": 2**24, "batch": 2**16, "accumulate": 2**32}


def _amax_group_in_vain(settings: "Planning") -> str | None:
    if settings.scaling in PRECISIONS:
        return f"--amax-group is for FP8 layers, and {settings.scaling} has none: leave it out"
    return None


@dataclass(frozen=True, kw_only=True)
class Planning(FromFile, Conversion):
    """What to plan. Texts as on the command line; see `octoscale plan --help`.

    A step is `accumulate` micro-batches of `batch` windows of `seq` tokens; None: one for each replica. gpus: ranks to
    choose a mesh from; None: those of `parallel`, or 8. bandwidth: GB that a rank sends in a second.
    """

    gpus: int | None = setting(None, "Ranks to choose from.  [default: those of --parallel, or 8]")
    memory: str = setting("80GB", "Of a rank: 80GB is 80e9 bytes, 80GiB is 80 * 2**30.")
    scaling: str = setting(
        "amax",
        "bf16, fp16, fp32 (no FP8, and --dtype of that name), or as in validate: one.",
        in_vain=said_by_recipe("--scaling"),
    )
    seq: int | None = setting(None, "Tokens in a window.  [default: those of the model, at most 4096]")
    batch: int = setting(1, "Windows in a micro-batch.")
    accumulate: int | None = setting(
        None, "Micro-batches in a step, of all ranks together.  [default: one for each replica]"
    )
    parallel: str | None = setting(
        None, "This mesh, as fsdp=4,tp=2,replicate=2.  [default: the smallest that fits, of so many GPUs]"
    )
    amax_group: str = setting(
        "replica",
        "Scales of inputs and gradients on many ranks: each replica its own, or one for the world.",
        in_vain=_amax_group_in_vain,
    )
    dtype: str = setting("bf16", "Of a training: bf16 or fp16 (autocast on float32 weights), or fp32.")
    bandwidth: float = setting(50.0, "GB/s that a rank sends: 50 is one network adapter of 400 Gb/s for each GPU.")

    @property
    def wanted(self) -> Sequence[str]:
        """The one scaling."""
        return (self.scaling,)

    @property
    def memory_bytes(self) -> int:
        """The memory of a rank. UserError for a text that says none."""
        return bytes_of(self.memory)

    def __post_init__(self) -> None:
        from octoscale.numerics.recipe import parse_scaling

        self.take_recipe("scaling")
        parse_scaling(self.scaling, self.formats, self.skip)
        bytes_of(self.memory)
        if self.dtype not in TRAINING_DTYPES:
            raise UserError(f"unknown dtype {self.dtype!r} for training: one of {', '.join(TRAINING_DTYPES)}")
        if self.scaling in PRECISIONS and self.scaling != self.dtype:
            raise UserError(
                f"scaling {self.scaling} is no FP8, and dtype {self.dtype} is another precision: --dtype {self.scaling}"
            )
        if self.amax_group not in AMAX_GROUPS:
            raise UserError(f"unknown amax group {self.amax_group!r}: one of {', '.join(AMAX_GROUPS)}")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise UserError(f"--{name} {value}: must be at least 1, and at most {most:,}")
        if not 0 < self.bandwidth < math.inf:
            raise UserError(f"--bandwidth {self.bandwidth}: GB/s, above 0, and finite")


def bytes_of(text: str) -> int:
    """80GB, 80GiB, 1.5TB. UserError for any other text."""
    for unit, size in UNITS.items():
        number = text.strip().removesuffix(unit).strip()
        if number != text.strip() and number.replace(".", "", 1).isdecimal() and 0 < float(number) < math.inf:
            return int(float(number) * size)
    raise UserError(f"--memory {text}: a number and its unit, as in 80GB, 80GiB or 1.5TB")
