"""What has not changed need not be computed again: a weight's cast, an input's, addresses of weights.

    seen = Seen(weight)
    seen.is_still(weight)        # False, once something was written to it
    watch = Watch(model.modules())
    watch.has_changed()          # False, until an optimizer, a merge, model.to() or a user touches a weight

A write that leaves no trace in torch (in place, through `weight.data`) is not seen; after one, call
`octoscale.forget_casts`.
"""

import threading
import weakref
from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter, is_
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from octoscale.kernels.ops import Quantized
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Delayed
from octoscale.runs.scales import Recorder

_VERSION = attrgetter("_version")


class Seen:
    """A tensor at one moment, held weakly: tells whether another look finds the same tensor, unchanged.

    Unchanged means: the same object, the same memory, no write that autograd counts, and no optimizer step in between
    (fused optimizers and writes to `.data` are not counted). A write to `.data` by hand goes unnoticed:
    `octoscale.forget_casts` is for that.
    """

    def __init__(self, x: Tensor, forget: Callable[[object], None] | None = None) -> None:
        self._ref = weakref.ref(x, forget)
        self._state = self._state_of(x)

    def is_still(self, x: Tensor) -> bool:
        """Whether `x` is this tensor and was not changed since. Tensors of inference_mode cannot tell: False."""
        return self._ref() is x and self._state is not None and self._state == self._state_of(x)

    @staticmethod
    def _state_of(x: Tensor) -> tuple[Any, ...] | None:
        if x.is_inference():
            return None
        # A weak reference to the memory is never equal to one to other memory, even at an address that comes back.
        memory = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
        steps = optimizer_steps.count if x.requires_grad else 0
        return (x._version, memory, x.storage_offset(), x.shape, x.stride(), x.dtype, x.device, steps)


class _OptimizerSteps:
    """Counts the steps of all of torch's optimizers in this process."""

    def __init__(self) -> None:
        self.count = 0
        register_optimizer_step_post_hook(self._step)

    def _step(self, *_: object) -> None:
        self.count += 1


optimizer_steps = _OptimizerSteps()


class _LastCast(threading.local):
    """The last input that was cast, so that the siblings that take the same tensor share its codes."""

    _seen: Seen | None = None
    _terms: tuple[Operand, Recorder | None] | None = None
    _cast: Quantized | None = None

    def get(self, x: Tensor, operand: Operand, recorder: Recorder | None) -> Quantized | None:
        """The cast of this very tensor under the same terms; None if it was not the last one."""
        same = self._seen is not None and self._seen.is_still(x) and self._terms == (operand, recorder)
        return self._cast if same else None

    def put(self, x: Tensor, operand: Operand, recorder: Recorder | None, cast: Quantized) -> None:
        """Remember a cast, as long as its tensor lives."""
        if not isinstance(operand.rule, Delayed):  # there, each layer has its own history
            self._seen, self._terms, self._cast = Seen(x, self._forget), (operand, recorder), cast

    def _forget(self, _: object = None) -> None:
        self._seen = self._terms = self._cast = None


last_cast = _LastCast()


class Watch:
    """What modules own, their parameters, submodules and attributes, as it was when the watch was made."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._tables: list[dict[str, Any]] = []
        for module in modules:
            self._tables += [table for table in (module._parameters, module._modules, module.__dict__) if table]
        self._entries = self._read()
        self._tensors = [entry for entry in self._entries if isinstance(entry, Tensor)]
        self._addresses = list(map(Tensor.data_ptr, self._tensors))
        self._versions = list(map(_VERSION, self._tensors))

    def has_changed(self) -> bool:
        """Whether anything is another thing, elsewhere, or of another version."""
        entries = self._read()
        return not (
            len(entries) == len(self._entries)
            and all(map(is_, entries, self._entries))
            and list(map(Tensor.data_ptr, self._tensors)) == self._addresses
            and list(map(_VERSION, self._tensors)) == self._versions
        )

    def _read(self) -> list[Any]:
        return list(chain.from_iterable(map(dict.values, self._tables)))
