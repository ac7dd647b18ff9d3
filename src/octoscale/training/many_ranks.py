"""The Trainer of a model that is on several ranks: each of them reads its share of every step's micro-batches.

A step is the same whatever number of ranks there is: `accumulate` micro-batches in all, of which each replica of the
model takes its share in turn. Trainer leaves a model alone that is in parts already; what it does with its data, its
norm and its checkpoints is done here with the mesh in mind. The first rank writes, the others bring their parts.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers
from accelerate.data_loader import prepare_data_loader  # type: ignore[import-untyped]
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.data import DataLoader
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction
from transformers.utils import SAFE_WEIGHTS_NAME

from octoscale.conversion.state import fp8_state, largest_state
from octoscale.distributed import checkpoint as parts
from octoscale.distributed.mesh import of_first, sizes_on, together
from octoscale.system.checksums import crc_of
from octoscale.system.errors import UserError
from octoscale.system.ranks import is_first
from octoscale.system.whole_file import write_json
from octoscale.training.trainer import FP8_STATE, MESH, PARTS, SECONDS, Trainer, fp8_state_of


class ManyRanksTrainer(Trainer):
    """Trainer for a model that `distributed` has put on a mesh. UserError for a transformers that cannot take one."""

    def __init__(self, *args: Any, mesh: DeviceMesh, **options: Any) -> None:
        model = options["model"]
        if not hasattr(model, "is_distributed_loading_by_transformers"):
            raise UserError(
                "training on many ranks needs a transformers whose Trainer leaves sharded models alone, 5.23 or later, "
                f"not {transformers.__version__}"
            )
        model._is_distributed_loading_by_transformers = True
        self._mesh, self._tp_size = mesh, mesh["tp"].size()
        self._num_batches = mesh["replicate"].size() * mesh["fsdp"].size()
        self._batch = mesh.get_local_rank("replicate") * mesh["fsdp"].size() + mesh.get_local_rank("fsdp")
        super().__init__(*args, **options)

    def create_accelerator_and_postprocess(self) -> None:
        """As Trainer, with data for replicas, not for ranks."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_data_loader = self._share_of

    def get_tp_size(self) -> int:
        """How many ranks read the same batch: Trainer divides by it the tokens that it has counted."""
        return self._tp_size if self.args.average_tokens_across_devices else 1

    def _share_of(self, loader: Any, **_: Any) -> Any:
        """This replica's batches of a loader: every n-th of n replicas."""
        accelerator = self.accelerator
        share = prepare_data_loader(
            loader,
            accelerator.device,
            num_processes=self._num_batches,
            process_index=self._batch,
            put_on_device=True,
            rng_types=accelerator.rng_types.copy(),
            use_seedable_sampler=accelerator.use_seedable_sampler,
            data_seed=accelerator.dataloader_config.data_seed,
        )
        accelerator._dataloaders.append(share)
        return share

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """All batches of one process; which of them are this replica's is for `evaluation_loop` to say."""
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(data, batch_size=self.args.eval_batch_size, collate_fn=self.data_collator)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,  # noqa: ARG002  Trainer's signature
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Each replica reads its share of the batches, as they are in one process: the results are the same."""
        self.model.eval()
        if not self.accelerator._models:  # before the training: Trainer prepares it there
            self.accelerator.prepare_model(self.model, device_placement=False, evaluation_mode=True)
        mine, batches = {}, list(enumerate(dataloader))
        for first in range(0, len(batches), self._num_batches):
            turn = batches[first : first + self._num_batches]
            number, batch = turn[min(self._batch, len(turn) - 1)]  # who has none reads another's, for all wait for all
            with self._alone():
                found = self.prediction_step(self.model, batch, bool(prediction_loss_only), ignore_keys)
            mine[number] = (len(batch["labels"]), *(None if part is None else part.cpu().numpy() for part in found))
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, mine)
        by_number = {number: found for of_rank in said for number, found in of_rank.items()}
        sizes, losses, logits, labels = zip(*(by_number[number] for number, _ in batches), strict=True)
        metrics = {}
        if self.compute_metrics is not None:
            whole = EvalPrediction(predictions=np.concatenate(logits), label_ids=np.concatenate(labels))
            metrics = self.compute_metrics(whole)
        metrics["loss"] = np.repeat(losses, sizes).mean().item()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=sum(sizes))

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """As Trainer; an optimizer that is made next finds the parameters in their parts again."""
        found = super().evaluate(*args, **options)
        self.model.reshard()
        return found

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """As Trainer, but backward starts from what one process would start from, and gradients are added up.

        Trainer would start from a loss that is larger by the number of replicas, for gradients that are averaged.
        """
        mine: int = self.current_gradient_accumulation_steps  # type: ignore[has-type]
        self.current_gradient_accumulation_steps = mine * self._num_batches  # what the loss of a classifier is over
        with self._alone():
            loss: Tensor = super().training_step(*args, **options)
        self.current_gradient_accumulation_steps = mine
        return loss * self._num_batches  # Trainer logs the mean over the ranks

    def _clip_grad_norm(self, model: Any) -> Any:
        """As Trainer; what the norm says of all parts decides on every rank whether a step is skipped."""
        norm = super()._clip_grad_norm(model)
        scaler = self.accelerator.scaler
        if scaler is not None:
            for found in scaler._per_optimizer_states[id(self.optimizer.optimizer)]["found_inf_per_device"].values():
                found.fill_(float(not norm.isfinite()))
        return norm

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While the block runs, Trainer leaves the loss of this rank's tokens as it is."""
        self.args.average_tokens_across_devices = False
        try:
            yield
        finally:
            self.args.average_tokens_across_devices = True

    @contextlib.contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """While the block runs, gradients of micro-batches are added up where they are."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model; all ranks call it."""
        state = parts.whole_state(self.model)
        if is_first():
            self._save(output_dir, state)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002  Trainer's signature
        name = f"checkpoint-{self.state.global_step}"
        crcs: dict[str, int] = {}
        with self._checkpoint(name, crcs) as folder:
            parts.save(self.model, self.optimizer.optimizer, folder / PARTS)
            state = fp8_state(self.model)
            of_ranks: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(of_ranks, state)
            together(lambda: self._write_own(folder, state, of_ranks))
            dist.all_gather_object(of_ranks, together(lambda: _crcs_of_own(folder)))
            for of_rank in of_ranks:
                crcs.update(of_rank)

    def _write_own(self, folder: Path, state: dict[str, Any], of_ranks: list[dict[str, Any]]) -> None:
        """What this rank writes into a checkpoint besides its parts; the first one, what is of all."""
        write_json(folder / fp8_state_of(dist.get_rank()), state)
        self._save_rng_state(str(folder))
        if is_first():
            self._save_scaler(str(folder))
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            seconds = self.seconds_before + time.perf_counter() - self._started
            (folder / SECONDS).write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
            write_json(folder / FP8_STATE, largest_state(of_ranks))
            write_json(folder / MESH, sizes_on(self._mesh))

    @contextlib.contextmanager
    def _checkpoint(self, name: str, crcs: dict[str, int]) -> Iterator[Path]:
        """A folder that all ranks write to, which the first one puts in its place when all have written."""
        if is_first():
            with self._new_checkpoint(name, crcs) as temporary:
                of_first(str(temporary))
                yield temporary
                dist.barrier()
        else:
            yield Path(of_first(""))
            dist.barrier()
        dist.barrier()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if (folder / PARTS).is_dir():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            parts.take_model(self.model, load_file(folder / SAFE_WEIGHTS_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or (Path(checkpoint) / PARTS).is_dir():
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        parts.take_optimizer(self.optimizer.optimizer, state, self._as_one_process_has_them())
        self._load_scheduler(Path(checkpoint))

    def _as_one_process_has_them(self) -> list[Any]:
        """The parameters in the order of its optimizer: those with weight decay, then those without."""
        decayed = set(self.get_decay_parameter_names(self.model))
        trained = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        return [p for name, p in trained if name in decayed] + [p for name, p in trained if name not in decayed]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As Trainer; ranks that compute one replica draw the same random numbers, whoever wrote the checkpoint."""
        super()._load_rng_state(checkpoint)
        state: list[Any] = [(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)]
        dist.broadcast_object_list(state, group=self._mesh.get_group("tp"), group_src=0)
        on_cpu, on_gpu = state[0]
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)


def _crcs_of_own(folder: Path) -> dict[str, int]:
    """Name in a checkpoint -> CRC of each part that this rank wrote: the large files, which no other rank need read."""
    own = (folder / PARTS).glob(f"__{dist.get_rank()}_*.distcp")
    return {path.relative_to(folder).as_posix(): crc_of(path) for path in own}
