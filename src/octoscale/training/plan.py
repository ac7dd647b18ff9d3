"""Plan a run before it is paid for: bytes a rank, bytes a step, the smallest mesh that fits.

    plan(Planning(model="llama2-70b", gpus=512))       plain data: {"training": {...}, "inference": {...}, ...}

Training is what `octoscale train` does: float32 parameters under autocast, AdamW, no recomputation of activations, and
gradients of micro-batches added up before they are shared. Inference is a forward pass that keeps keys and values, in
bfloat16 but for the codes. Beside the training stands the same on the same mesh without FP8; beside inference, that of
one rank.
"""

import difflib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from octoscale.conversion.convert import convert
from octoscale.distributed import plan as simulation
from octoscale.distributed.mesh import Parallel, sizes_of
from octoscale.distributed.plan import Held, Work
from octoscale.distributed.tensor_parallel import split_layers
from octoscale.models import loading, texts
from octoscale.models.architectures import predicts_tokens
from octoscale.models.package_index import ALIASES
from octoscale.models.quiet import quietly
from octoscale.models.simulated import are_alike, simulated
from octoscale.models.sizes import SIZES
from octoscale.numerics.formats import PRECISIONS
from octoscale.numerics.recipe import Recipe, parse_scaling
from octoscale.system.errors import UserError
from octoscale.training.meshes import Search, meshes, tensor_parallel, words_of
from octoscale.training.planning import Planning
from octoscale.training.share import put

_LONGEST, _GPUS = 4096, 8

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}

#: Bytes of a parameter that a training keeps whatever the mesh: itself, its gradient and two moments in float32.
_TRAINED = 16

#: What would make room, by what is largest.
_HELP = {
    "activations": "a smaller --batch, a shorter --seq, or tp in the mesh",
    "logits": "a smaller --batch or a shorter --seq",
    "cache": "a smaller --batch or a shorter --seq",
    "gathered": "tp in the mesh",
    "casts": "an FP8 scaling, or more --gpus",
}


@quietly()
def plan(settings: Planning) -> dict[str, Any]:
    """The plan as plain data. UserError for words that do not fit, and where no mesh does."""
    return _Plan(settings).found()


@dataclass(frozen=True)
class _Plan:
    settings: Planning

    def found(self) -> dict[str, Any]:
        """All of it."""
        settings, scaling, without = self.settings, self.settings.scaling, self.settings.dtype
        parallel, held = self._training()
        training = {scaling: self._row(parallel, held)}
        inference = {}
        if scaling not in PRECISIONS:
            training[without] = self._row(parallel, self._train(parallel, without))
            inference[scaling] = self._inference()
        alone = Parallel()
        inference["bf16"] = self._row(alone, self._infer(alone, "bf16"))
        return {
            "model": settings.model,
            "gpus": self.gpus,
            "memory": settings.memory_bytes,
            "bandwidth": settings.bandwidth * 1e9,
            "seq": self.window,
            "batch": settings.batch,
            "accumulate": self._micro_batches(parallel) * parallel.num_batches,
            "dtype": without,
            "parameters": self.num_parameters,
            "chosen": settings.parallel is None,
            "training": training,
            "inference": inference,
        }

    def _row(self, parallel: Parallel, held: Held) -> dict[str, Any]:
        return {
            "parallel": words_of(parallel),
            "ranks": parallel.num_ranks,
            "bytes": {**held.parts(), "peak": held.peak},
            "fits": held.peak <= self.settings.memory_bytes,
            "moved": {name: round(bytes_) for name, bytes_ in held.moved.items()},
            "messages": dict(held.messages),
            "communication": held.communication,
            "seconds": held.communication / (self.settings.bandwidth * 1e9),
        }

    def _training(self) -> tuple[Parallel, Held]:
        """The mesh that was asked for, or the smallest that fits; what a rank of it holds."""
        settings = self.settings
        if settings.parallel is not None:
            parallel = self._asked_for(settings.parallel)
            return parallel, self._train(parallel, settings.scaling)
        groups = [
            [parallel for parallel in group if (settings.accumulate or 0) % parallel.num_batches == 0]
            for group in meshes(self.gpus, self.tps)
        ]
        search = Search(
            memory=settings.memory_bytes,
            least=_TRAINED * self.num_parameters,
            simulate=lambda parallel: self._train(parallel, settings.scaling),
            regime=lambda parallel: self._micro_batches(parallel) > 1,
        )
        parallel_, held = search.smallest(groups)
        if parallel_ is None or held is None:
            raise UserError(self._nothing_fits(held))
        return parallel_, held

    def _nothing_fits(self, held: Held | None) -> str:
        settings = self.settings
        on = f"{settings.model} does not train in {settings.memory} a rank on {self.gpus} ranks or fewer"
        if held is None:
            least = _TRAINED * self.num_parameters / self.gpus
            return (
                f"{on}: largest are parameters, gradients and optimizer, {least / 1e9:,.1f} GB a rank without all "
                "else; more --gpus would help, or more --memory"
            )
        parts = held.parts()
        largest = max(parts, key=lambda name: parts[name])
        return (
            f"{on}: the least is {held.peak / 1e9:,.1f} GB, and of that largest are the {largest}, "
            f"{parts[largest] / 1e9:,.1f} GB; {_HELP.get(largest, 'more --gpus')} would help, or more --memory"
        )

    def _asked_for(self, text: str) -> Parallel:
        """The mesh of --parallel. UserError if it does not fit the ranks, the heads, or the scaling."""
        settings, parallel = self.settings, Parallel(**sizes_of(text))
        replace(settings, gpus=parallel.num_ranks)  # so many may be more than there are anywhere
        if parallel.num_ranks != self.gpus:
            raise UserError(f"--parallel {text} is for {parallel.num_ranks} ranks, and --gpus says {self.gpus}")
        if any(count is not None and count % parallel.tp for count in self.heads):
            counts = " and ".join(str(count) for count in dict.fromkeys(self.heads) if count is not None)
            raise UserError(
                f"tp={parallel.tp} does not divide the heads of {settings.model}, {counts}: "
                f"tp of {', '.join(map(str, tensor_parallel(self.heads, parallel.num_ranks)))}"
            )
        if (settings.accumulate or 0) % parallel.num_batches:
            raise UserError(
                f"--accumulate {settings.accumulate}: the micro-batches of a step are shared by {parallel.num_batches} "
                f"replicas, which does not divide it: --accumulate {parallel.num_batches}, or a multiple"
            )
        return parallel

    def _inference(self) -> dict[str, Any]:
        """The fewest tp ranks that fit, or the most that there are."""
        rows = (self._row(Parallel(tp=tp), self._infer(Parallel(tp=tp), self.settings.scaling)) for tp in self.tps)
        row: dict[str, Any] = {}
        for row in rows:
            if row["fits"]:
                break
        return row

    def _train(self, parallel: Parallel, scaling: str) -> Held:
        def prepare(model: nn.Module, mesh: DeviceMesh | None) -> None:
            self._convert(model, scaling)
            if mesh is not None:
                put(model, mesh, self.settings.amax_group)

        micro_batches = self._micro_batches(parallel)
        return simulation.train(
            self._work(parallel, torch.float32, prepare, micro_batches, _AUTOCAST[self.settings.dtype])
        )

    def _infer(self, parallel: Parallel, scaling: str) -> Held:
        def prepare(model: nn.Module, mesh: DeviceMesh | None) -> None:
            self._convert(model, scaling)
            if mesh is not None:
                split_layers(model, mesh["tp"])

        return simulation.infer(self._work(parallel, torch.bfloat16, prepare, 1, None))

    def _convert(self, model: nn.Module, scaling: str) -> None:
        recipe = parse_scaling(scaling, self.settings.formats, self.settings.skip if scaling not in PRECISIONS else ())
        if isinstance(recipe, Recipe):
            convert(model, recipe)

    def _work(
        self, parallel: Parallel, dtype: torch.dtype, prepare: Any, micro_batches: int, autocast: torch.dtype | None
    ) -> Work:
        text = self.config.get_text_config()
        return Work(
            make=lambda num_layers: simulated(self.config, num_layers, dtype),
            prepare=prepare,
            num_layers=text.num_hidden_layers,
            vocabulary=text.vocab_size,
            parallel=parallel,
            batch=self.settings.batch,
            window=self.window,
            micro_batches=micro_batches,
            autocast=autocast,
            are_alike=are_alike(self.config),
        )

    def _micro_batches(self, parallel: Parallel) -> int:
        """Those of one replica."""
        accumulate = self.settings.accumulate
        return 1 if accumulate is None else max(1, accumulate // parallel.num_batches)

    @cached_property
    def config(self) -> Any:
        """The model's. UserError for one that is not there, or does not train."""
        spec = self.settings.model
        is_word = "/" not in spec and not spec.endswith(".gguf") and not Path(spec).exists()
        names = [*ALIASES, *SIZES]
        if is_word and spec not in names:
            near = ", ".join(difflib.get_close_matches(spec, names, n=4, cutoff=0.3) or SIZES)
            raise UserError(f"unknown model {spec!r}: near are {near}; or name a folder, or a hub id org/name")
        if loading.is_stored(spec):
            raise UserError(f"{spec} holds FP8 weights, which do not train: name the checkpoint it was made from")
        return loading.config_of(spec)

    @cached_property
    def skeleton(self) -> Any:
        """The model without weights, to count. UserError if it does not predict the next token."""
        config, model = self.config, loading.skeleton(self.settings.model)
        if not predicts_tokens(model) or not hasattr(config.get_text_config(), "num_hidden_layers"):
            raise UserError(f"{self.settings.model} is a {type(model).__name__}: a plan is for causal language models")
        return model

    @cached_property
    def num_parameters(self) -> int:
        """Those that are tied count once."""
        return sum(parameter.numel() for parameter in self.skeleton.parameters())

    @cached_property
    def window(self) -> int:
        """Tokens in a window. UserError for more than the model takes."""
        seq, positions = self.settings.seq, texts.positions_of(self.skeleton)
        if seq is not None and positions is not None and seq > positions:
            raise UserError(f"--seq {seq} is longer than the {positions} positions of {self.settings.model}")
        return seq or min(_LONGEST, positions or _LONGEST)

    @cached_property
    def gpus(self) -> int:
        """The ranks that there are."""
        if self.settings.gpus is None and self.settings.parallel is not None:
            return Parallel(**sizes_of(self.settings.parallel)).num_ranks
        return self.settings.gpus or _GPUS

    @cached_property
    def heads(self) -> list[int | None]:
        """Those of queries, and of keys and values."""
        text = self.config.get_text_config()
        return [getattr(text, name, None) for name in ("num_attention_heads", "num_key_value_heads")]

    @cached_property
    def tps(self) -> list[int]:
        """Numbers of tp ranks that the heads allow."""
        return tensor_parallel(self.heads, self.gpus)
