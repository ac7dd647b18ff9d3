"""What to train: one place for the words, and the defaults, of the command train; and the paper's own words by size."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octoscale.conversion.settings import Conversion, FromFile, every_in_vain, parallel_in_vain, said_by_recipe
from octoscale.models.labels import HUB_TASKS
from octoscale.numerics.formats import PRECISIONS
from octoscale.system.errors import UserError
from octoscale.system.ranks import num_ranks
from octoscale.system.settings import setting

#: The precisions of a training: products outside the FP8 layers, and activations, under autocast; parameters float32.
TRAINING_DTYPES = ("bf16", "fp16", "fp32")


def _text_in_vain(settings: "Training") -> str | None:
    return None if settings.task is None else "a training reads --text or --task, not both"


def _tokens_in_vain(settings: "Training") -> str | None:
    return None if settings.task is None else "--tokens is for a text; --examples counts those of --task"


def _examples_in_vain(settings: "Training") -> str | None:
    return "--examples is for --task; --tokens counts those of a text" if settings.task is None else None


def _validation_in_vain(settings: "Training") -> str | None:
    if settings.eval_task is None and settings.task not in HUB_TASKS:
        return None
    where = settings.eval_task or "the hub's own split"
    return f"--validation is the part of a text or file; here {where} is what is validated with"


def _histograms_in_vain(settings: "Training") -> str | None:
    if "tensorboard" not in settings.report_to:
        return "--histograms are sent to TensorBoard: add --report-to tensorboard"
    if settings.scaling in PRECISIONS:
        return f"--histograms are of FP8 layers, and {settings.scaling} has none: leave it out"
    return "--histograms needs recorded ones, and --every 0 records none" if settings.every == 0 else None


#: Who shares the scale of an input or a gradient: the ranks that compute one replica, or all.
AMAX_GROUPS = ("replica", "world")


def _amax_group_in_vain(settings: "Training") -> str | None:
    if settings.scaling in PRECISIONS:
        return f"--amax-group is for FP8 layers, and {settings.scaling} has none: leave it out"
    if num_ranks() > 1:
        return None
    return "--amax-group is for many ranks, and there is one: start octoscale with torchrun --nproc-per-node N"


@dataclass(frozen=True, kw_only=True)
class Training(FromFile, Conversion):
    """What to train. Texts as on the command line; see `octoscale train --help`.

    A step is `accumulate` micro-batches of `batch` windows of `window` tokens, or of `batch` examples of a `task`,
    which `window` tokens cut off. Validation: the file `eval_task`, or the last part `validation` of what is read.
    The learning rate rises over the first `warmup` steps, then is constant. loss_scale: a number, `dynamic`, `none`;
    None: dynamic for fp16, else none. every: histograms of exponents on each N-th step; 0 for never. save_every: a
    checkpoint to go on from after each N-th step; 0 for never. histograms_of: patterns of modules, for TensorBoard.
    """

    scaling: str = setting(
        "amax",
        "bf16, fp16, fp32 (no FP8, and --dtype of that name), or as in validate: one.",
        in_vain=said_by_recipe("--scaling"),
    )
    text: str = setting(
        "pydoc",
        "A UTF-8 text file, pydoc, or a data set of the hub, hf:NAME[:CONFIGURATION[:SPLIT]].",
        in_vain=_text_in_vain,
    )
    task: str | None = setting(
        None,
        "Train a classifier instead: sst2, mnli, qqp (from the hub), or a file .tsv or .jsonl with a column label, "
        "and one or two of text.",
    )
    eval_task: Path | None = setting(
        None, "The labeled file for validation; else the hub's, or the last part of --task."
    )
    tokens: int | None = setting(
        None, "How many tokens of the text to read. All, if not given.", in_vain=_tokens_in_vain
    )
    examples: int | None = setting(
        None, "How many examples of --task to read. All, if not given.", in_vain=_examples_in_vain
    )
    window: int = setting(256, "Tokens in a window of text; examples are cut off there.")
    steps: int = setting(200, "Optimizer steps.")
    batch: int = setting(4, "Windows, or examples, in a micro-batch.")
    accumulate: int = setting(1, "Micro-batches in a step, of all ranks together.")
    learning_rate: float = setting(4e-5, "Constant; AdamW as in the paper.")
    warmup: int = setting(0, "Steps in which the learning rate rises to that.")
    weight_decay: float = setting(0.01, "Of AdamW.")
    parallel: str | None = setting(
        None,
        "Under torchrun: ranks that share a model, as fsdp=4,tp=2,replicate=2.  [default: fsdp over all]",
        in_vain=parallel_in_vain,
    )
    amax_group: str = setting(
        "replica",
        "Scales of inputs and gradients on many ranks: each replica its own, or one for the world.",
        in_vain=_amax_group_in_vain,
    )
    loss_scale: str | None = setting(
        None, "The loss is multiplied by: a number, dynamic, or none.  [default: dynamic for fp16]"
    )
    validation: float = setting(
        0.1, "The part of the text or task, at its end, that is kept for validation.", in_vain=_validation_in_vain
    )
    dtype: str = setting("bf16", "bf16 or fp16 (autocast on float32 weights), or fp32.")
    seed: int = setting(0, "Of random weights and of the order of the data.")
    every: int = setting(10, "Record histograms of exponents on each N-th step; 0: never.", in_vain=every_in_vain)
    save_every: int = setting(100, "Write a checkpoint after each N-th step; 0: never.")
    report_to: Sequence[str] = setting((), "Also send losses and scales to tensorboard, wandb, ... Repeatable.")
    histograms_of: Sequence[str] = setting(
        (),
        "Send TensorBoard the exponents of modules whose name matches, on each --every N-th step. Repeatable.",
        option="--histograms",
        in_vain=_histograms_in_vain,
    )

    @property
    def wanted(self) -> Sequence[str]:
        """The one scaling."""
        return (self.scaling,)

    def __post_init__(self) -> None:
        self.take_recipe("scaling")
        if self.dtype not in TRAINING_DTYPES:
            raise UserError(f"unknown dtype {self.dtype!r} for training: one of {', '.join(TRAINING_DTYPES)}")
        if self.scaling in PRECISIONS and self.scaling != self.dtype:
            raise UserError(
                f"scaling {self.scaling} is no FP8, and dtype {self.dtype} is another precision: --dtype {self.scaling}"
            )
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        self._check_rates()
        for name, what in (("every", "histograms are recorded"), ("save_every", "checkpoints are written")):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: {what} every N steps, N >= 1, or never, 0")
        if self.eval_task is not None and self.task is None:
            raise UserError(f"{self.eval_task} holds labeled examples for validation: give --task the ones to train on")
        if self.amax_group not in AMAX_GROUPS:
            raise UserError(f"unknown amax group {self.amax_group!r}: one of {', '.join(AMAX_GROUPS)}")
        self.constant_loss_scale  # noqa: B018  raises if the text is none

    def _check_rates(self) -> None:
        if not 0 < self.validation < 1:
            raise UserError(f"validation={self.validation}: the part of the data kept for validation, between 0 and 1")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning rate {self.learning_rate}: must be above 0, and finite")
        if self.warmup < 0:
            raise UserError(f"warmup={self.warmup}: the steps in which the learning rate rises, at least 0")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"weight decay {self.weight_decay}: must be at least 0, and finite")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed {self.seed}: a whole number from 0 to 2**32 - 1")

    @property
    def is_loss_scale_dynamic(self) -> bool:
        """Whether the loss scale follows what the gradients bear."""
        return self.loss_scale == "dynamic" or (self.loss_scale is None and self.dtype == "fp16")

    @property
    def constant_loss_scale(self) -> float | None:
        """The loss scale, if it is one number; 1 stands for none. ValueError for another text."""
        if self.is_loss_scale_dynamic:
            return None
        if self.loss_scale in (None, "none"):
            return 1.0
        try:
            scale = float(str(self.loss_scale))
        except ValueError:
            scale = 0.0
        if not 0 < scale < float("inf"):
            raise UserError(f"loss scale {self.loss_scale!r}: a number above 0, dynamic, or none")
        return scale


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """Hyper-parameters of one model of the paper (its Tables 1 and 8)."""

    size: str
    window: int
    learning_rate: float
    loss_scale: int
    weight_decay: float


#: Size, sequence length, learning rate, loss scale, weight decay: the paper's Tables 1 and 8.
PAPER_ROWS = tuple(
    PaperRow(size=size, window=window, learning_rate=rate, loss_scale=scale, weight_decay=decay)
    for size, window, rate, scale, decay in (
        ("gpt-111m", 120, 4e-5, 512, 0.01),
        ("gpt-590m", 264, 6e-5, 4096, 0.01),
        ("gpt-1.3b", 528, 3e-5, 4096, 0.0),
        ("gpt-6.7b", 1040, 8e-6, 32768, 0.0),
        ("gpt-13b", 1080, 7e-6, 32768, 0.0),
    )
)
PAPER_BATCH = 512


def with_preset(name: str, values: dict[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Fields of `Training`, those of a preset where none was typed. ValueError for a preset that does not fit.

    A scaling that is typed and no FP8 is a precision: it takes the place of the preset's. A recipe file is a scaling.
    """
    typed = {*typed, "scaling", "formats"} if "recipe" in typed else typed
    preset = named_preset(
        name, values["model"], values["batch"], values["accumulate"] if "accumulate" in typed else None
    )
    if "scaling" in typed and values["scaling"] in TRAINING_DTYPES:
        preset["dtype"] = values["scaling"]
    return values | {field: value for field, value in preset.items() if field not in typed}


def named_preset(name: str, model: str, batch: int, accumulate: int | None = None) -> dict[str, Any]:
    """The fields of a preset, by name. ValueError for an unknown one."""
    if name != "paper":
        raise UserError(f"unknown preset {name!r}: there is paper")
    return paper_preset(model, batch, accumulate)


def paper_preset(model: str, batch: int, accumulate: int | None = None) -> dict[str, Any]:
    """The paper's training of a model whose name holds a size of the paper: fields of `Training` and their values.

    fp16 with a constant loss scale, FP8-AMAX in fnuz formats with margin 3, a constant learning rate, 512 sequences a
    step in micro-batches of `batch`, unless `accumulate` says how many. ValueError for another model, and if `batch`
    does not divide 512.
    """
    rows = [row for row in PAPER_ROWS if row.size in model.lower()]
    if not rows:
        raise UserError(f"--preset paper has no row for {model}: its sizes are {', '.join(r.size for r in PAPER_ROWS)}")
    if accumulate is None and (batch < 1 or PAPER_BATCH % batch):
        raise UserError(f"--preset paper takes {PAPER_BATCH} sequences a step, which --batch {batch} does not divide")
    row = rows[0]
    return {
        "scaling": "amax:margin=3",
        "formats": "fnuz",
        "dtype": "fp16",
        "window": row.window,
        "accumulate": PAPER_BATCH // batch if accumulate is None else accumulate,
        "learning_rate": row.learning_rate,
        "weight_decay": row.weight_decay,
        "loss_scale": str(row.loss_scale),
    }
