"""A setting is stated once, as the field of a frozen dataclass: its name, its default, and what it means in words.

    @dataclass(frozen=True, kw_only=True)
    class Validation:
        model: str = argument("A name from `octoscale models`, or a checkpoint folder.")
        window: int = setting(512, "Tokens in a window; each is one forward pass.")
        by_layer: bool = setting(False, "Layer by layer over all windows.", option="--batch")

From Python it is a dataclass like any other. The command line makes its options of the same fields (cli/options.py).
"""

from dataclasses import MISSING, Field, field
from typing import Any


def setting(default: Any = MISSING, help: str = "", *, option: str | None = None) -> Any:
    """A field with a default, and its help. option: how the command line spells it, if not as the field is named."""
    return field(default=default, metadata={"help": help, "option": option})


def argument(help: str) -> Any:
    """A field without a default, which a command takes by its position, not as an option."""
    return field(metadata={"help": help, "positional": True})


def help_of(stated: "Field[Any]") -> str:
    """What a field means. ValueError for one that does not say."""
    if not stated.metadata.get("help"):
        raise ValueError(f"the setting {stated.name} has no help")
    return str(stated.metadata["help"])
