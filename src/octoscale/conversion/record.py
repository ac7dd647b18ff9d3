"""Record what the FP8 layers of a model do while a block runs: each forward pass is a step.

    with octoscale.record(model, "runs/mine", every=100) as recorder:
        ...

The rows, and how they come to the disk, are runs/scales.py's.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from torch import Tensor, nn

from octoscale.conversion.reasons import reasons_to_keep, why_skipped
from octoscale.conversion.stacks import decoder_stacks, is_below
from octoscale.layers.compiled import SEPARATOR
from octoscale.layers.linear import Fp8Linear
from octoscale.layers.origin import is_linear
from octoscale.layers.state import LayerState
from octoscale.numerics.formats import ROLES
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
    rank: int = 0,
) -> Iterator[Recorder]:
    """Record every cast of the FP8 layers of `model` to `folder` while the block runs.

    folder: made if need be; a run.json is written if it has none. every: histograms of exponents on each N-th step.
    phase and scaling label the rows; scaling defaults to the recipe's name. What the folder holds stays, and the new
    rows are added: another phase tells them apart. rank: of this process, where several record to one folder, which is
    there and held by the first one.
    Raises ValueError if the model has no FP8 layer, or is being recorded already; FileExistsError if another process
    writes to the folder.
    """
    layers = fp8_layers(model)
    if any(layer.fp8.runtime.recorder is not None for layer in layers):
        raise UserError("this model is being recorded already: leave the other record() block first")
    recipe = layers[0].fp8.recipe
    with exclusive_run(folder, join=True) if rank == 0 else nullcontext():
        with _creating:
            if rank == 0 and not RunFolder(folder).header.exists():
                RunFolder.create(folder, run_header(next(model.parameters()).device, recipe=recipe.name))
        scaling = recipe.name if scaling is None else scaling
        recorder = Recorder(folder, every=every, phase=phase, scaling=scaling, flush_seconds=flush_seconds, rank=rank)

        note_modules(model, recorder)

        def next_step(_: nn.Module, __: object, output: object) -> None:
            watch_loss_scale(recorder, output)
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


def note_modules(model: nn.Module, recorder: Recorder) -> None:
    """Note which linear layers of the stack are FP8, which of them are not trained, and which stayed out, and why."""
    modules = dict(model.named_modules())
    fp8 = [name for name, module in modules.items() if isinstance(module, Fp8Linear)]
    frozen = [name for name in fp8 if not modules[name].weight.requires_grad]
    stacks = decoder_stacks(model)
    others = [name for name, module in modules.items() if is_linear(module) and not isinstance(module, Fp8Linear)]
    others = [name for name in others if stacks is None or is_below(name, stacks)]
    reasons = reasons_to_keep(model, stacks) if others else {}
    skip = modules[fp8[0]].fp8.recipe.skip
    kept = {name: reasons.get(modules[name]) or why_skipped(name, skip) or "" for name in others}
    recorder.notes.modules(fp8, frozen, kept, _operands([modules[name].fp8 for name in fp8]))


def watch_loss_scale(recorder: Recorder, output: object) -> None:
    """Have the gradient of a forward's loss noted, if it has one: the loss scale, as backward meets it.

    A tensor that is the whole output is a loss if it has no dimension: one number a sequence may be a score.
    """
    loss = output if isinstance(output, Tensor) and output.ndim == 0 else getattr(output, "loss", None)
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad:
        step = recorder.step
        loss.register_hook(lambda grad: recorder.notes.loss_scale(step, grad))  # type: ignore[no-untyped-call]


def _operands(layers: Sequence[LayerState]) -> dict[str, str]:
    """Role -> format and rule, as most layers have them; nothing if no recipe is that of most."""
    ((terms, count),) = Counter(layer.terms for layer in layers).most_common(1)
    return dict(zip(ROLES, terms.split(SEPARATOR), strict=True)) if 2 * count > len(layers) else {}


def fp8_layers(model: nn.Module) -> list[Fp8Linear]:
    """The FP8 layers of a model; ValueError if it has none."""
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    if not layers:
        raise UserError("this model has no FP8 layer: call octoscale.convert(model, recipe) first")
    return layers
