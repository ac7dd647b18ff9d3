"""A setting is stated once, as the field of a frozen dataclass: its name, its default, and what it means in words.

    @dataclass(frozen=True, kw_only=True)
    class Validation:
        model: str = argument("A name from `octoscale models`, or a checkpoint folder.")
        window: int = setting(512, "Tokens in a window; each is one forward pass.")
        by_layer: bool = setting(False, "Layer by layer over all windows.", option="--batch")
        limit: int | None = setting(None, "Use only the first N questions.", in_vain=without_questions)

From Python it is a dataclass like any other. The command line makes its options of the same fields (cli/options.py).
What was typed there, and nothing would read, is an error: what was asked for is never passed over.
"""

from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, field, fields
from typing import Any

from octoscale.system.errors import UserError


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    option: str | None = None,
    in_vain: Callable[[Any], str | None] | None = None,
) -> Any:
    """A field with a default, and its help.

    option: how the command line spells it, if not as the field is named. in_vain: of the settings, why nothing would
    read this one, and what to do; None if it is read.
    """
    return field(default=default, metadata={"help": help, "option": option, "in_vain": in_vain})


def argument(help: str) -> Any:
    """A field without a default, which a command takes by its position, not as an option."""
    return field(metadata={"help": help, "positional": True})


def help_of(stated: "Field[Any]") -> str:
    """What a field means. ValueError for one that does not say."""
    if not stated.metadata.get("help"):
        raise ValueError(f"the setting {stated.name} has no help")
    return str(stated.metadata["help"])


def check_typed(settings: Any, typed: Collection[str]) -> None:
    """UserError if one of these fields was typed in vain."""
    for stated in fields(settings):
        in_vain = stated.metadata.get("in_vain")
        why = in_vain(settings) if in_vain is not None and stated.name in typed else None
        if why is not None:
            raise UserError(why)


def check_seed(seed: int) -> None:
    """UserError for a seed that torch's generators do not take."""
    if not -(2**63) <= seed < 2**64:
        raise UserError(f"seed {seed}: a whole number of 64 bits")
