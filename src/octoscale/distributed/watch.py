"""What a step holds and moves, watched operation by operation while it runs on fake tensors.

    watch = Watch(model, vocabulary)
    with fake_mode, watch: loss = model(...)        watch.peaks, watch.moved, watch.most

torch has MemTracker, FSDPMemTracker and CommDebugMode for this. They look at the outermost tensors, and FSDP2 holds our
weights as tensor subclasses whose memory is elsewhere (part.py, gathered.py: codes of one byte under a weight of four).
So this mode lets those subclasses do their work, sees the plain tensors that they work with, and adds up storages: an
operation's results are alive from then on until Python frees them, and FSDP2 gives a storage the size 0.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, _sharding_prop
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from octoscale.distributed.part import Part
from octoscale.layers.gathered import Gathered
from octoscale.layers.linear import Fp8Linear

_aten = torch.ops.aten

#: Collectives, which tensor of theirs is the whole, and how often a rank sends its share of it in a ring: of n parts,
#: n - 1; in an all-reduce twice.
_COLLECTIVES = {
    "c10d::_allgather_base_": ("all-gather", 0, 1),
    "c10d::allgather_": ("all-gather", 0, 1),
    "c10d::_reduce_scatter_base_": ("reduce-scatter", 1, 1),
    "c10d::allreduce_": ("all-reduce", 0, 2),
}


#: So many calls lie at most between DTensor's question about shapes and an operation.
_DEEP = 24


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """peaks: the most bytes in each segment of a step. moved: bytes that this rank sends, by collective; messages: how
    often it takes part in one.

    most: the most bytes of gathered weights, and of logits: what has the vocabulary as its last dimension. `segment`
    is for the caller to name. copies: weights in another dtype, as autocast makes them.
    """

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.vocabulary = model, vocabulary
        self.segment = "begin"
        self.peaks: dict[str, int] = defaultdict(int)
        self.moved: dict[str, float] = defaultdict(float)
        self.messages: dict[str, int] = defaultdict(int)
        self.most = {"gathered": 0, "logits": 0}
        self.copies: WeakSet[torch.UntypedStorage] = WeakSet()
        self._logits: WeakSet[torch.UntypedStorage] = WeakSet()
        self._alive: WeakSet[torch.UntypedStorage] = WeakSet()
        self._alive.update(storages([*model.parameters(), *model.buffers()]))
        self._fsdp = list(_fsdp_parameters(model))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation of plain tensors, and look; those of subclasses come back here with plain ones."""
        if any(issubclass(kind, DTensor | Part | Gathered) for kind in types):
            return NotImplemented
        if func.namespace == "c10d":
            self._count(func, args)
        out = func(*args, **(kwargs or {}))
        if _is_about_shapes():
            return out
        made = [x for x in pytree.tree_leaves(out) if isinstance(x, Tensor)]
        for x in made:
            if x.ndim > 1 and x.shape[-1] == self.vocabulary and storages([x]).isdisjoint(self._alive):
                self._logits.update(storages([x]))
        self._alive.update(storages(made))
        if func is _aten._to_copy.default and not storages(args[:1]).isdisjoint(self.weights()):
            self.copies.update(storages(made))
        self._look()
        return out

    def weights(self) -> set[torch.UntypedStorage]:
        """The memory of the parameters, and of those that FSDP2 has gathered."""
        return storages(self.model.parameters()) | self.gathered()

    def gathered(self) -> set[torch.UntypedStorage]:
        """The memory of whole weights that FSDP2 has gathered, or has freed and will use again."""
        found: set[torch.UntypedStorage] = set()
        for parameter in self._fsdp:
            found |= storages(parameter.all_gather_outputs)
            found |= storages([parameter._unsharded_param] if hasattr(parameter, "_unsharded_param") else [])
        return found

    def _look(self) -> None:
        self.peaks[self.segment] = max(self.peaks[self.segment], size(self._alive))
        self.most["gathered"] = max(self.most["gathered"], size(self.gathered()))
        self.most["logits"] = max(self.most["logits"], size(self._logits))

    def _count(self, func: Any, args: Any) -> None:
        name = func.name().partition(".")[0]
        if name not in _COLLECTIVES:
            return
        kind, position, times = _COLLECTIVES[name]
        whole = sum(x.nbytes for x in pytree.tree_leaves(args[position]))
        group = next(ProcessGroup.unbox(x) for x in args if isinstance(x, torch.ScriptObject))
        if group.size() > 1:
            self.moved[kind] += times * whole * (group.size() - 1) / group.size()
            self.messages[kind] += 1


def storages(tensors: Iterable[Any]) -> set[torch.UntypedStorage]:
    """The memory of these tensors, or of what stands inside of them."""
    return {storage for x in tensors if isinstance(x, Tensor) for storage in _inside(x)}


def size(found: Iterable[torch.UntypedStorage]) -> int:
    """Bytes, as they are now."""
    return sum(storage.nbytes() for storage in found)


def gradients(model: nn.Module) -> set[torch.UntypedStorage]:
    """The memory of the gradients, of those too that FSDP2 adds up before it shares them."""
    found = [parameter.grad for parameter in model.parameters()]
    for parameter in _fsdp_parameters(model):
        whole = getattr(parameter, "_unsharded_param", None)
        found += [parameter.unsharded_accumulated_grad, None if whole is None else whole.grad]
    return storages(found)


def casts(model: nn.Module) -> set[torch.UntypedStorage]:
    """The memory of the weights' codes that layers keep."""
    kept = [module.fp8.runtime.weight[1] for module in model.modules() if isinstance(module, Fp8Linear)]
    return storages([cast.codes for cast in kept if cast is not None])


def _is_about_shapes() -> bool:
    """Whether DTensor asks, with fakes of whole tensors, what the result of an operation will look like."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_DEEP):
        if frame is None or frame.f_code.co_filename == _sharding_prop.__file__:
            return frame is not None
        frame = frame.f_back
    return False


def _inside(x: Any) -> Iterator[torch.UntypedStorage]:
    if isinstance(x, DTensor):
        yield from _inside(x._local_tensor)
    elif isinstance(x, Part):
        yield from _inside(x.rows)
    elif isinstance(x, Gathered):
        yield from _inside(x.cast.codes)
    else:
        yield x.untyped_storage()


def _fsdp_parameters(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        group = module._get_fsdp_state()._fsdp_param_group if isinstance(module, FSDPModule) else None
        yield from [] if group is None else group.fsdp_params
