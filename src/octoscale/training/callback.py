"""TrainerCallback: records a training that transformers' Trainer runs, whoever wrote the script.

    octoscale.convert(model, octoscale.Recipe.amax())
    trainer = Trainer(model=model, ..., callbacks=[octoscale.TrainerCallback("runs/mine")])

Each step it notes the casts of all three roles (runs/scales.py), and with each log of Trainer the loss and what became
of the loss scale. Before Trainer writes a checkpoint, the rows until then are on disk.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import transformers
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from octoscale.conversion.record import fp8_layers, note_modules, watch_loss_scale
from octoscale.layers.linear import Fp8Linear
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import Recorder, read_scales, run_header
from octoscale.system.lock import exclusive_run
from octoscale.training.model_state import load_renamed, save_renamed

#: Called with the steps done and the loss of the last one.
Progress = Callable[[int, float], None]


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Records every cast of all three roles, and the loss of each log.

    folder: a run's folder; run.json is written if it has none. every: histograms of exponents on each N-th step. Rows
    carry Trainer's step; with several micro-batches a step has several rows. What is evaluated in between is not
    recorded. A model without FP8 layers gets its losses logged, and no rows. Of several processes, the first records;
    all of them do, each its own rows, where they share a model that `distributed` has cut up.

    Trainer's checkpoints hold some tensors under names that it does not find again (experts of Mixtral, the head of
    GPT-NeoX): they are kept beside, and put back when the training goes on, or ends with the best checkpoint.

    Trackers (`report_to`) get the scales as scalars too if this callback comes before theirs: `put_first(trainer)`.
    """

    def __init__(
        self, folder: Path | str, *, every: int = 10, scaling: str = "", progress: Progress | None = None
    ) -> None:
        self._run = RunFolder(folder)
        self._every, self._scaling, self._progress = every, scaling, progress
        self._recorder: Recorder | None = None
        self._loss_scale: float | None = None
        self._lock = ExitStack()
        self._hook: RemovableHandle | None = None
        self.skipped = 0

    @property
    def recorder(self) -> Recorder | None:
        """What records the casts; None before the training begins and after its end, and without FP8 layers."""
        return self._recorder

    def put_first(self, trainer: Any) -> None:
        """Add this callback to a Trainer, before all others: so that what it adds to a log reaches the trackers."""
        trainer.callback_handler.callbacks.insert(0, self)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Attach a recorder to the FP8 layers; put back what Trainer did not find in its checkpoint.

        FileExistsError if another process writes to the folder.
        """
        if state.global_step > 0:
            load_renamed(model, _checkpoint(args, state))
        is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        if not (state.is_world_process_zero or is_sharded):
            return
        if state.is_world_process_zero:
            self._lock.enter_context(exclusive_run(self._run.path, join=True))
            if not self._run.header.exists():
                RunFolder.create(self._run.path, run_header(next(model.parameters()).device, scaling=self._scaling))
        if not any(isinstance(module, Fp8Linear) for module in model.modules()):
            return
        self._recorder = Recorder(
            self._run.path,
            every=self._every,
            phase="train",
            scaling=self._scaling,
            only_training=True,
            rank=args.process_index,
        )
        for layer in fp8_layers(model):
            layer.fp8.runtime.attach(self._recorder)
        recorder = self._recorder
        note_modules(model, recorder)
        self._hook = model.register_forward_hook(lambda _, __, output: watch_loss_scale(recorder, output))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Rows from now on belong to this step."""
        if self._recorder is not None:
            self._recorder.step = self._recorder.last_step = state.global_step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Remember the loss scale."""
        self._loss_scale = _loss_scale(optimizer)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Count the steps that dynamic loss scaling skips: they lower the scale. Each gets a line in metrics.jsonl."""
        scale = _loss_scale(optimizer)
        if scale is not None and self._loss_scale is not None and scale < self._loss_scale:
            self.skipped += 1
            if not state.is_world_process_zero:
                return
            row = {"step": state.global_step + 1, "skipped": True, "loss_scale": scale}
            self._run.append_metrics({"phase": "train", "scaling": self._scaling, **row})

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint of this step follows: its rows go to disk before."""
        if self._recorder is not None and (control.should_save or self._steps_to_save(args, state)):
            self._recorder.flush()

    def on_save(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Keep what the checkpoint holds under names that Trainer does not find again."""
        if state.is_world_process_zero:
            save_renamed(model, _checkpoint(args, state))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], optimizer: Any = None, **_: Any
    ) -> None:
        """Append what Trainer logs to metrics.jsonl, where a loss that is not finite is null; scales go to `logs`."""
        scale = _loss_scale(optimizer)
        if scale is not None and "loss" in logs:
            logs["loss_scale"] = scale
        if not state.is_world_process_zero:
            return
        row = {key: value if math.isfinite(value) else None for key, value in logs.items()}
        self._run.append_metrics({"phase": "train", "scaling": self._scaling, "step": state.global_step, **row})
        if "loss" in logs:
            if self._recorder is not None and args.report_to:
                logs |= self._recorder.scalars()
            if self._progress is not None:
                self._progress(state.global_step, logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        """Close the record; put back what Trainer does not find in the best checkpoint."""
        self.close(model)
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            load_renamed(model, Path(state.best_model_checkpoint))

    def close(self, model: nn.Module) -> None:
        """Write the last rows and let go of the model; Trainer calls it, unless the training ends with an error."""
        with self._lock:
            if self._recorder is not None:
                for layer in fp8_layers(model):
                    layer.fp8.runtime.attach(None)
                self._recorder.flush()
                self._recorder = None
            if self._hook is not None:
                self._hook.remove()

    def first_nonfinite(self, step: int) -> str | None:
        """Where infinity or NaN was first met in a step; None if no cast has met it."""
        if self._recorder is None:
            return None
        self._recorder.flush()
        rows = read_scales(self._run.path).filter((pl.col("step") == step) & (pl.col("nonfinite") > 0))
        if rows.is_empty():
            return None
        role, module = rows.select("role", "module").row(0)
        return {"grad_output": f"the gradient that reaches {module}"}.get(role, f"the {role} of {module}")

    @staticmethod
    def _steps_to_save(args: Any, state: Any) -> bool:
        """Whether Trainer will save after this step; its own decision comes after the callback that is first."""
        due = state.save_steps > 0 and state.global_step % state.save_steps == 0
        return bool(args.save_strategy == "steps" and (due or state.global_step >= state.max_steps))


def _checkpoint(args: Any, state: Any) -> Path:
    """Where Trainer writes the checkpoint of this step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _loss_scale(optimizer: Any) -> float | None:
    """The scale of the gradient scaler that Trainer's optimizer has; None if it has none."""
    scaler = getattr(optimizer, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())
