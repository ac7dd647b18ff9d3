"""Which process this is of those that were started together: torchrun and accelerate say so, by variables."""

import os


def num_ranks() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process is the one that prints and writes for all."""
    return rank() == 0
