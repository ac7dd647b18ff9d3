"""What a checkpoint of random weights is to be; see `octoscale models --help`."""

from collections.abc import Callable
from dataclasses import dataclass

from octoscale.system.settings import check_seed, setting


def _only_to_materialize(option: str) -> "Callable[[Materialization], str | None]":
    return lambda settings: f"{option} is for --materialize" if settings.materialize is None else None


@dataclass(frozen=True, kw_only=True)
class Materialization:
    """A size by its name, or none: then there is nothing to write."""

    materialize: str | None = setting(None, "Write a checkpoint of random FP8 weights of this size to OUT.")
    layers: int | None = setting(None, "Cut it to so many decoder layers.", in_vain=_only_to_materialize("--layers"))
    seed: int = setting(0, "Of its weights.", in_vain=_only_to_materialize("--seed"))

    def __post_init__(self) -> None:
        check_seed(self.seed)
