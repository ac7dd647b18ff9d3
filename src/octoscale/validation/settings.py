"""What to validate: one place for the words, and the defaults, of the commands validate, sweep and demo."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from octoscale.conversion.settings import Conversion, FromFile, Head, Shared, every_in_vain, said_by_recipe
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.system.errors import UserError
from octoscale.system.settings import setting
from octoscale.validation.tasks import expand

#: Tokens that the demo and a sweep read, unless told otherwise.
DEMO_TOKENS, QUICK_TOKENS = 8192, 1024

#: A range of more is none of constants that there are; it is refused before it fills the memory.
_MOST_BIASES = 1000


def _without_tasks(option: str) -> Callable[["Measurement"], str | None]:
    """What refuses an option of tasks where there are none."""

    def in_vain(settings: "Measurement") -> str | None:
        return None if settings.asks else f"{option} is for --tasks, or the questions of --task: leave it out"

    return in_vain


def _without_names(settings: "Measurement") -> str | None:
    return None if settings.tasks else "--include is a folder for what --tasks names: leave it out"


def _without_text(option: str) -> Callable[["Measurement"], str | None]:
    """What refuses an option of the text where none is read."""

    def in_vain(settings: "Measurement") -> str | None:
        return None if settings.text is not None else f"{option} is for a text, and only tasks are asked: give --text"

    return in_vain


def _without_half(settings: "Measurement") -> str | None:
    return "--autocast is for --dtype bf16 or fp16: leave it out" if settings.dtype == "fp32" else None


@dataclass(frozen=True, kw_only=True)
class Measurement(Conversion):
    """A text, and tasks, that a model is measured with. text: None stands for pydoc, or none where tasks are asked."""

    text: str | None = setting(
        None, "A UTF-8 text file, or pydoc: the help texts that come with Python. Unless given: pydoc, if no task is."
    )
    window: int = setting(512, "Tokens in a window; each is one forward pass.", in_vain=_without_text("--window"))
    tokens: int | None = setting(
        None, "How many tokens of the text to read. All, if not given.", in_vain=_without_text("--tokens")
    )
    dtype: str = setting("bf16", "The model's own precision: bf16, fp16 or fp32.")
    every: int = setting(16, "Record histograms of exponents on each N-th window; 0 for never.", in_vain=every_in_vain)
    tasks: str = setting(
        "",
        "Tasks to ask, with commas: lm-eval's (piqa,arc_easy), sst2, mnli, qqp of a classifier, or paper-llama, "
        "paper-gpt.",
    )
    task: Path | None = setting(None, 'A task of your own: JSON lines {"query", "choices", "gold"}.')
    include: Path | None = setting(
        None, "A folder with data for --tasks: NAME.yaml of lm-eval, NAME.jsonl, NAME.tsv.", in_vain=_without_names
    )
    num_fewshot: int | None = setting(
        None, "Examples in each prompt. The task's own number, if not given.", in_vain=_without_tasks("--num-fewshot")
    )
    limit: int | None = setting(None, "Use only the first N items of a task.", in_vain=_without_tasks("--limit"))
    batch_size: int = setting(16, "Requests in a forward pass of tasks.", in_vain=_without_tasks("--batch-size"))

    @property
    def asks(self) -> bool:
        """Whether there is a task."""
        return bool(self.tasks) or self.task is not None

    @property
    def task_names(self) -> list[str]:
        """What --tasks names."""
        return [name.strip() for name in self.tasks.split(",")] if self.tasks else []

    def __post_init__(self) -> None:
        if self.text is None and not self.asks:
            object.__setattr__(self, "text", "pydoc")
        if not all(self.task_names):
            raise UserError(f"--tasks {self.tasks!r}: names with commas between them, as piqa,arc_easy")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit={self.limit}: must be at least 1")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise UserError(f"num_fewshot={self.num_fewshot}: must be 0 or more")
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}: must be at least 1")
        if self.include is not None and not self.include.is_dir():
            raise UserError(f"no such folder: {self.include}")


@dataclass(frozen=True, kw_only=True)
class Validation(FromFile, Head, Shared, Measurement):
    """What to validate. Texts as on the command line; see `octoscale validate --help`.

    scalings: none stands for the model in its own precision, `dtype`, and FP8-AMAX.
    """

    scalings: Sequence[str] = setting(
        (),
        "bf16, fp16, fp32 (no FP8), amax, amax:margin=3, cscale:-1, cscale:weight=3,input=-1, delayed:history=16; "
        "amax:row, amax:block, amax:mx, weight=amax:block,input=amax:row (more than one scale a tensor). "
        "Repeat it to compare. "
        "Unless given: bf16 and amax; a checkpoint of FP8 weights has one only, its own.",
        option="--scaling",
        in_vain=said_by_recipe("--scaling"),
    )
    accumulate: str = setting(
        "",
        "Sum as a GPU does, under each FP8 scaling: hopper, ada, blackwell, mi300; on a CPU, and slower.",
    )
    by_layer: bool = setting(
        False, "Layer by layer over all windows: each weight is read once. Larger than memory.", option="--batch"
    )

    autocast: bool = setting(
        False,
        "Keep parameters in float32 and compute in --dtype under autocast, as octoscale train does.",
        in_vain=_without_half,
    )

    @property
    def unit(self) -> str:
        """What progress is counted in."""
        if self.by_layer:
            return "layers"
        of_text = ["windows"] if self.text is not None else []
        return " and ".join([*of_text, *["requests"] * self.asks])

    @property
    def wanted(self) -> Sequence[str]:
        """The scalings."""
        return self.scalings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {self.dtype!r}: one of {', '.join(PRECISIONS)}")
        self.take_recipe("scalings", self.dtype)
        if not self.scalings:
            object.__setattr__(self, "scalings", (self.dtype, "amax"))
        if self.accumulate:
            object.__setattr__(self, "scalings", _summed(self.scalings, self.accumulate))
        others = [scaling for scaling in self.scalings if scaling in PRECISIONS]
        if others and self.dtype not in others:
            raise UserError(
                f"scaling {others[0]} is no FP8, and dtype {self.dtype} is another precision: --dtype {others[0]}"
            )
        if self.by_layer and self.asks:
            raise UserError("tasks are asked in batches, not layer by layer: leave --batch or the tasks out")
        if self.every < 0:
            raise UserError(f"every={self.every}: histograms are recorded every N windows, N >= 1, or never, 0")


def _summed(scalings: Sequence[str], accumulate: str) -> tuple[str, ...]:
    """The scalings, with these sums where they are of FP8. UserError where none is."""
    from octoscale.numerics.accumulators import with_accumulate

    unchanged = (*PRECISIONS, STORED)
    if all(text in unchanged for text in scalings):
        raise UserError(
            f"--accumulate {accumulate} is for layers that a scaling puts into FP8, and {' and '.join(scalings)} puts "
            "none: leave it out"
        )
    return tuple(text if text in unchanged else with_accumulate(text, accumulate) for text in scalings)


def _every_bias_in_vain(settings: "Sweep") -> str | None:
    return None if settings.roles is None else "--roles measures every pair of biases: leave --all out"


@dataclass(frozen=True, kw_only=True)
class Sweep(Measurement):
    """Which constants to look at; see `octoscale sweep --help`."""

    bias: str = setting("-8:6", "The CSCALE biases: a range -8:6, or a list -3,0,3.")
    every_bias: bool = setting(
        False,
        "Measure each bias, for the whole curve; else bisect for the two edges.",
        option="--all",
        in_vain=_every_bias_in_vain,
    )
    roles: str | None = setting(
        None, "weight,input: a constant for each of the two, and a map of every pair of --bias."
    )
    tokens: int | None = setting(DEMO_TOKENS, "How many tokens of the text to read.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(expand(self.task_names)) + (self.task is not None) > 1:
            raise UserError("a sweep looks for the range of one task: name one; validate asks several")
        if self.roles is not None and sorted(self.roles.split(",")) != ["input", "weight"]:
            raise UserError(f"--roles {self.roles}: what a validation casts are weight,input")

    @property
    def biases(self) -> list[int]:
        """Those that may be measured, in ascending order. ValueError for biases that are none."""
        return parse_biases(self.bias)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The biases of weight and input that are measured with `roles`; none without."""
        return [] if self.roles is None else [(weight, input) for weight in self.biases for input in self.biases]

    @property
    def wanted(self) -> Sequence[str]:
        """High precision, FP8-AMAX, and each constant, or each pair of them."""
        pairs = [f"cscale:weight={weight},input={input}" for weight, input in self.pairs]
        return (self.dtype, "amax", *(pairs or constants(self.bias)))

    @property
    def num_expected(self) -> int:
        """About how many scalings will be measured: bisection looks at a few biases on either side."""
        looks = len(self.wanted) - 2
        return 2 + (looks if self.every_bias or self.roles is not None else min(looks, 2 * looks.bit_length()))

    def validation(self) -> Validation:
        """The same as a validation of all that may be measured. ValueError for biases that are none."""
        shared = {field.name: getattr(self, field.name) for field in fields(Measurement)}
        return Validation(scalings=self.wanted, **shared)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo reads; see `octoscale demo --help`."""

    quick: bool = setting(False, "1,024 tokens and three biases: about a minute.")
    tokens: int | None = setting(None, f"Tokens of text: {DEMO_TOKENS}, or {QUICK_TOKENS} with --quick.")

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < Validation.window:
            raise UserError(
                f"--tokens {self.tokens}: the demo reads windows of {Validation.window} tokens, one at least"
            )

    def validation(self) -> Validation:
        """The same as a validation."""
        tokens = self.tokens if self.tokens is not None else QUICK_TOKENS if self.quick else DEMO_TOKENS
        biases = constants("-8,-1,6" if self.quick else "-8:6")
        return Validation(model="smollm2-135m", scalings=("bf16", "amax", *biases), tokens=tokens)


def constants(biases: str) -> list[str]:
    """The scalings that a range or a list of biases means, as in `parse_biases`."""
    return [f"cscale:{bias}" for bias in parse_biases(biases)]


def parse_biases(text: str) -> list[int]:
    """`-8:6` -> -8..6 with both ends; `-8,-1,6` -> these. ValueError for anything else, or an empty range."""
    try:
        if ":" in text:
            low, high = (int(part) for part in text.split(":"))
            biases = list(range(low, min(high, low + _MOST_BIASES) + 1))
        else:
            biases = sorted({int(part) for part in text.split(",")})
    except ValueError:
        biases = []
    if not biases:
        raise UserError(f"cannot read the biases {text!r}: write a range from low to high, -8:6, or a list, -8,-1,6")
    if len(biases) > _MOST_BIASES:
        raise UserError(f"{text}: no scale_bias lies outside -126..126")
    return biases
