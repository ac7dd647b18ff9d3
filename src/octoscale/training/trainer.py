"""transformers' Trainer, with what a training in FP8 needs beyond it.

loss scale    a constant, as in the paper, or one that follows the gradients, in any precision (torch's GradScaler)
inf and NaN   a step with such gradients is skipped while the loss scale is sought; else the training stops there
checkpoints   written aside and renamed when whole, the one before is deleted after that; FP8 state is in them
names         a checkpoint holds the model's own, which save_pretrained may change (model_state.py)
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.trainer import SCHEDULER_NAME

from octoscale.conversion.state import fp8_state
from octoscale.distributed import checkpoint as parts
from octoscale.distributed.norm import total_norm
from octoscale.runs.files import TRAINED
from octoscale.system.checksums import write_checksums
from octoscale.system.manifest import write_manifest
from octoscale.system.ranks import is_first
from octoscale.system.whole_file import write_json
from octoscale.system.whole_folder import put_in_place
from octoscale.training.callback import TrainerCallback
from octoscale.training.model_state import load_state, save_state

#: In a checkpoint: the FP8 state of the model (conversion/state.py), and the seconds that the training took until then.
FP8_STATE, SECONDS = "fp8.json", "seconds.json"


def fp8_state_of(rank: int | str) -> str:
    """In a checkpoint of many ranks: the FP8 state of one of them, whose inputs and gradients are its own."""
    return f"fp8-rank{rank}.json"


#: In a checkpoint of many ranks: how many there were in each dimension of the mesh.
MESH = "mesh.json"

#: In a checkpoint of many ranks: the folder of what each of them wrote (distributed/checkpoint.py).
PARTS = "parts"

#: Where a dynamic loss scale begins.
INITIAL_SCALE = 2.0**16

_FULL = 1 << 16  # bytes that are free on a disk on which nothing can be written

#: So many steps skipped one after the other are no search for a loss scale any more: each halves it.
MAX_SKIPPED = 25


class ConstantScaler(torch.amp.GradScaler):
    """Multiplies the loss by one number and divides the gradients by it: what small gradients need in FP16 and FP8."""

    def __init__(self, device: str, scale: float) -> None:
        super().__init__(device, init_scale=scale)

    def update(self, new_scale: float | Tensor | None = None) -> None:  # noqa: ARG002  GradScaler's signature
        """Forget what the last step saw, and keep the scale."""
        super().update(self.get_scale())


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """Trainer with a loss scale: a number, or None for a dynamic one; 1 is none. fp16: autocast to float16.

    beside: writes to a model's folder what is to be there too. `seconds_before`: what earlier legs took.
    """

    def __init__(
        self,
        *args: Any,
        loss_scale: float | None = 1.0,
        fp16: bool = False,
        beside: Callable[[Path], None] | None = None,
        **options: Any,
    ) -> None:
        self._loss_scale, self._fp16, self._beside = loss_scale, fp16, beside
        self._skipped_in_a_row = 0
        self._checkpoint_parent: Path | None = None
        self.seconds_before = 0.0
        self._started = time.perf_counter()
        super().__init__(*args, **options)

    def create_accelerator_and_postprocess(self) -> None:
        """Give the accelerator the scaler; all that uses one finds it there."""
        super().create_accelerator_and_postprocess()
        device = self.args.device.type
        if self._loss_scale is None:
            self.accelerator.scaler = torch.amp.GradScaler(device, init_scale=INITIAL_SCALE)
        elif self._loss_scale != 1:
            self.accelerator.scaler = ConstantScaler(device, self._loss_scale)

    def train(self, *args: Any, **options: Any) -> Any:
        """Train; the seconds of this leg count from here."""
        self._started = time.perf_counter()
        return super().train(*args, **options)

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:
        """Accelerate's autocast, which knows float16 on a GPU only; or torch's."""
        if self._fp16:
            return torch.autocast(self.args.device.type, torch.float16)
        return super().autocast_smart_context_manager(cache_enabled)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer.optimizer)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = total_norm(gradients)
        if bool(norm.isfinite()):
            self._skipped_in_a_row = 0
            if norm > self.args.max_grad_norm > 0:
                for gradient in gradients:
                    gradient.mul_((self.args.max_grad_norm / (norm + 1e-6)).to(gradient.device))
            return norm
        self._skipped_in_a_row += 1
        if self._loss_scale is not None or self._skipped_in_a_row > MAX_SKIPPED:
            raise FloatingPointError(self._explain_stop(model))
        return norm

    def _explain_stop(self, model: nn.Module) -> str:
        step, loss = self.state.global_step + 1, float(self._tr_loss)
        skipped = f" after {MAX_SKIPPED} skipped steps" if self._loss_scale is None else ""
        remedy = "" if self._loss_scale is None else ", --loss-scale dynamic"
        return (
            f"step {step}: {self._where_not_finite(model)} holds infinity or NaN{skipped}, the loss is {loss:.4g}; "
            f"try a smaller learning rate, another --scaling{remedy}. {self._last_good()}"
        )

    def _where_not_finite(self, model: nn.Module) -> str:
        """The first cast that met infinity or NaN; without records, the last parameter: backward comes there first."""
        for callback in self.callback_handler.callbacks:
            where = callback.first_nonfinite(self.state.global_step) if isinstance(callback, TrainerCallback) else None
            if where is not None:
                return where
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        grads = {name: g.to_local() if isinstance(g, DTensor) else g for name, g in grads.items()}  # nothing is sent
        bad = [name for name, grad in grads.items() if not grad.isfinite().all()]
        return f"the gradient of {bad[-1]}" if bad else "the norm of the gradients"

    def _last_good(self) -> str:
        good = newest_checkpoint(Path(self.args.output_dir))
        return "No checkpoint was written before" if good is None else f"The last good checkpoint is {good}"

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoint_parent or super()._get_output_dir(trial))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if self._checkpoint_parent is None:
            super()._save(output_dir, state_dict)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            save_state(self.model, folder)
            torch.save(self.args, folder / transformers.trainer.TRAINING_ARGS_NAME)
        if self._beside is not None:
            self._beside(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        model, folder = self.model if model is None else model, Path(resume_from_checkpoint)
        if (folder / PARTS).is_dir():
            parts.load_model(model, folder / PARTS)
        else:
            load_state(model, folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not (Path(checkpoint) / PARTS).is_dir():
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        parts.load_optimizer(self.model, self.optimizer.optimizer, Path(checkpoint) / PARTS)
        self._load_scheduler(Path(checkpoint))

    def _load_scheduler(self, checkpoint: Path) -> None:
        """Of an optimizer that may have other groups: Trainer makes one for each mesh on which there are parameters."""
        state = torch.load(checkpoint / SCHEDULER_NAME, weights_only=True)
        for name in ("base_lrs", "_last_lr", "lr_lambdas"):
            first = state[name][0]
            assert all(value == first for value in state[name]), name  # one schedule for all
            state[name] = [first] * len(self.optimizer.param_groups)
        self.lr_scheduler.load_state_dict(state)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        name = f"checkpoint-{self.state.global_step}"
        with self._new_checkpoint(name) as temporary:
            self._checkpoint_parent = temporary.parent
            try:
                super()._save_checkpoint(model, trial)
                seconds = self.seconds_before + time.perf_counter() - self._started
                (temporary / SECONDS).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
                write_json(temporary / FP8_STATE, fp8_state(self.model))
            finally:
                self._checkpoint_parent = None

    @contextlib.contextmanager
    def _new_checkpoint(self, name: str, known: Mapping[str, int] | None = None) -> Iterator[Path]:
        """A folder for a checkpoint, which takes its place when it is whole; then the one before goes.

        known: CRCs of files there, by name, which the block may fill in.
        """
        parent = Path(self.args.output_dir)
        with _aside(parent / name) as temporary, self._explaining(name):
            yield temporary
            write_checksums(temporary, known)
        for other in checkpoints(parent)[:-1]:
            shutil.rmtree(other, ignore_errors=True)

    @contextlib.contextmanager
    def _explaining(self, name: str) -> Iterator[None]:
        """Say in one line what a full disk does to a checkpoint: torch and safetensors say it in their own words."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError) as error:
            is_full = shutil.disk_usage(self.args.output_dir).free < _FULL
            why = "the disk is full" if is_full else (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise OSError(f"cannot write {name}: {why}. {self._last_good()}") from error


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, by step."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=checkpoint_step)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step; None if there is none."""
    return next(reversed(checkpoints(folder)), None)


def checkpoint_step(checkpoint: Path) -> int:
    """The steps that were done when a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def save_model_whole(trainer: Trainer, folder: Path) -> None:
    """Write the model's checkpoint to `folder`, which is never there half."""
    if not is_first():
        trainer.save_model()  # its parts of it
        return
    with _aside(folder) as temporary, trainer._explaining(folder.name):
        trainer.save_model(str(temporary))


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder of the same name inside a hidden one; it takes the place of `folder` when the block ends well."""
    hidden = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(hidden, ignore_errors=True)
    (hidden / folder.name).mkdir(parents=True)
    try:
        yield hidden / folder.name
        write_manifest(hidden / folder.name, TRAINED)
        put_in_place(hidden / folder.name, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
