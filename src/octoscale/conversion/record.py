"""Record what the FP8 layers of a model do while a block runs: each forward pass is a step.

    with octoscale.record(model, "runs/mine", every=100) as recorder:
        ...

The rows, and how they come to the disk, are runs/scales.py's.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from octoscale.layers.linear import Fp8Linear
from octoscale.runs.folder import RunFolder
from octoscale.runs.scales import Recorder, run_header
from octoscale.system.errors import UserError
from octoscale.system.lock import exclusive_run

#: Several threads may begin to record to a folder that is no run yet.
_creating = threading.Lock()


@contextmanager
def record(
    model: nn.Module,
    folder: Path | str,
    *,
    every: int = 1,
    phase: str = "",
    scaling: str | None = None,
    flush_seconds: float = 5.0,
) -> Iterator[Recorder]:
    """Record every cast of the FP8 layers of `model` to `folder` while the block runs.

    folder: made if need be; a run.json is written if it has none. every: histograms of exponents on each N-th step.
    phase and scaling label the rows; scaling defaults to the recipe's name. What the folder holds stays, and the new
    rows are added: another phase tells them apart.
    Raises ValueError if the model has no FP8 layer, or is being recorded already; FileExistsError if another process
    writes to the folder.
    """
    layers = fp8_layers(model)
    if any(layer.fp8.runtime.recorder is not None for layer in layers):
        raise UserError("this model is being recorded already: leave the other record() block first")
    recipe = layers[0].fp8.recipe
    with exclusive_run(folder, join=True):
        with _creating:
            if not RunFolder(folder).header.exists():
                RunFolder.create(folder, run_header(next(model.parameters()).device, recipe=recipe.name))
        scaling = recipe.name if scaling is None else scaling
        recorder = Recorder(folder, every=every, phase=phase, scaling=scaling, flush_seconds=flush_seconds)

        def next_step(*_: object) -> None:
            recorder.next_step()

        hook = model.register_forward_hook(next_step, always_call=True)
        for layer in layers:
            layer.fp8.runtime.attach(recorder)
        try:
            yield recorder
        finally:
            hook.remove()
            for layer in layers:
                layer.fp8.runtime.attach(None)
            recorder.flush()


def fp8_layers(model: nn.Module) -> list[Fp8Linear]:
    """The FP8 layers of a model; ValueError if it has none."""
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    if not layers:
        raise UserError("this model has no FP8 layer: call octoscale.convert(model, recipe) first")
    return layers
