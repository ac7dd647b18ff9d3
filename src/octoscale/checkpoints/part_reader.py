"""Each rank reads its part of a checkpoint: of the layers that are split, its rows or columns and no others.

    with only_parts(shared_by(group)):
        model = AutoModelForCausalLM.from_pretrained(folder)       of whose FP8 layers this rank has its part
    with only_parts(these(cuts)):                                  of whose parameters this rank has these parts

transformers builds the model without values, asks us about FP8 layers, then reads. In between, the model is cut down:
for inference, layers that can be FP8, to this rank's part (distributed/held_parts.py); for training, every parameter,
to what the mesh will leave here (distributed/read_parts.py). transformers is handed slices of the files that are cut
alike. Rows stay in the file's own memory; columns are copied out of it. Renaming, ties and dtypes stay transformers'
matter. A weight that the files hold in another form, merged or split, is whole on every rank.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from octoscale.checkpoints.guard import LOAD, refuse_codes
from octoscale.checkpoints.headers import read_entries
from octoscale.checkpoints.names import parameters_of
from octoscale.checkpoints.shards import report_for_files
from octoscale.conversion.convert import preview
from octoscale.distributed.cut import Cut
from octoscale.distributed.held_parts import hold_parts
from octoscale.distributed.read_parts import leave
from octoscale.layers.stored import StoredLinear
from octoscale.numerics.recipe import Recipe

#: Cuts a model without values down, of which it gets the files too; parameter -> the part of it that is left.
CutDown = Callable[[Any, Sequence[Path]], Mapping[str, Cut]]


@dataclass(frozen=True)
class Slice:
    """What transformers takes for a tensor of a file: `[...]` reads this rank's part of it."""

    stored: Any
    cut: Cut | None

    def get_shape(self) -> list[int]:
        """Of the part."""
        return list(self.stored.get_shape() if self.cut is None else self.cut.shape)

    def get_dtype(self) -> str:
        """In safetensors' words."""
        return str(self.stored.get_dtype())

    def __getitem__(self, all_of_it: Any) -> Tensor:
        assert all_of_it is Ellipsis
        return read(self.stored, self.cut)


def read(stored: Any, cut: Cut | None) -> Tensor:
    """The part of a tensor of a file: a view of the file where it lies in one piece, else a copy."""
    if cut is None or not cut.where:
        return stored[...]  # type: ignore[no-any-return]
    part: Tensor = stored[cut.where]
    return part.contiguous()


def shared_by(group: dist.ProcessGroup) -> CutDown:
    """Leave of the layers that are FP8, or could be, this rank's part; all ranks of the group load the same checkpoint.

    UserError for a model that has no layer for FP8.
    """
    return lambda model, files: hold_parts(model, layers_to_split(model, files), group)


def these(cuts: Mapping[str, Cut]) -> CutDown:
    """Leave these parts, of all parameters that the files hold as they are, and of those that are tied to one."""

    def cut_down(model: Any, files: Sequence[Path]) -> Mapping[str, Cut]:
        names = [name for path in files for name in read_entries(path)]
        held = {target.parameter for target in parameters_of(model, names).values() if not target.merged}
        tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        held |= {other for pair in tied.items() if not held.isdisjoint(pair) for other in pair}
        left = {name: cut for name, cut in cuts.items() if name in held}
        leave(model, left)
        return left

    return cut_down


@contextmanager
def only_parts(cut_down: CutDown | None) -> Iterator[None]:
    """While the block runs, from_pretrained of this process leaves a model in parts; None changes nothing."""
    if cut_down is None:
        yield
        return
    theirs = getattr(PreTrainedModel, LOAD)

    def load(model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *rest: Any, **more: Any) -> Any:
        files = [Path(path) for path in checkpoint_files or ()]
        if state_dict is not None or any(path.suffix != ".safetensors" for path in files):
            return theirs(model, state_dict, checkpoint_files, load_config, *rest, **more)
        quantizer = load_config.hf_quantizer
        if quantizer is None or not quantizer.pre_quantized:
            refuse_codes(model, files, quantizes=quantizer is not None)
        with _slices(model, files, cut_down(model, files)) as slices:
            return theirs(model, slices, checkpoint_files, load_config, *rest, **more)

    setattr(PreTrainedModel, LOAD, staticmethod(load))
    try:
        yield
    finally:
        setattr(PreTrainedModel, LOAD, staticmethod(theirs))


def split_whole(model: Any, group: dist.ProcessGroup) -> None:
    """Cut down a model that every rank has whole: of random weights, or from a file that is not read in parts."""
    if not is_split(model):
        hold_parts(model, layers_to_split(model, ()), group)


def is_split(model: Any) -> bool:
    """Whether this rank has only a part of the model."""
    return any("ranks" in module.__dict__ or _asks(module) for module in model.modules())


def layers_to_split(model: Any, files: Sequence[Path]) -> list[str]:
    """The layers that are FP8, or that could be; without those that share their weight, or have another in the files.

    UserError if there is none.
    """
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    shared = {*tied, *tied.values()}
    names = [name for name, module in model.named_modules() if isinstance(module, StoredLinear)]
    if not names:
        report = preview(model, Recipe.amax())
        names = [row.module for row in (report_for_files(report, model, list(files)) if files else report).converted]
    return [name for name in names if not any(re.fullmatch(key, f"{name}.weight") for key in shared)]


def _asks(module: Any) -> bool:
    return isinstance(module, StoredLinear) and not module.fp8.ranks.is_alone


@contextmanager
def _slices(model: Any, files: Sequence[Path], cuts: Mapping[str, Cut]) -> Iterator[dict[str, Slice]]:
    """Name in the files -> what to read of it, as long as the block runs."""
    with ExitStack() as stack:
        stored: dict[str, Any] = {}
        for path in files:
            file = stack.enter_context(safe_open(path, framework="pt"))
            stored |= {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no dict
        targets = parameters_of(model, stored)
        cut_of = {name: cuts.get(target.parameter) for name, target in targets.items() if not target.merged}
        yield {name: Slice(part, cut_of.get(name)) for name, part in stored.items()}
