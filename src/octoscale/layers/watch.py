"""Watch: notices that a module, parameter or attribute was replaced, moved, or written to, with next to no work.

    watch = Watch(model.modules())
    watch.has_changed()          # False, until an optimizer, a merge, model.to() or a user touches a weight

What was derived from weights, such as their addresses, is good as long as nothing has changed. A write that leaves no
trace in torch (in place, through `weight.data`) is not seen.
"""

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, is_
from typing import Any

from torch import Tensor, nn

_VERSION = attrgetter("_version")


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
