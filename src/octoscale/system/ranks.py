"""Which process this is of those that were started together: torchrun, accelerate and SLURM say so, by variables."""

import os


def num_ranks() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that prints and writes for all."""
    return int(os.environ.get("RANK", "0")) == 0
