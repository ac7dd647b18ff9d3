"""Train a causal language model in FP8. The loop is transformers' Trainer; here it gets a model, data and a recorder.

    run_training(Training(model="gpt-111m", scaling="amax"), Path("runs/mine"))

Parameters are float32, the master weights; activations are bfloat16 under Trainer's autocast, unless dtype is fp32.
Each FP8 layer casts its weight once per optimizer step, and keeps FP8 codes for backward (linear.py). In a script of
your own, `convert` the model and give Trainer an `octoscale.TrainerCallback(folder)`: nothing else changes.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from octoscale import models, tasks
from octoscale.convert import convert
from octoscale.convert import plan as plan_conversion
from octoscale.recipe import Recipe, parse_scaling
from octoscale.runfolder import RunFolder, write_json
from octoscale.telemetry import Recorder, fp8_layers, run_header
from octoscale.training import TRAINING_DTYPES, Training

#: Called with the steps done and the loss of the last one.
Progress = Callable[[int, float], None]


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Records a training that transformers' Trainer runs: every cast of all three roles, and the loss of each log.

    folder: a run's folder; run.json is written if it has none. every: histograms of exponents on each N-th step. Rows
    carry Trainer's step; with several micro-batches a step has several rows. What is evaluated in between is not
    recorded. A model without FP8 layers gets its losses logged, and no rows.
    """

    def __init__(
        self, folder: Path | str, *, every: int = 10, scaling: str = "", progress: Progress | None = None
    ) -> None:
        self._run = RunFolder(folder)
        self._every, self._scaling, self._progress = every, scaling, progress
        self._recorder: Recorder | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Attach a recorder to the FP8 layers."""
        if not self._run.header.exists():
            RunFolder.create(self._run.path, run_header(next(model.parameters()).device, scaling=self._scaling))
        if not _has_fp8(model):
            return
        self._recorder = Recorder(
            self._run.path, every=self._every, phase="train", scaling=self._scaling, only_training=True
        )
        for layer in fp8_layers(model):
            layer.fp8.runtime.attach(self._recorder)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Rows from now on belong to this step."""
        if self._recorder is not None:
            self._recorder.step = self._recorder.last_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Append what Trainer logs to metrics.jsonl; a loss that is not finite is null there."""
        row = {key: value if math.isfinite(value) else None for key, value in (logs or {}).items()}
        self._run.append_metrics({"phase": "train", "scaling": self._scaling, "step": state.global_step, **row})
        if self._progress is not None and "loss" in row:
            self._progress(state.global_step, (logs or {})["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Close the record."""
        self.close(model)

    def close(self, model: nn.Module) -> None:
        """Write the last rows and let go of the model; Trainer calls it, unless the training ends with an error."""
        if self._recorder is not None:
            for layer in fp8_layers(model):
                layer.fp8.runtime.attach(None)
            self._recorder.flush()
            self._recorder = None


def run_training(
    plan: Training, folder: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> RunFolder:
    """Carry out `plan` and write its run to `folder`: records, losses, summary.json and the trained model.

    All input is checked before the folder is made. Raises ValueError or OSError, naming the remedy, for anything in the
    plan that cannot be had, and FloatingPointError if the loss stops being finite: the run keeps what was until then.
    """
    scaling = parse_scaling(plan.scaling, plan.formats, plan.skip)
    text = tasks.read_text(plan.text)
    transformers.set_seed(plan.seed)
    loaded = models.load(plan.model, torch.float32)
    if loaded.encode is None:
        raise ValueError(f"{loaded.note}; without it, {plan.model} cannot read a text")
    train, validation = _split(
        tasks.token_windows(text, loaded.encode, window=plan.window, num_tokens=plan.tokens), plan
    )
    if isinstance(scaling, Recipe):
        plan_conversion(loaded.model, scaling)
        convert(loaded.model, scaling)
    run = RunFolder.create(
        folder, run_header(loaded.model.device, plan=asdict(plan), note=loaded.note), overwrite=overwrite
    )
    callback = TrainerCallback(folder, every=plan.every, scaling=plan.scaling, progress=progress)
    trainer = transformers.Trainer(
        model=loaded.model,
        args=_arguments(plan, run),
        train_dataset=_Windows(train),
        eval_dataset=_Windows(validation),
        callbacks=[callback, _StopAtNonFinite()],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    before = trainer.evaluate()["eval_loss"]
    try:
        result = trainer.train()
    finally:
        callback.close(loaded.model)
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(run.path / "model"))
    write_json(
        run.summary,
        {
            "model": plan.model,
            "scaling": plan.scaling,
            "steps": result.global_step,
            "tokens": result.global_step * plan.accumulate * plan.batch * plan.window,
            "training_loss": result.training_loss,
            "validation_loss": {"before": before, "after": after},
            "seconds": result.metrics["train_runtime"],
        },
    )
    return run


class _Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Windows of tokens as Trainer takes them; the labels are the tokens, which the model shifts."""

    def __init__(self, windows: Tensor) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self._windows[index], "labels": self._windows[index]}


class _StopAtNonFinite(transformers.TrainerCallback):  # type: ignore[misc]
    """Ends a training whose loss is infinite or NaN: without loss scaling, it will not come back."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {state.global_step}: octoscale report shows which scale"
            )


def _split(windows: Tensor, plan: Training) -> tuple[Tensor, Tensor]:
    """Windows for training, and the last ones for validation."""
    num_validation = max(1, round(len(windows) * plan.validation))
    if len(windows) - num_validation < 1:
        raise ValueError(
            f"the text fills {len(windows)} window of {plan.window} tokens; training needs one and validation another: "
            "give a longer text or a smaller --window"
        )
    return windows[:-num_validation], windows[-num_validation:]


def _arguments(plan: Training, run: RunFolder) -> Any:
    """Trainer's arguments: the paper's AdamW and constant learning rate."""
    return transformers.TrainingArguments(
        output_dir=str(run.path / "checkpoints"),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch,
        per_device_eval_batch_size=plan.batch,
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-5,
        weight_decay=0.01,
        seed=plan.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.accelerator.is_available(),
        **TRAINING_DTYPES[plan.dtype],
    )


def _has_fp8(model: nn.Module) -> bool:
    return any(hasattr(module, "fp8") for module in model.modules())
