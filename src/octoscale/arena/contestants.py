"""Who is in the arena: scalings, by the words of --scaling, and over what each of their scales reaches.

A contestant is a row of data. High precision is not among them: it is what each one is compared with. `cscale` without
a number stands for the best constant of a range.
"""

from dataclasses import dataclass

#: The contestant whose constant is looked for.
BEST_CONSTANT = "cscale"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """scaling: as on the command line. scales: over which of a weight's values one reaches, and how it is chosen."""

    scaling: str
    scales: str

    @property
    def is_best_constant(self) -> bool:
        """Whether its constant is still to be found."""
        return self.scaling == BEST_CONSTANT


CONTESTANTS = (
    Contestant(scaling="amax", scales="a tensor, just in time"),
    Contestant(scaling=BEST_CONSTANT, scales="the model, one constant"),
    Contestant(scaling="delayed", scales="a tensor, from the last 16 steps"),
    Contestant(scaling="amax:row", scales="a row"),
    Contestant(scaling="amax:block", scales="a block of 128 x 128"),
    Contestant(scaling="amax:mx", scales="32 values, rounded down"),
    Contestant(scaling="amax:mx,round=up", scales="32 values, rounded up"),
)


def contestant(scaling: str) -> Contestant:
    """The row of a scaling; of one that is none of ours, without words on its scales."""
    rows = (row for row in CONTESTANTS if row.scaling == scaling)
    return next(rows, Contestant(scaling=scaling, scales="-"))


def with_constant(bias: int, *, trains: bool) -> str:
    """The scaling of a constant. Where gradients are, they have each their own scale: no constant of weights fits."""
    return f"cscale:weight={bias},input={bias}" if trains else f"cscale:{bias}"
