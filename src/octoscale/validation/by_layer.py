"""Validation with its two loops the other way round: each layer is read once, and all windows pass it.

    losses = losses_by_layer(model, windows)          as window by window, bit for bit

A checkpoint that is larger than memory is mapped, and read from disk as its bytes are used. Window by window, that is
all of it for each window; layer by layer, all of it once. What is kept meanwhile is the hidden state of every window.

The model runs as it is, up to its first decoder layer, which stops it; then the layers, called as the first one was;
then the rest, on a model whose stack is one stub that returns what the last layer gave.

That is right only where nothing but the hidden state passes from layer to layer, and nothing is done between them.
Some models do more (RWKV divides the state, Gemma 3n gives each layer inputs of its own): so the first windows go both
ways before all do, and must give the same bits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.layers.state import NonFiniteError
from octoscale.system.errors import UserError

#: Called with the layers done and the layers in all.
OnLayer = Callable[[int, int], None]


def losses_by_layer(
    model: nn.Module,
    windows: Tensor,
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    *,
    on_window: Callable[[int], None] | None = None,
    on_layer: OnLayer | None = None,
    is_checked: bool = False,
) -> Iterator[Tensor]:
    """`loss_of(model, window)` of each window, in order; windows int64 [W, T].

    on_window is called with a window's index before anything is computed of it, as often as there are layers and once
    more. is_checked: `check_by_layer` was called for this model already. Raises ValueError as that does.
    """
    if not is_checked:
        check_by_layer(model, windows, loss_of)
    return _losses_by_layer(model, windows, loss_of, on_window, on_layer)


@torch.no_grad()
def check_by_layer(model: nn.Module, windows: Tensor, loss_of: Callable[[nn.Module, Tensor], Tensor]) -> None:
    """Ask the first two windows both ways: ValueError, naming the model, if that differs by a bit, or cannot be done.

    Two, as what a layer leaves in the model for the next one is then another window's.
    """
    blocks, few = _find_blocks(model)[1], windows[:2]
    expected = torch.stack([loss_of(model, window) for window in few])
    try:
        found = torch.stack(list(_losses_by_layer(model, few, loss_of)))
    except NonFiniteError:
        raise
    except Exception as error:  # what a layer raises that is called as it does not expect
        why = (str(error).strip().splitlines() or [""])[0]
        raise _refusal(
            model, f"its {len(blocks)} layers are not called alike ({type(error).__name__}: {why})"
        ) from error
    if not torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True):
        raise _refusal(model, "its losses are others then: it has state, inputs or operations between its layers")


def _refusal(model: nn.Module, why: str) -> ValueError:
    return UserError(f"{type(model).__name__} cannot go layer by layer: {why}; validate it without --batch")


def _losses_by_layer(
    model: nn.Module,
    windows: Tensor,
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    on_window: Callable[[int], None] | None = None,
    on_layer: OnLayer | None = None,
) -> Iterator[Tensor]:
    name, blocks = _find_blocks(model)
    announce = on_window or (lambda _: None)
    states = []
    for index, window in enumerate(windows):
        announce(index)
        states.append(_up_to_first(model, blocks[0], window, loss_of))
    for number, block in enumerate(blocks, 1):
        for index, state in enumerate(states):
            announce(index)
            state.output = block(*state.inputs(), **state.options)
        if on_layer is not None:
            on_layer(number, len(blocks))
    with _replaced(model, name, stub := _Stub()):
        for index, (window, state) in enumerate(zip(windows, states, strict=True)):
            announce(index)
            stub.output = state.output
            yield loss_of(model, window)


@dataclass
class _State:
    """How a decoder layer is called for one window, and what the last one gave."""

    args: tuple[Any, ...]
    options: dict[str, Any]
    output: Any = None

    def inputs(self) -> tuple[Any, ...]:
        """The hidden state, and what else has no name."""
        if self.output is None:
            return self.args
        hidden = self.output[0] if isinstance(self.output, tuple) else self.output
        return (hidden, *self.args[1:])


class _Reached(Exception):  # noqa: N818  (not an error)
    """The first decoder layer was called."""


def _up_to_first(
    model: nn.Module, block: nn.Module, window: Tensor, loss_of: Callable[[nn.Module, Tensor], Tensor]
) -> _State:
    found: list[_State] = []

    def stop(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        found.append(_State(args=args, options=options))
        raise _Reached

    hook = block.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    try:
        loss_of(model, window)
    except _Reached:
        pass
    finally:
        hook.remove()
    if not found or not found[0].args or not isinstance(found[0].args[0], Tensor):
        raise _refusal(model, "its first layer gets no hidden state")
    return found[0]


class _Stub(nn.Module):
    """Stands for all decoder layers: returns what they gave."""

    output: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:
        """What was put here."""
        return self.output


@contextmanager
def _replaced(model: nn.Module, name: str, stub: nn.Module) -> Iterator[None]:
    blocks = model.get_submodule(name)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.ModuleList([stub]))
    try:
        yield
    finally:
        setattr(model.get_submodule(parent), leaf, blocks)


def _find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers: the one list of modules that no other holds."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1 or len(lists[outer[0]]) == 0:
        raise _refusal(model, f"it has {len(outer)} lists of layers, not one")
    kinds = set(getattr(getattr(model, "config", None), "layer_types", None) or ())
    if len(kinds) > 1:
        raise _refusal(model, f"its layers are {' and '.join(sorted(kinds))}")
    return outer[0], lists[outer[0]]
