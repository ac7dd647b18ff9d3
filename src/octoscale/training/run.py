"""Train a causal language model or a classifier in FP8. The loop is transformers' Trainer; here it gets its parts.

    run_training(Training(model="gpt-111m", scaling="amax"), Path("runs/mine"))

Parameters are float32, the master weights; activations are bfloat16 or float16 under autocast, unless dtype is fp32.
Each FP8 layer casts its weight once per optimizer step, and keeps FP8 codes for backward (layers/linear.py). In a
script of your own, `convert` the model and give Trainer an `octoscale.TrainerCallback(folder)`: nothing else changes.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from octoscale.conversion.convert import convert, preview
from octoscale.conversion.patterns import check_patterns
from octoscale.conversion.state import load_fp8_state
from octoscale.distributed.mesh import by_first, explained, sizes_on
from octoscale.distributed.run_folder import held_by_first
from octoscale.layers.bf16_gemm import bf16_through_float32
from octoscale.layers.linear import Fp8Linear
from octoscale.models import loading, texts
from octoscale.models.loading import LoadedModel
from octoscale.models.quiet import quietly
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import run_header
from octoscale.system.errors import UserError
from octoscale.system.ranks import is_first
from octoscale.system.whole_file import write_json
from octoscale.training import resume
from octoscale.training.callback import Progress, TrainerCallback
from octoscale.training.data import Data, labeled_data, only_logits, read_labeled_texts, text_data
from octoscale.training.first_batch import check_first_batch
from octoscale.training.many_ranks import ManyRanksTrainer
from octoscale.training.model_state import own_memory
from octoscale.training.settings import Training
from octoscale.training.share import (
    can_read_in_parts,
    check_shared_first_batch,
    meet,
    num_batches,
    read_in_parts,
    share,
)
from octoscale.training.tensorboard import HistogramCallback
from octoscale.training.trained_files import save_reader
from octoscale.training.trainer import Trainer, checkpoint_step, save_model_whole


@quietly()
def run_training(
    settings: Training,
    folder: Path,
    *,
    overwrite: bool = False,
    go_on: bool = False,
    progress: Progress | None = None,
) -> RunFolder:
    """Train as `settings` say, and write the run to `folder`: records, losses, checkpoints, summary, trained model.

    go_on: from the newest checkpoint in `folder`, whose settings must be the same but for the number of steps; from the
    beginning if it holds none. All input is checked before the folder is made or changed. Raises UserError or OSError,
    naming the remedy, for anything in the settings that cannot be had, and FloatingPointError for gradients that are
    not finite: the run keeps what was until then.
    """
    run, mesh = RunFolder(folder), meet(settings)
    if go_on and run.header.exists() and not run.is_emptied:
        with held_by_first(folder):
            return _go_on(settings, run, mesh, progress)
    parts = _prepare(settings, mesh)
    with held_by_first(folder):
        by_first(lambda: RunFolder.create(folder, _header(settings, parts), overwrite=overwrite))
        _train(settings, parts, run, None, progress)
    return run


def _go_on(settings: Training, run: RunFolder, mesh: DeviceMesh | None, progress: Progress | None) -> RunFolder:
    """Go on with a run that is there, unless it is finished."""
    resume.check_same_settings(run, settings)
    if not resume.is_finished(run, settings):
        parts = _prepare(settings, mesh)
        checkpoint = by_first(lambda: resume.take_back(run))
        if checkpoint is None:
            by_first(lambda: RunFolder.create(run.path, _header(settings, parts), overwrite=True))
        _train(settings, parts, run, checkpoint, progress)
    return run


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The model, in FP8 if the settings say so, its data, and the mesh of ranks that share it, if there are several."""

    loaded: LoadedModel
    data: Data
    mesh: DeviceMesh | None


def _header(settings: Training, parts: _Parts) -> dict[str, Any]:
    return run_header(parts.loaded.model.device, plan=resume.settings_to_json(settings), note=parts.loaded.note)


def _prepare(settings: Training, mesh: DeviceMesh | None) -> _Parts:
    """Read what the settings name, the cheap things first; nothing is written."""
    scaling = parse_scaling(settings.scaling, settings.formats, settings.skip)
    _check_trackers(settings)
    if loading.is_stored(settings.model):
        raise UserError(f"{settings.model} holds FP8 weights, which do not train: name the checkpoint it was made from")
    transformers.set_seed(settings.seed)
    in_parts = can_read_in_parts(settings, mesh)
    if settings.task is None:
        text = texts.read_text(settings.text)
        if mesh is not None and in_parts:
            loaded = read_in_parts(settings, scaling, mesh)
        else:
            loaded = loading.load(settings.model, torch.float32, seed=settings.seed)
            loading.check_causal(loaded.model, settings.model)
        texts.check_window(settings.window, loaded.model)
        data = text_data(settings, text, loaded)
    else:
        train, validation = read_labeled_texts(settings)
        loaded = loading.load(settings.model, torch.float32, num_labels=len(train.classes), seed=settings.seed)
        texts.check_window(settings.window, loaded.model)
        data = labeled_data(settings, train, validation, loaded)
    first = [data.train[index] for index in range(min(2, settings.batch, len(data.train)))]
    if in_parts:
        check_shared_first_batch(settings, loaded.model, data.collate(first))
    else:
        _put_into_fp8(settings, scaling, loaded.model, data.collate(first), mesh)
    in_fp8 = [name for name, module in loaded.model.named_modules() if isinstance(module, Fp8Linear)]
    check_patterns("--histograms", settings.histograms_of, "FP8 layer", in_fp8)
    return _Parts(loaded=loaded, data=data, mesh=mesh)


def _put_into_fp8(
    settings: Training, scaling: Recipe | str, model: Any, first: Mapping[str, Tensor], mesh: DeviceMesh | None
) -> None:
    """If the settings say so; and a model that every rank has whole, on the mesh."""
    check_first_batch(settings.model, model, first, settings.dtype)
    own_memory(model)
    if isinstance(scaling, Recipe):
        preview(model, scaling)
        convert(model, scaling)
    if mesh is not None:
        share(model, mesh, settings)


def _train(
    settings: Training, parts: _Parts, run: RunFolder, checkpoint: Path | None, progress: Progress | None
) -> None:
    with bf16_through_float32(parts.loaded.model):
        _train_as_it_is(settings, parts, run, checkpoint, progress)


def _train_as_it_is(
    settings: Training, parts: _Parts, run: RunFolder, checkpoint: Path | None, progress: Progress | None
) -> None:
    model = parts.loaded.model
    callback = TrainerCallback(run.path, every=settings.every, scaling=settings.scaling, progress=progress)
    make = Trainer if parts.mesh is None else partial(ManyRanksTrainer, mesh=parts.mesh)
    trainer = make(
        model=model,
        args=_arguments(settings, run, parts.mesh),
        train_dataset=parts.data.train,
        eval_dataset=parts.data.validation,
        data_collator=parts.data.collate,
        compute_metrics=parts.data.metrics,
        loss_scale=settings.constant_loss_scale,
        fp16=settings.dtype == "fp16",
        beside=partial(save_reader, parts.loaded),
        preprocess_logits_for_metrics=only_logits,
    )
    callback.put_first(trainer)
    _report_below(trainer, run, callback, settings.histograms_of)
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    if checkpoint is None:
        trainer.evaluate()
    else:
        load_fp8_state(model, resume.read_state(checkpoint, sizes_on(parts.mesh)))
        trainer.seconds_before = resume.read_seconds(checkpoint)
    if checkpoint is None or checkpoint_step(checkpoint) < settings.steps:
        try:
            with explained():
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            callback.close(model)
    else:  # it was stopped after its last step
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = transformers.TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    trainer.evaluate()
    save_model_whole(trainer, run.model)
    if is_first():
        write_json(run.summary, _summary(settings, run, checkpoint, trainer.seconds_before))


def _summary(settings: Training, run: RunFolder, checkpoint: Path | None, seconds_before: float) -> dict[str, Any]:
    """The results, from the lines that the training wrote."""
    rows = run.read_metrics()
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    evaluations = [row for row in rows if "eval_loss" in row]
    summary = {
        "model": settings.model,
        "scaling": settings.scaling,
        "steps": settings.steps,
        "skipped_steps": sum(row.get("skipped", False) for row in rows),
        "training_loss": statistics.fmean(losses) if losses else None,
        "validation_loss": {"before": evaluations[0]["eval_loss"], "after": evaluations[-1]["eval_loss"]},
        "seconds": seconds_before + sum(row.get("train_runtime", 0.0) for row in rows),
    }
    if settings.task is None:
        summary["tokens"] = settings.steps * settings.accumulate * settings.batch * settings.window
    else:
        summary["examples"] = settings.steps * settings.accumulate * settings.batch
        summary["validation_accuracy"] = {
            "before": evaluations[0]["eval_accuracy"],
            "after": evaluations[-1]["eval_accuracy"],
        }
    if evaluations[-1]["eval_loss"] is None:
        summary["failure"] = (
            "the validation loss is not finite at the end: the trained model's logits hold infinity or NaN"
        )
    if checkpoint is not None:
        summary["resumed_after_step"] = checkpoint_step(checkpoint)
    return summary


def _arguments(settings: Training, run: RunFolder, mesh: DeviceMesh | None) -> Any:
    """Trainer's arguments: the paper's AdamW and constant learning rate."""
    return transformers.TrainingArguments(
        output_dir=str(run.checkpoints),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        per_device_eval_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate // num_batches(mesh),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-5,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 1,
        save_only_model=mesh is not None,  # as Trainer sees it; the rest is many_ranks.py's
        report_to=list(settings.report_to),
        remove_unused_columns=False,  # what a forward's signature does not name, labels too
        label_names=["labels"],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=not torch.accelerator.is_available(),
        bf16=settings.dtype == "bf16",
    )


def _report_below(trainer: Trainer, run: RunFolder, ours: TrainerCallback, histograms_of: Sequence[str]) -> None:
    """TensorBoard's events go to the run's folder, unless its environment variable says otherwise."""
    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, transformers.integrations.TensorBoardCallback):
            callback.logging_dir = callback.logging_dir or str(run.path / "tensorboard")
            if histograms_of:
                trainer.add_callback(HistogramCallback(callback, lambda: ours.recorder, histograms_of))


def _check_trackers(settings: Training) -> None:
    """ValueError for a tracker whose package is missing; Trainer would say so after the model is loaded."""
    installed = transformers.integrations.get_available_reporting_integrations()
    for name in settings.report_to:
        if name not in installed:
            raise UserError(f"cannot report to {name}: install its package; there is {', '.join(installed) or 'none'}")
