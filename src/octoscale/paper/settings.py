"""What to reproduce: one place for the words, and the defaults, of the command reproduce."""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from octoscale.models.labels import HUB_TASKS
from octoscale.models.sizes import PRETRAINED, checkpoint_of
from octoscale.numerics.formats import PRECISIONS
from octoscale.paper.numbers import GPT_SIZES
from octoscale.system.errors import UserError
from octoscale.system.settings import argument, setting
from octoscale.training.settings import TRAINING_DTYPES
from octoscale.validation.settings import parse_biases

#: What there is, and what each shows.
TITLES = {
    "table2": "Inference in high precision, FP8-AMAX and FP8-CSCALE",
    "table3": "Inference: the constant biases that pass",
    "table4": "Inference through lm-eval in high precision and FP8-AMAX",
    "table5": "Fine-tuning in high precision and FP8-AMAX",
    "table6": "Fine-tuning: the constant biases that pass",
    "fig5": "Accuracy against the constant bias",
    "fig6": "The scales of inference, by decoder layer",
    "fig7": "The scales of fine-tuning, by step: the smallest model",
    "fig8": "The scales of fine-tuning, by step: the second smallest model",
    "fig9": "The scales of fine-tuning, by step: the third smallest model",
    "fig10": "The losses of fine-tuning in high precision and in FP8",
}
ALL = "all"

#: The models of the paper's GPT and Llama tables, where no other are named: what runs on a laptop.
GPT_MODELS = ("gpt-10m", "smollm2-135m")
LLAMA_MODELS = ("smollm2-135m",)

#: Which of them measure what.
OF_LLAMA = ("table4", "fig6")
TRAINED = ("table5", "table6", "fig7", "fig8", "fig9", "fig10")
SWEPT = ("table2", "table3", "fig5")
TUNED = (*SWEPT, *TRAINED)
ASKED = (*SWEPT, "table4", "table5", "table6")


def _only_for(option: str, names: Collection[str]) -> Callable[["Reproduction"], str | None]:
    """What refuses an option that none of the wanted tables and figures reads."""

    def in_vain(settings: "Reproduction") -> str | None:
        is_read = any(name in names for name in settings.wanted)
        return None if is_read else f"{option} is for {', '.join(names)}, not for {settings.what}: leave it out"

    return in_vain


def _only_to_tune(option: str) -> Callable[["Reproduction"], str | None]:
    """What refuses an option of fine-tunings where there are none."""

    def in_vain(settings: "Reproduction") -> str | None:
        if not any(name in TUNED for name in settings.wanted):
            return _only_for(option, TUNED)(settings)
        names = settings.task_names
        if not names or any(name == "paper-gpt" or has_classes(name, settings.include) for name in names):
            return None
        return f"{option} is for fine-tuning, and nothing is fine-tuned for {settings.tasks}: leave it out"

    return in_vain


def _dtype_in_vain(settings: "Reproduction") -> str | None:
    if settings.preset is None:
        return None
    return f"--preset {settings.preset} means that of the paper, fp16: leave --dtype out"


def _formats_in_vain(settings: "Reproduction") -> str | None:
    if settings.preset is None:
        return None
    return f"--preset {settings.preset} means those of the paper, fnuz: leave --formats out"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Which tables and figures of Perez et al., of which models; see `octoscale reproduce --help`.

    What is None of a fine-tuning is the preset's, or one of `QUICK`.
    """

    what: str = argument(f"{', '.join(TITLES)}, or {ALL}; several with commas.")
    models: Sequence[str] = setting(
        (),
        f"A model, as elsewhere. Repeat it for several. Unless given: {' and '.join(GPT_MODELS)}; for "
        f"{' and '.join(OF_LLAMA)} {' and '.join(LLAMA_MODELS)}.",
        option="--model",
    )
    pretrained: bool = setting(False, PRETRAINED)
    tasks: str = setting(
        "",
        "Tasks, with commas: classes to fine-tune for (sst2), or what lm-eval asks the model itself (piqa). Unless "
        "given, the paper's own.",
        in_vain=_only_for("--tasks", (*TUNED, "table4")),
    )
    include: Path | None = setting(
        None,
        "A folder with data for the tasks: NAME.yaml or NAME.jsonl of lm-eval's, NAME.tsv and NAME-train.tsv of "
        "classes.",
        in_vain=_only_for("--include", (*TUNED, "table4")),
    )
    limit: int | None = setting(None, "Ask only the first N items of each task.", in_vain=_only_for("--limit", ASKED))
    batch_size: int = setting(
        16, "Requests, or texts, in a forward pass of tasks.", in_vain=_only_for("--batch-size", ASKED)
    )
    seeds: str = setting(
        "0",
        "Of the fine-tunings, with commas: 0,1,2. Figures 7 to 10 show the first.",
        in_vain=_only_to_tune("--seeds"),
    )
    bias: str = setting(
        "-8:6", "The constant biases of inference: a range, or a list -3,0,3.", in_vain=_only_for("--bias", SWEPT)
    )
    train_bias: str = setting(
        "-8:6",
        "The constant biases to fine-tune with; bisection finds the two edges of the range.",
        in_vain=_only_for("--train-bias", ("table6",)),
    )
    every_bias: bool = setting(
        False, "Fine-tune with each of --train-bias, without bisection.", in_vain=_only_for("--every-bias", ("table6",))
    )
    text: str = setting(
        "pydoc", "The text whose scales figure 6 shows: a file, or pydoc.", in_vain=_only_for("--text", ("fig6",))
    )
    tokens: int = setting(8192, "How many tokens of it to read.", in_vain=_only_for("--tokens", ("fig6",)))
    dtype: str = setting("bf16", "High precision: bf16, fp16 or fp32.", in_vain=_dtype_in_vain)
    formats: str = setting("ocp", "ocp (e4m3fn, e5m2) or fnuz (e4m3fnuz, e5m2fnuz).", in_vain=_formats_in_vain)
    accumulate: str = setting(
        "", "Sum as a GPU does, wherever FP8 is: hopper, ada, blackwell, mi300; on a CPU, and slower."
    )
    preset: str | None = setting(
        None,
        f"paper: fine-tune as the paper did, 3 epochs in steps of 512 examples, fp16; for {', '.join(GPT_SIZES)}.",
        in_vain=_only_to_tune("--preset"),
    )
    steps: int | None = setting(
        None, "Optimizer steps of a fine-tuning.  [default: 100]", in_vain=_only_to_tune("--steps")
    )
    examples: int | None = setting(
        None, "Use only the first N examples to fine-tune.", in_vain=_only_to_tune("--examples")
    )
    batch: int = setting(8, "Examples in a micro-batch of a fine-tuning.", in_vain=_only_to_tune("--batch"))
    window: int | None = setting(
        None,
        "Tokens at which examples of a fine-tuning are cut off, and of a window of --text.  [default: 64, and 512]",
        in_vain=_only_for("--window", (*TUNED, "fig6")),
    )
    learning_rate: float | None = setting(
        None, "Of a fine-tuning, constant.  [default: 4e-05]", in_vain=_only_to_tune("--learning-rate")
    )

    @property
    def wanted(self) -> list[str]:
        """The tables and figures, in the paper's order. UserError for a name that there is not."""
        names = [name.strip() for name in self.what.split(",")]
        for name in names:
            if name not in (*TITLES, ALL):
                near = difflib.get_close_matches(name, TITLES, n=1, cutoff=0.6)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise UserError(f"cannot reproduce {name!r}: there are {', '.join(TITLES)}, and {ALL}{meant}")
        return [name for name in TITLES if name in names or ALL in names]

    @property
    def is_all(self) -> bool:
        """Whether each table and figure is wanted that there can be."""
        return ALL in [name.strip() for name in self.what.split(",")]

    @property
    def task_names(self) -> list[str]:
        """What --tasks names."""
        return [name.strip() for name in self.tasks.split(",")] if self.tasks else []

    @property
    def seed_list(self) -> list[int]:
        """The seeds, as they were given."""
        words = [word.strip() for word in self.seeds.split(",")]
        seeds = [int(word) for word in words if word.isascii() and word.isdigit() and int(word) < 2**32]
        if len(set(seeds)) < len(words):
            raise UserError(
                f"cannot read the seeds {self.seeds!r}: whole numbers from 0 to 2**32 - 1, each once, with commas "
                "between them, as 0,1,2"
            )
        return seeds

    @property
    def high(self) -> str:
        """The high precision."""
        return "fp16" if self.preset == "paper" else self.dtype

    @property
    def codes(self) -> str:
        """The set of FP8 formats."""
        return "fnuz" if self.preset == "paper" else self.formats

    def summed(self, scaling: str) -> str:
        """A scaling with the sums that --accumulate names; high precision as it is."""
        from octoscale.numerics.accumulators import with_accumulate

        return with_accumulate(scaling, self.accumulate) if self.accumulate and scaling != self.high else scaling

    def models_of(self, name: str) -> list[str]:
        """The models of a table or figure, as other commands take them."""
        chosen = self.models or (LLAMA_MODELS if name in OF_LLAMA else GPT_MODELS)
        return [checkpoint_of(model) if self.pretrained else model for model in chosen]

    def __post_init__(self) -> None:
        self._check_lists()
        self.summed("amax")
        if self.dtype not in PRECISIONS:
            raise UserError(f"unknown dtype {self.dtype!r}: one of {', '.join(PRECISIONS)}")
        if any(name in TUNED for name in self.wanted) and self.dtype not in TRAINING_DTYPES:
            raise UserError(f"unknown dtype {self.dtype!r} for fine-tuning: one of {', '.join(TRAINING_DTYPES)}")
        if self.preset not in (None, "paper"):
            raise UserError(f"unknown preset {self.preset!r}: there is paper")
        if self.include is not None and not self.include.is_dir():
            raise UserError(f"no such folder: {self.include}")
        for name in ("limit", "batch_size", "tokens", "steps", "examples", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be at least 1")

    def _check_lists(self) -> None:
        """UserError for what holds several, and cannot be read, or says one twice, or means nothing."""
        if not self.wanted or not self.seed_list:
            raise UserError(f"nothing to reproduce: name one of {', '.join(TITLES)}, or {ALL}")
        twice = [model for model in self.models if list(self.models).count(model) > 1]
        if twice:
            raise UserError(f"--model {twice[0]} stands twice: each model has one row")
        if self.pretrained and not self.models:
            raise UserError("--pretrained is for the paper's names: say which with --model, as --model gpt-111m")
        for model in self.models if self.pretrained else ():
            checkpoint_of(model)
        if not all(self.task_names):
            raise UserError(f"--tasks {self.tasks!r}: names with commas between them, as sst2,mnli")
        parse_biases(self.bias)
        parse_biases(self.train_bias)


#: How files of texts with classes end.
ENDINGS = (".tsv", ".jsonl")


def has_classes(task: str, include: Path | None) -> bool:
    """Whether a task is one of classes: by its name, or because its file to fine-tune on lies in `include`."""
    return task in HUB_TASKS or (include is not None and any((include / f"{task}-train{e}").is_file() for e in ENDINGS))


#: A fine-tuning that ends in minutes on two cores; the learning rate is the paper's for its smallest model.
QUICK = {"steps": 100, "window": 64, "learning_rate": 4e-5}
