"""A recipe says what each role becomes: role -> (format, rule), and which modules stay as they are.

    Recipe.amax()                         FP8-AMAX, OCP formats
    Recipe.amax(granularity="row")        a scale a token and an output channel; "block" and "mx" are others
    Recipe.cscale(-1)                     FP8-CSCALE, one constant scale_bias
    Recipe.paper_training()               the paper's training: fnuz formats, margin 3
    Recipe.amax(skip=["down_proj"])       a pattern keeps modules out of FP8
    Recipe.amax().override(grad_output=Operand(format="e5m2", rule=Constant(8)))

Recipes are frozen: `dataclasses.replace` makes a changed one. On the command line a recipe is a short text,
`amax`, `amax:margin=3`, `cscale:-1`, `delayed:history=16`; `bf16`, `fp16` and `fp32` stand for no FP8 at all.
`cscale:weight=3,input=-1` has a constant for each role. Gradients that it does not name, `grad_output=8`, have each
their own scale, as under `amax`: no constant of weights or inputs says how small a gradient is.

`amax:row`, `amax:block` and `amax:mx` have a scale for less than a tensor (granularity.py); margin= and, for mx, round=
may follow. `weight=amax:block,input=amax:row` has a rule for each role, whose parameters follow it:
`weight=amax:mx,round=up,input=amax`. Gradients that it does not name are scaled as inputs are, granularity included,
or by amax where inputs have a constant. formats=, fast= and accumulate= are the recipe's, wherever they stand.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octoscale.numerics.accumulators import check_formats, get_accumulator
from octoscale.numerics.formats import FORMAT_SETS, PRECISIONS, ROLES, Role, get_format, get_format_set
from octoscale.numerics.granularity import GRANULARITIES, TENSOR
from octoscale.numerics.scaling import Amax, Constant, Delayed, Rule
from octoscale.system.errors import UserError

#: Rule -> the recipes that it makes: of which name, from the parameters that its text must have, and may have.
_FORMS: dict[str, tuple[tuple[str, frozenset[str], frozenset[str]], ...]] = {
    "amax": (("amax", frozenset(), frozenset({"margin", "granularity", "round"})),),
    "cscale": (
        ("cscale", frozenset({"bias"}), frozenset()),
        ("cscale_by_role", frozenset({"weight", "input"}), frozenset({"grad_output"})),
    ),
    "delayed": (("delayed", frozenset(), frozenset({"history", "margin"})),),
}
#: The fields that say how products are summed; each rule takes them.
_SUMS = ("fast", "accumulate")
#: What may stand behind the colon of a scaling's text, as key=value; formats may, too.
PARAMETERS = ("margin", "round", "history", *ROLES, *_SUMS)
#: Those that are words; all others are whole numbers.
_WORDS = ("granularity", "round")
#: Why a rule has one scale a tensor.
_WHY_WHOLE = {
    "cscale": "a constant is the same for every row and block",
    "delayed": "a history is of one amax a tensor",
}
#: Of a parameter, its sign included; Python itself refuses to read more than 4,300.
_MAX_DIGITS = 10
_SCALING_FORMS = (
    "amax, amax:margin=3, amax:row, amax:block, amax:mx,round=up, weight=amax:block,input=amax:row, cscale:-1, "
    "cscale:weight=3,input=-1, delayed:history=16, bf16, fp16, fp32"
)

#: By their word: the passes in which sums may keep fewer bits. Forward: the output; backward: both gradients.
FAST = {"none": (), "forward": ("forward",), "backward": ("backward",), "both": ("forward", "backward")}


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
    """The FP8 treatment of a model's linear layers. `name` is how the recipe is called in records and plots.

    fast: of `FAST`, the passes in which an NVIDIA GPU may keep fewer bits of its sums; it is nothing elsewhere.
    accumulate: the name of a tensor core whose sums are imitated (accumulators.py); "" for float32's.
    """

    name: str
    weight: Operand
    input: Operand
    grad_output: Operand
    skip: tuple[str, ...] = ()
    fast: str = "forward"
    accumulate: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", _patterns(self.skip))
        if self.fast not in FAST:
            raise UserError(f"unknown fast={self.fast}: one of {', '.join(FAST)}")
        if self.accumulate:
            formats = [self.operand(role).format for role in ROLES]
            check_formats(get_accumulator(self.accumulate), formats)
            if not self.is_whole:
                raise UserError(f"accumulate={self.accumulate} imitates products of one scale a tensor: write amax")

    @property
    def formats(self) -> str:
        """The name of the format set that the weights are of; "" if it is none."""
        return next((name for name, formats in FORMAT_SETS.items() if formats["weight"] == self.weight.format), "")

    @property
    def is_whole(self) -> bool:
        """Whether each tensor has one scale, and none a scale for each row or block."""
        return all(self.operand(role).rule.granularity == TENSOR.name for role in ROLES)

    def check_whole(self, what: str) -> None:
        """UserError, naming what takes one scale a tensor, for a recipe with more."""
        if not self.is_whole:
            raise UserError(f"scaling {self.name}: {what} takes one scale a tensor: amax, cscale or delayed")

    def is_fast(self, which: str) -> bool:
        """Whether the sums of a pass, forward or backward, may keep fewer bits."""
        return which in FAST[self.fast]

    def sums(self, which: str) -> dict[str, Any]:
        """How the products of a pass are summed, as `octoscale.kernels.ops.matmul` takes it."""
        return {"fast": self.is_fast(which), "accumulate": self.accumulate}

    def operand(self, role: Role) -> Operand:
        """The operand of a role."""
        return {"weight": self.weight, "input": self.input, "grad_output": self.grad_output}[role]

    @classmethod
    def amax(
        cls,
        formats: str = "ocp",
        margin: int = 0,
        skip: Iterable[str] = (),
        granularity: str = TENSOR.name,
        round: str = "",
    ) -> "Recipe":
        """FP8-AMAX: each tensor's own scale, just in time (Perez et al. 2023, section 3); or each row's, or block's."""
        return cls._uniform(Amax(margin=margin, granularity=granularity, round=round), formats, skip)

    @classmethod
    def cscale(cls, bias: int, formats: str = "ocp", skip: Iterable[str] = ()) -> "Recipe":
        """FP8-CSCALE: one constant scale_bias for all weights, inputs and gradients (Perez et al. 2023, section 3)."""
        return cls._uniform(Constant(bias), formats, skip)

    @classmethod
    def cscale_by_role(
        cls,
        *,
        weight: int,
        input: int,
        grad_output: int | None = None,
        formats: str = "ocp",
        skip: Iterable[str] = (),
    ) -> "Recipe":
        """A constant scale_bias for all weights, one for all inputs; gradients have a third, or for None their own."""
        rule = None if grad_output is None else Constant(grad_output)
        return cls.by_role(weight=Constant(weight), input=Constant(input), grad_output=rule, formats=formats, skip=skip)

    @classmethod
    def by_role(
        cls,
        *,
        weight: Rule,
        input: Rule,
        grad_output: Rule | None = None,
        formats: str = "ocp",
        skip: Iterable[str] = (),
    ) -> "Recipe":
        """A rule for each role. grad_output=None: as inputs, or amax where those have a constant."""
        usual: Rule = Amax() if isinstance(input, Constant) else input
        rules: dict[Role, Rule] = {"weight": weight, "input": input, "grad_output": grad_output or usual}
        text = _text_of(rules, usual)
        return cls._of(rules, _name(text, formats, "ocp"), formats, skip)

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

    def summed(self, *, fast: str, accumulate: str) -> "Recipe":
        """This recipe with other sums; its name says what is not the default. UserError for an unknown word."""
        name = _with(_with(self.name, "fast", fast, Recipe.fast), "accumulate", accumulate, Recipe.accumulate)
        return replace(self, name=name, fast=fast, accumulate=accumulate)

    @classmethod
    def _uniform(cls, rule: Rule, formats: str, skip: Iterable[str]) -> "Recipe":
        """One rule for every role."""
        return cls._of(dict.fromkeys(ROLES, rule), _name(str(rule), formats, "ocp"), formats, skip)

    @classmethod
    def _of(cls, rules: Mapping[Role, Rule], name: str, formats: str, skip: Iterable[str]) -> "Recipe":
        """A rule for each role."""
        operands = {role: Operand(format=fmt, rule=rules[role]) for role, fmt in get_format_set(formats).items()}
        return cls(
            name=name,
            weight=operands["weight"],
            input=operands["input"],
            grad_output=operands["grad_output"],
            skip=_patterns(skip),
        )


def parse_scaling(text: str, formats: str = "ocp", skip: Iterable[str] = ()) -> Recipe | str:
    """The recipe that a command-line text means; a key of PRECISIONS is returned as it is. ValueError otherwise.

    `formats` is the default, which the recipe's name leaves out; the text may say otherwise: `amax:formats=fnuz`.
    `fast=none` has GPUs sum exactly in each pass (`FAST`), `accumulate=hopper` imitates the sums of one on a CPU.
    """
    if text in PRECISIONS:
        return text
    if text.partition("=")[0] in ROLES:
        return _parse_by_role(text, formats, skip)
    rule, _, rest = text.partition(":")
    words = rest.split(",") if rest else []
    if rule in _WHY_WHOLE and (named := [word for word in words if word in GRANULARITIES]):
        raise UserError(f"scaling {text!r}: {_WHY_WHOLE[rule]}; write amax:{named[0]}")
    if words and "=" not in words[0]:
        words[0] = {"cscale": "bias=", "amax": "granularity="}.get(rule, "") + words[0]
    pairs = [(key, value) for key, equals, value in (word.partition("=") for word in words) if equals]
    options: dict[str, str] = dict(pairs)
    chosen, sums = options.pop("formats", formats), {key: options.pop(key, getattr(Recipe, key)) for key in _SUMS}
    said_once = len({key for key, _ in pairs}) == len(words) and all(value for _, value in pairs)
    form = _form(rule, options.keys()) if said_once and options.get("granularity", "row") in GRANULARITIES else None
    if form is None:
        raise UserError(f"unknown scaling {text!r}: write one of {_SCALING_FORMS}{_lacking(rule, options)}")
    numbers = {key: value for key, value in options.items() if key not in _WORDS}
    if not all(value.removeprefix("-").isdecimal() for value in numbers.values()):
        raise UserError(f"scaling {text!r}: its parameters are whole numbers, as in {_SCALING_FORMS}")
    if any(len(value) > _MAX_DIGITS for value in numbers.values()):
        raise UserError(f"scaling {text:.40}...: no parameter has more than {_MAX_DIGITS - 1} digits")
    values: dict[str, Any] = {**options, **{key: int(value) for key, value in numbers.items()}}
    make: Callable[..., Recipe] = getattr(Recipe, form)
    recipe = make(formats=chosen, skip=skip, **values)
    return replace(recipe, name=_name(make(**values).name, chosen, formats)).summed(**sums)


def _parse_by_role(text: str, formats: str, skip: Iterable[str]) -> Recipe:
    """The recipe of a text that names roles: each word that names none belongs to the one before."""
    texts: dict[str, str] = {}
    options = {"formats": formats} | {key: getattr(Recipe, key) for key in _SUMS}
    said: list[str] = []
    role = ""
    for word in text.split(","):
        key, _, value = word.partition("=")
        if key in ROLES:
            role, texts[key] = key, value
        elif key in options:
            options[key] = value
        else:
            texts[role] = with_word(texts[role], word)
            continue
        said.append(key)
    rules = {role: _rule(words) for role, words in texts.items()}
    if len(set(said)) < len(said) or not {"weight", "input"} <= rules.keys() or None in rules.values():
        lacks = [f"; here {role} has no rule" for role in ("weight", "input") if rules.get(role) is None][:1]
        raise UserError(f"unknown scaling {text!r}: write one of {_SCALING_FORMS}{''.join(lacks)}")
    given: dict[str, Any] = {role: rule for role, rule in rules.items() if rule is not None}
    chosen = options.pop("formats")
    recipe = Recipe.by_role(**given, formats=chosen, skip=skip)
    return replace(recipe, name=_name(Recipe.by_role(**given).name, chosen, formats)).summed(**options)


def _rule(text: str) -> Rule | None:
    """The rule that a text gives to every role; None if it is none. ValueError where it is one, with a wrong value."""
    recipe = parse_scaling(text) if text and text.partition("=")[0] not in ROLES else None
    if not isinstance(recipe, Recipe):
        return None
    rules = {recipe.operand(role).rule for role in ROLES}
    return rules.pop() if len(rules) == 1 else None


def check_names(scalings: Sequence[Recipe | str]) -> None:
    """ValueError if two scalings have one name, under which their results would overwrite each other."""
    names = [scaling if isinstance(scaling, str) else scaling.name for scaling in scalings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"a scaling is named twice: {', '.join(twice)}; say each once (in Python, dataclasses.replace(recipe, "
            "name=...) renames one)"
        )


def _form(rule: str, options: Collection[str]) -> str | None:
    """Which recipe a rule makes of these parameters; None if none."""
    forms = _FORMS.get(rule, ())
    return next((name for name, must, may in forms if must <= set(options) <= must | may), None)


def _lacking(rule: str, options: Collection[str]) -> str:
    """Which role a text with constants by role does not name."""
    lacks = [role for role in ("weight", "input") if role not in options]
    by_role = rule == "cscale" and bool(set(options) & set(ROLES))
    return f"; here {lacks[0]} has no constant" if by_role and lacks else ""


def _text_of(rules: Mapping[Role, Rule], usual: Rule) -> str:
    """The text that means these rules; usual: that of gradients which are not named."""
    weight, input, grad_output = (rules[role] for role in ROLES)
    named = {role: rule for role, rule in rules.items() if role != "grad_output" or rule != usual}
    constants = {role: rule.bias for role, rule in named.items() if isinstance(rule, Constant)}
    if weight == input == grad_output and not constants:
        return str(weight)
    if len(constants) == len(named):
        return "cscale:" + ",".join(f"{role}={bias}" for role, bias in constants.items())
    return ",".join(f"{role}={rule}" for role, rule in named.items())


def with_word(text: str, word: str) -> str:
    """The text of a scaling with one more word: `amax` and `margin=3` make `amax:margin=3`."""
    return f"{text}{',' if ':' in text or '=' in text else ':'}{word}"


def _name(text: str, formats: str, default: str) -> str:
    """How a recipe is called: what it does, and its formats unless they are the default."""
    return _with(text, "formats", formats, default)


def _with(text: str, key: str, value: str, default: str) -> str:
    """The text of a scaling with one more parameter, unless it is the default."""
    return text if value == default else with_word(text, f"{key}={value}")


def _patterns(skip: Iterable[str]) -> tuple[str, ...]:
    if isinstance(skip, str):
        raise TypeError(f"skip takes a list of patterns, not the text {skip!r}: write skip=[{skip!r}]")
    return tuple(skip)
