"""What every command says that puts a model into FP8: which model, which formats, and what stays out."""

from collections.abc import Sequence
from dataclasses import dataclass

from octoscale.system.settings import argument, setting


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that a command is about."""

    model: str = argument("A name from `octoscale models`, a checkpoint folder, a .gguf file, or a hub id.")


@dataclass(frozen=True, kw_only=True)
class Skipping:
    """The layers that stay as they are."""

    skip: Sequence[str] = setting((), "Keep layers whose name matches out of FP8: down_proj, layers.0.*. Repeatable.")


@dataclass(frozen=True, kw_only=True)
class Conversion(Skipping, Subject):
    """A model that goes to FP8, or to high precision for comparison."""

    formats: str = setting("ocp", "ocp (e4m3fn, e5m2) or fnuz (e4m3fnuz, e5m2fnuz).")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What becomes of the LM head."""

    fp8_head: bool = setting(
        False,
        "Put the head's weight into FP8 in memory, and an embedding that shares it: less memory, more perplexity.",
    )


@dataclass(frozen=True, kw_only=True)
class Inspection(Conversion):
    """What to say of a model's modules; see `octoscale inspect --help`."""

    scaling: str = setting("amax", "As in validate.")
    run: bool = setting(False, "Load the weights and call the model once: name FP8 layers that never ran.")
