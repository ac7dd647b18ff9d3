"""What every command says that puts a model into FP8: which model, which formats, and what stays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.system.settings import argument, setting

SKIP = "Keep layers whose name matches out of FP8: down_proj, layers.0.*. Repeatable."


def _skip_in_vain(settings: "Conversion") -> str | None:
    if any(text not in PRECISIONS and text != STORED for text in settings.wanted):
        return None
    return f"--skip keeps layers out of FP8, to which {_said(settings)} converts none: leave it out"


def _formats_in_vain(settings: "Conversion") -> str | None:
    if any(text not in PRECISIONS and text != STORED and "formats=" not in text for text in settings.wanted):
        return None
    return f"--formats is for FP8 scalings without formats of their own, not for {_said(settings)}"


def every_in_vain(settings: Any) -> str | None:
    """Why the interval of records would not be read, if it would not."""
    if settings.every == 0 or any(text not in PRECISIONS for text in settings.wanted):
        return None
    return f"--every is for records of FP8 layers, and {_said(settings)} has none: leave it out"


def _said(settings: "Conversion") -> str:
    return " and ".join(settings.wanted)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model that a command is about."""

    model: str = argument("A name from `octoscale models`, a checkpoint folder, a .gguf file, or a hub id.")


@dataclass(frozen=True, kw_only=True)
class Conversion(Subject):
    """A model that goes to FP8, or to high precision for comparison."""

    formats: str = setting("ocp", "ocp (e4m3fn, e5m2) or fnuz (e4m3fnuz, e5m2fnuz).", in_vain=_formats_in_vain)
    skip: Sequence[str] = setting((), SKIP, in_vain=_skip_in_vain)

    @property
    def wanted(self) -> Sequence[str]:
        """The scalings that are asked for."""
        raise NotImplementedError


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

    @property
    def wanted(self) -> Sequence[str]:
        """The one scaling."""
        return (self.scaling,)
