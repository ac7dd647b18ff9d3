"""Which contest to hold: one place for the words, and the defaults, of the command arena."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from octoscale.arena.contestants import CONTESTANTS, contestant, with_constant
from octoscale.conversion.settings import Conversion
from octoscale.numerics.formats import PRECISIONS, STORED
from octoscale.system.errors import UserError
from octoscale.system.settings import setting
from octoscale.training.settings import TRAINING_DTYPES, Training
from octoscale.validation.settings import Validation, parse_biases

#: Each seed is below this.
_SEEDS = 2**32


def _only_to_train(option: str) -> Callable[["Arena"], str | None]:
    """What refuses an option of trainings where there are none."""

    def in_vain(settings: "Arena") -> str | None:
        return None if settings.trains else f"{option} is for trainings: add --train STEPS, or leave it out"

    return in_vain


def _bias_in_vain(settings: "Arena") -> str | None:
    if any(contestant(scaling).is_best_constant for scaling in settings.scalings):
        return None
    return f"--bias is for the contestant cscale, not for {' and '.join(settings.scalings)}: leave it out"


@dataclass(frozen=True, kw_only=True)
class Arena(Conversion):
    """A model, a text, and the scalings that compete; see `octoscale arena --help`.

    scalings: none stands for all of `CONTESTANTS`.
    """

    text: str = setting("pydoc", "A UTF-8 text file, or pydoc: what the model reads, or is trained on.")
    tokens: int | None = setting(None, "How many tokens of the text to read.  [default: all]")
    window: int | None = setting(None, "Tokens in a window.  [default: 512, or 256 in a training]")
    scalings: Sequence[str] = setting(
        (),
        "A contestant, in the words of validate. Repeatable; cscale is the best constant of a range. Unless given: "
        f"{', '.join(row.scaling for row in CONTESTANTS)}.",
        option="--scaling",
    )
    bias: str = setting("-4:2", "Constants for cscale: a range -4:2, a list -2,0, or one.", in_vain=_bias_in_vain)
    train: int | None = setting(
        None, "Train for so many steps under each scaling, and compare the losses of validation. [default: only read]"
    )
    seeds: str = setting("0,1,2", "Of the trainings, with commas.", in_vain=_only_to_train("--seeds"))
    batch: int = setting(4, "Windows in a step of a training.", in_vain=_only_to_train("--batch"))
    learning_rate: float = setting(4e-5, "Of a training, constant.", in_vain=_only_to_train("--learning-rate"))
    validation: float = setting(
        0.1, "The part of the text, at its end, that a training is judged by.", in_vain=_only_to_train("--validation")
    )
    dtype: str = setting("bf16", "High precision, with which all are compared: bf16, fp16 or fp32.")

    @property
    def wanted(self) -> Sequence[str]:
        """The contestants."""
        return self.scalings

    @property
    def trains(self) -> bool:
        """Whether the contest is one of trainings."""
        return self.train is not None

    @property
    def biases(self) -> list[int]:
        """The constants among which cscale has the best one."""
        return parse_biases(self.bias)

    @property
    def seed_list(self) -> list[int]:
        """The seeds, as they were given. UserError for what are none, or one twice."""
        words = [word.strip() for word in self.seeds.split(",")]
        seeds = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= len(str(_SEEDS))]
        if len(set(seeds)) < len(words) or max(seeds) >= _SEEDS:
            raise UserError(
                f"cannot read the seeds {self.seeds!r}: whole numbers from 0 to 2**32 - 1, each once, with commas "
                "between them, as 0,1,2"
            )
        return seeds

    @property
    def spare_seed(self) -> int:
        """The smallest seed that is not among them: the constant is chosen with it."""
        return next(seed for seed in range(_SEEDS) if seed not in self.seed_list)

    def texts_of(self, scaling: str) -> list[str]:
        """What a contestant's scaling is for `parse_scaling`: itself, or each constant that it may have."""
        if not contestant(scaling).is_best_constant:
            return [scaling]
        return [with_constant(bias, trains=self.trains) for bias in self.biases]

    def reading(self, scaling: str) -> Validation:
        """The text, read under one scaling: as octoscale validate does it."""
        return Validation(
            model=self.model,
            scalings=(scaling,),
            text=self.text,
            tokens=self.tokens,
            window=Validation.window if self.window is None else self.window,
            dtype=self.dtype,
            formats=self.formats,
            skip=self.skip,
            every=0,
        )

    def training(self, scaling: str, seed: int, *, save_every: int = 0) -> Training:
        """A training under one scaling: as octoscale train does it."""
        return Training(
            model=self.model,
            scaling=scaling,
            text=self.text,
            tokens=self.tokens,
            window=Training.window if self.window is None else self.window,
            steps=1 if self.train is None else self.train,
            batch=self.batch,
            learning_rate=self.learning_rate,
            validation=self.validation,
            dtype=self.dtype,
            formats=self.formats,
            skip=self.skip,
            seed=seed,
            every=0,
            save_every=save_every,
        )

    def __post_init__(self) -> None:
        if not self.scalings:
            object.__setattr__(self, "scalings", tuple(row.scaling for row in CONTESTANTS))
        known = TRAINING_DTYPES if self.trains else tuple(PRECISIONS)
        if self.dtype not in known:
            raise UserError(f"unknown dtype {self.dtype!r}: one of {', '.join(known)}")
        for scaling in self.scalings:
            if scaling in PRECISIONS or scaling == STORED:
                raise UserError(f"scaling {scaling} is no contestant: each is compared with {self.dtype}, by --dtype")
        if self.train is not None and self.train < 1:
            raise UserError(f"--train {self.train}: must be at least 1 step")
        if self.tokens is not None and self.tokens < 1:
            raise UserError(f"--tokens {self.tokens}: must be at least 1")
        if not self.trains:
            self._check_windows()
        parse_biases(self.bias)
        if self.trains:
            self.training(self.dtype, self.seed_list[0])  # it checks its own words

    def _check_windows(self) -> None:
        """UserError where there could be no interval."""
        window = Validation.window if self.window is None else self.window
        if window < 2:
            raise UserError(f"--window {window}: a window needs at least 2 tokens")
        if self.tokens is not None and self.tokens < 2 * window:
            raise UserError(
                f"{self.tokens} tokens are less than two windows of {window}, and one has no interval: raise --tokens, "
                "or lower --window"
            )
