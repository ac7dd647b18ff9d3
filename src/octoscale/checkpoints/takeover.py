"""Have transformers ask us about FP8 checkpoints: what is changed in it, where, and how it is changed back.

    take_over()          from now on; `import octoscale.hf` does it
    give_back()          transformers is what it was
    with in_force():     for a block; octoscale.load does it

Three things are changed. `octoscale` becomes a quantization method, so that from_pretrained takes an OctoscaleConfig.
Checkpoints of the methods `compressed-tensors` and `fp8` are ours where their weights have one scale a tensor; others
stay transformers' matter. And codes of FP8 that no config announces are refused (guard.py).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

from octoscale.checkpoints import guard
from octoscale.checkpoints.config import METHOD, OctoscaleConfig, understood
from octoscale.checkpoints.quantizer import OctoscaleQuantizer

#: Methods of others, of whose checkpoints we read those with one scale a tensor.
THEIRS = ("compressed-tensors", "fp8")


class _Takeover:
    """In force as long as somebody holds it: blocks, of any threads, and whoever asked for it for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_holders = 0
        self._is_for_good = False
        self._replaced: dict[str, Any] = {}

    def hold(self, *, for_good: bool = False) -> None:
        """Change transformers, unless it is changed already."""
        with self._lock:
            if for_good and self._is_for_good:
                return
            self._is_for_good |= for_good
            self._num_holders += 1
            if self._num_holders == 1:
                self._install()

    def release(self, *, for_good: bool = False) -> None:
        """Change it back, unless somebody else holds it."""
        with self._lock:
            if for_good and not self._is_for_good:
                return
            self._is_for_good &= not for_good
            self._num_holders -= 1
            if self._num_holders == 0:
                self._uninstall()

    def _install(self) -> None:
        AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = OctoscaleConfig
        AUTO_QUANTIZER_MAPPING[METHOD] = OctoscaleQuantizer
        for method in THEIRS:
            self._replaced[method] = AUTO_QUANTIZATION_CONFIG_MAPPING[method]
            AUTO_QUANTIZATION_CONFIG_MAPPING[method] = _chooser(self._replaced[method])
        guard.install()

    def _uninstall(self) -> None:
        del AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD], AUTO_QUANTIZER_MAPPING[METHOD]
        AUTO_QUANTIZATION_CONFIG_MAPPING.update(self._replaced)
        guard.uninstall()


_takeover = _Takeover()


def take_over() -> None:
    """Have transformers ask us from now on. A second call changes nothing."""
    _takeover.hold(for_good=True)


def give_back() -> None:
    """Undo `take_over`: transformers is what it was, once no block of `in_force` runs. Models that are loaded stay."""
    _takeover.release(for_good=True)


@contextmanager
def in_force() -> Iterator[None]:
    """Have transformers ask us while the block runs."""
    _takeover.hold()
    try:
        yield
    finally:
        _takeover.release()


def _chooser(theirs: type[Any]) -> type[Any]:
    """Our config where we can read the checkpoint, else transformers' own."""

    class Chooser(theirs):  # type: ignore[misc]
        @classmethod
        def from_dict(cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
            ours = understood(config_dict)
            if ours is None:
                return theirs.from_dict(config_dict, return_unused_kwargs=return_unused_kwargs, **kwargs)
            return (ours, kwargs) if return_unused_kwargs else ours

    Chooser.__name__ = theirs.__name__
    return Chooser
