"""A recipe says what each role becomes: role -> (format, rule), and which modules stay as they are.

    Recipe.amax()                         FP8-AMAX, OCP formats
    Recipe.cscale(-1)                     FP8-CSCALE, one constant scale_bias
    Recipe.paper_training()               the paper's training: fnuz formats, margin 3
    Recipe.amax(skip=["down_proj"])       a pattern keeps modules out of FP8
    Recipe.amax().override(grad_output=Operand(format="e5m2", rule=Constant(8)))

Recipes are frozen: `dataclasses.replace` makes a changed one. On the command line a recipe is a short text,
`amax`, `amax:margin=3`, `cscale:-1`, `delayed:history=16`; `bf16`, `fp16` and `fp32` stand for no FP8 at all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octoscale.numerics.formats import PRECISIONS, Role, get_format, get_format_set
from octoscale.numerics.scaling import Amax, Constant, Delayed, Rule
from octoscale.system.errors import UserError

#: Rule -> the parameters that its text must have, and those that it may have.
_PARAMETERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "amax": (frozenset(), frozenset({"margin"})),
    "cscale": (frozenset({"bias"}), frozenset()),
    "delayed": (frozenset(), frozenset({"history", "margin"})),
}
#: Of a parameter, its sign included; Python itself refuses to read more than 4,300.
_MAX_DIGITS = 10
_SCALING_FORMS = "amax, amax:margin=3, cscale:-1, delayed:history=16, bf16, fp16, fp32"


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What one role becomes: an FP8 format, by its exact name, and the rule that chooses its scale_bias."""

    format: str
    rule: Rule

    def __post_init__(self) -> None:
        get_format(self.format)

    def __str__(self) -> str:
        return f"{self.format} {self.rule}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The FP8 treatment of a model's linear layers. `name` is how the recipe is called in records and plots."""

    name: str
    weight: Operand
    input: Operand
    grad_output: Operand
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", _patterns(self.skip))

    def operand(self, role: Role) -> Operand:
        """The operand of a role."""
        return {"weight": self.weight, "input": self.input, "grad_output": self.grad_output}[role]

    @classmethod
    def amax(cls, formats: str = "ocp", margin: int = 0, skip: Iterable[str] = ()) -> "Recipe":
        """FP8-AMAX: each tensor's own scale, just in time (Perez et al. 2023, section 3)."""
        return cls._uniform(Amax(margin=margin), formats, skip)

    @classmethod
    def cscale(cls, bias: int, formats: str = "ocp", skip: Iterable[str] = ()) -> "Recipe":
        """FP8-CSCALE: one constant scale_bias for all weights, inputs and gradients (Perez et al. 2023, section 3)."""
        return cls._uniform(Constant(bias), formats, skip)

    @classmethod
    def delayed(cls, history: int = 16, margin: int = 0, formats: str = "ocp", skip: Iterable[str] = ()) -> "Recipe":
        """Delayed scaling, as in Transformer Engine, with power-of-two scales; for comparison."""
        return cls._uniform(Delayed(history=history, margin=margin), formats, skip)

    @classmethod
    def paper_training(cls) -> "Recipe":
        """The paper's training: fnuz formats, margin 3 (against overflow of an FP16 accumulation)."""
        return cls.amax(formats="fnuz", margin=3)

    @classmethod
    def paper_inference(cls) -> "Recipe":
        """The paper's inference: fnuz formats, margin 0."""
        return cls.amax(formats="fnuz")

    def override(
        self, *, weight: Operand | None = None, input: Operand | None = None, grad_output: Operand | None = None
    ) -> "Recipe":
        """This recipe with other operands for some roles; the name says so."""
        changed = {"weight": weight, "input": input, "grad_output": grad_output}
        note = ", ".join(f"{role} {operand}" for role, operand in changed.items() if operand is not None)
        return replace(
            self,
            name=f"{self.name} [{note}]" if note else self.name,
            weight=weight or self.weight,
            input=input or self.input,
            grad_output=grad_output or self.grad_output,
        )

    @classmethod
    def _uniform(cls, rule: Rule, formats: str, skip: Iterable[str]) -> "Recipe":
        """One rule for every role."""
        operands = {role: Operand(format=fmt, rule=rule) for role, fmt in get_format_set(formats).items()}
        return cls(
            name=_name(rule, formats, "ocp"),
            weight=operands["weight"],
            input=operands["input"],
            grad_output=operands["grad_output"],
            skip=_patterns(skip),
        )


def parse_scaling(text: str, formats: str = "ocp", skip: Iterable[str] = ()) -> Recipe | str:
    """The recipe that a command-line text means; a key of PRECISIONS is returned as it is. ValueError otherwise.

    `formats` is the default, which the recipe's name leaves out; the text may say otherwise: `amax:formats=fnuz`.
    """
    if text in PRECISIONS:
        return text
    rule, _, rest = text.partition(":")
    words = rest.split(",") if rest else []
    if rule == "cscale" and words and "=" not in words[0]:
        words[0] = f"bias={words[0]}"
    pairs = [(key, value) for key, equals, value in (word.partition("=") for word in words) if equals]
    options: dict[str, str] = dict(pairs)
    chosen = options.pop("formats", formats)
    required, allowed = _PARAMETERS.get(rule, (frozenset(), frozenset()))
    said_once = len({key for key, _ in pairs}) == len(words) and all(value for _, value in pairs)
    if rule not in _PARAMETERS or not said_once or not required <= options.keys() <= required | allowed:
        raise UserError(f"unknown scaling {text!r}: write one of {_SCALING_FORMS}")
    if not all(value.removeprefix("-").isdecimal() for value in options.values()):
        raise UserError(f"scaling {text!r}: its parameters are whole numbers, as in {_SCALING_FORMS}")
    if any(len(value) > _MAX_DIGITS for value in options.values()):
        raise UserError(f"scaling {text:.40}...: no parameter has more than {_MAX_DIGITS - 1} digits")
    values: dict[str, Any] = {key: int(value) for key, value in options.items()}
    make: Callable[..., Recipe] = getattr(Recipe, rule)
    return replace(make(formats=chosen, skip=skip, **values), name=_name(make(**values).weight.rule, chosen, formats))


def check_names(scalings: Sequence[Recipe | str]) -> None:
    """ValueError if two scalings have one name, under which their results would overwrite each other."""
    names = [scaling if isinstance(scaling, str) else scaling.name for scaling in scalings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"a scaling is named twice: {', '.join(twice)}; dataclasses.replace(recipe, name=...) renames")


def _name(rule: Rule, formats: str, default: str) -> str:
    """How a recipe is called: its rule, and its formats unless they are the default."""
    return str(rule) if formats == default else f"{rule}{',' if ':' in str(rule) else ':'}formats={formats}"


def _patterns(skip: Iterable[str]) -> tuple[str, ...]:
    if isinstance(skip, str):
        raise TypeError(f"skip takes a list of patterns, not the text {skip!r}: write skip=[{skip!r}]")
    return tuple(skip)
