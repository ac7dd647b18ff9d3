"""What every command says that puts a model into FP8: which model, which formats, and what stays out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks
from octoscale.system.settings import argument, setting

SKIP = "Keep layers whose name matches out of FP8: down_proj, layers.0.*. Repeatable."
RECIPE = "A recipe file, as octoscale advise writes one: it says scaling, formats and skip."


def said_by_recipe(option: str) -> Callable[[Any], str | None]:
    """Why an option would not be read beside a recipe file."""

    def in_vain(settings: Any) -> str | None:
        recipe = getattr(settings, "recipe", None)
        return None if recipe is None else f"--recipe {recipe} says scaling, formats and skip: leave {option} out"

    return in_vain


def _skip_in_vain(settings: "Conversion") -> str | None:
    if (why := said_by_recipe("--skip")(settings)) is not None:
        return why
    if any(text not in PRECISIONS and text != STORED for text in settings.wanted):
        return None
    return f"--skip keeps layers out of FP8, to which {_said(settings)} converts none: leave it out"


def _formats_in_vain(settings: "Conversion") -> str | None:
    if (why := said_by_recipe("--formats")(settings)) is not None:
        return why
    if any(text not in PRECISIONS and text != STORED and "formats=" not in text for text in settings.wanted):
        return None
    return f"--formats is for FP8 scalings without formats of their own, not for {_said(settings)}"


def every_in_vain(settings: Any) -> str | None:
    """Why the interval of records would not be read, if it would not."""
    if settings.every == 0 or any(text not in PRECISIONS for text in settings.wanted):
        return None
    return f"--every is for records of FP8 layers, and {_said(settings)} has none: leave it out"


def parallel_in_vain(_: Any) -> str | None:
    """Why the words of many ranks would not be read, if they would not."""
    if num_ranks() > 1:
        return None
    return "--parallel shares a model among ranks, and there is one: start octoscale with torchrun --nproc-per-node N"


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
class FromFile:
    """Settings that a recipe file may say instead: their scaling, and what stays out of FP8."""

    recipe: Path | None = setting(None, RECIPE)

    def take_recipe(self, field: str, *before: str) -> None:
        """Put what the file says into `field`, after `before` in a list of scalings, and into skip.

        UserError where the settings say one of them as well; whatever `read_recipe` raises.
        """
        if self.recipe is None:
            return
        from octoscale.numerics.recipe_file import read_recipe

        recipe = read_recipe(self.recipe)
        told = {field: (*before, recipe.name) if before else recipe.name, "skip": recipe.skip}
        for stated in fields(self):
            value = getattr(self, stated.name)
            if stated.name in (*told, "formats") and value not in (stated.default, told.get(stated.name)):
                raise UserError(str(said_by_recipe(stated.metadata["option"] or f"--{stated.name}")(self)))
        for name, value in told.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class Head:
    """What becomes of the LM head."""

    fp8_head: bool = setting(
        False,
        "Put the head's weight into FP8 in memory, and an embedding that shares it: less memory, more perplexity.",
    )


@dataclass(frozen=True, kw_only=True)
class Shared:
    """How ranks share a model in inference."""

    parallel: str | None = setting(
        None,
        "Under torchrun: tp=N, the ranks that share each product, each with its part of the weights.  "
        "[default: tp over all]",
        in_vain=parallel_in_vain,
    )


@dataclass(frozen=True, kw_only=True)
class Inspection(FromFile, Conversion):
    """What to say of a model's modules; see `octoscale inspect --help`."""

    scaling: str = setting("amax", "As in validate.", in_vain=said_by_recipe("--scaling"))
    run: bool = setting(False, "Load the weights and call the model once: name FP8 layers that never ran.")

    @property
    def wanted(self) -> Sequence[str]:
        """The one scaling."""
        return (self.scaling,)

    def __post_init__(self) -> None:
        self.take_recipe("scaling")
