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
from contextlib import ExitStack, contextmanager
from typing import Any

from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

from octoscale.checkpoints import guard
from octoscale.checkpoints.config import METHOD, OctoscaleConfig, understood
from octoscale.checkpoints.quantizer import OctoscaleQuantizer
from octoscale.system.held import Held

#: Methods of others, of whose checkpoints we read those with one scale a tensor.
THEIRS = ("compressed-tensors", "fp8")


_replaced: dict[str, Any] = {}


def _install() -> None:
    AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = OctoscaleConfig
    AUTO_QUANTIZER_MAPPING[METHOD] = OctoscaleQuantizer
    for method in THEIRS:
        _replaced[method] = AUTO_QUANTIZATION_CONFIG_MAPPING[method]
        AUTO_QUANTIZATION_CONFIG_MAPPING[method] = _chooser(_replaced[method])
    guard.install()


def _uninstall() -> None:
    del AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD], AUTO_QUANTIZER_MAPPING[METHOD]
    AUTO_QUANTIZATION_CONFIG_MAPPING.update(_replaced)
    guard.uninstall()


_takeover = Held(_install, _uninstall)
_for_good = ExitStack()  # holds it once, or not at all
_lock = threading.Lock()


def take_over() -> None:
    """Have transformers ask us from now on. A second call changes nothing."""
    with _lock, in_force():  # no moment without it
        _for_good.close()
        _for_good.enter_context(_takeover)


def give_back() -> None:
    """Undo `take_over`: transformers is what it was, once no block of `in_force` runs. Models that are loaded stay."""
    with _lock:
        _for_good.close()


@contextmanager
def in_force() -> Iterator[None]:
    """Have transformers ask us while the block runs."""
    with _takeover:
        yield


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
