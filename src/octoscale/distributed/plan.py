"""What one rank of a large run would hold and move, found by running a step of it on tensors without memory.

    held = train(work)          one optimizer step of `Work`, on torch's fake process group and fake tensors
    held = infer(work)          one forward pass

The step is the real one: the layers, FSDP2, tensor parallel, autograd and AdamW, all as they are. Missing are values
(FakeTensorMode), the other ranks (a fake group, whose first rank this is, which never has less than another), and the
products (kernels/shapes.py). Memory is counted by watch.py. All numbers are linear in the number of decoder layers: a
deep model is simulated with three and with four, and drawn out. The most memory of a step is not: it is the largest of
what its segments need, each of which is. Fake tensors are the CPU's, for torch without CUDA makes no others. What no
tensor of the step is, is not counted: the device's context and caches, the allocator's gaps, buffers of a network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule

from octoscale.conversion.convert import forget_casts
from octoscale.conversion.stacks import decoder_stacks
from octoscale.distributed.mesh import DIMENSIONS, Parallel
from octoscale.distributed.watch import Watch, casts, gradients, size, storages
from octoscale.kernels import shapes, table
from octoscale.kernels.base import Backend
from octoscale.layers.linear import Fp8Linear
from octoscale.system.errors import UserError

#: The depths at which a deep model is simulated: the last layer, the first, and the one above it are unlike the others.
DEPTHS = (3, 4)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one rank is to do.

    make: the model with so many decoder layers, called where its tensors are fake. prepare: convert it, and put it on
    the mesh. A micro-batch is `batch` windows of `window` tokens; micro_batches: those of one replica in a step.
    autocast: the dtype of activations, where it is not that of the parameters. are_alike: whether some decoder layers
    tell of all; else all are simulated.
    """

    make: Callable[[int], nn.Module]
    prepare: Callable[[nn.Module, DeviceMesh | None], None]
    num_layers: int
    vocabulary: int
    parallel: Parallel
    batch: int
    window: int
    micro_batches: int = 1
    autocast: torch.dtype | None = None
    are_alike: bool = True


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes on one rank. They do not add up to `peak`: not all are there at once, and some are in two rows.

    parameters; casts: FP8 codes of weights, and copies of weights in autocast's dtype, which backward keeps; gradients,
    the most of them; optimizer; activations: what backward keeps beside weights; gathered: whole weights, the most at
    a time; logits: with their gradients, the most at a time; cache: keys and values of all tokens. peaks: the most of
    all, by the segment of the step; moved: what this rank sends in a step, by collective; messages: how often.
    """

    parameters: int
    casts: int
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    gathered: int = 0
    logits: int = 0
    cache: int = 0
    peaks: Mapping[str, int]
    moved: Mapping[str, float]
    messages: Mapping[str, int]

    @property
    def peak(self) -> int:
        """The most bytes at one time."""
        return max(self.peaks.values())

    @property
    def states(self) -> int:
        """What is there all the time, and is shared by the ranks."""
        return self.parameters + self.casts + self.gradients + self.optimizer

    @property
    def communication(self) -> int:
        """Bytes that this rank sends in a step."""
        return round(sum(self.moved.values()))

    def parts(self) -> dict[str, int]:
        """The rows by name."""
        names = ("parameters", "casts", "gradients", "optimizer", "activations", "gathered", "logits", "cache")
        return {name: getattr(self, name) for name in names}


def train(work: Work) -> Held:
    """An optimizer step of AdamW that is not the first: moments are there. UserError if a process group is, too."""
    return _at_depths(work, _train)


def infer(work: Work) -> Held:
    """A forward pass that keeps keys and values, on the codes alone: of FP8 layers no weight in high precision."""
    return _at_depths(work, _infer)


def drawn_out(few: Held, more: Held, num_layers: int) -> Held:
    """From what two depths of `DEPTHS` hold to what this one does."""

    def each(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        return {name: a[name] + (num_layers - DEPTHS[0]) * (b[name] - a[name]) for name in a if name in b}

    numbers = each(few.parts(), more.parts())
    maps: dict[str, Any] = {
        name: each(getattr(few, name), getattr(more, name)) for name in ("peaks", "moved", "messages")
    }
    return Held(**numbers, **maps)


def _at_depths(work: Work, simulate: Callable[[Work], Held]) -> Held:
    simulated = table.Choice(name="shapes", backend=cast(Backend, shapes), reason="a plan")
    with table.instead("cpu", simulated), _ranks(work.parallel.num_ranks):
        if not work.are_alike or work.num_layers <= DEPTHS[-1]:
            return simulate(work)
        few, more = (simulate(replace(work, num_layers=depth)) for depth in DEPTHS)
        return drawn_out(few, more, work.num_layers)


@contextmanager
def _ranks(number: int) -> Iterator[None]:
    """This process as the first of so many."""
    if dist.is_initialized():
        raise UserError("a plan plays all ranks by itself: start octoscale plan without torchrun")
    if number == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=number)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _made(work: Work, fake: FakeTensorMode) -> nn.Module:
    """The model on its mesh. Meshes hold numbers of ranks, which are no fakes."""
    with fake:
        model = work.make(work.num_layers)
    mesh = None
    if work.parallel.num_ranks > 1:
        sizes = tuple(getattr(work.parallel, name) for name in DIMENSIONS)
        mesh = init_device_mesh("cpu", sizes, mesh_dim_names=DIMENSIONS)
    work.prepare(model, mesh)
    return model


def _train(work: Work) -> Held:
    fake = FakeTensorMode()
    model = _made(work, fake).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)  # Trainer's own choice
    watch = Watch(model, work.vocabulary)
    _name_segments(model, watch)
    runs, most_gradients, kept = min(work.micro_batches, 2), 0, (0, 0)
    moved: list[dict[str, float]] = []
    messages: list[dict[str, int]] = []
    with fake, watch:
        for number in range(runs):
            if isinstance(model, FSDPModule):
                model.set_requires_gradient_sync(number == runs - 1)
            watch.moved.clear()
            watch.messages.clear()
            found = _micro_batch(model, watch, work, number)
            kept = max(kept, found)
            moved.append(dict(watch.moved))
            messages.append(dict(watch.messages))
            most_gradients = max(most_gradients, size(gradients(model)))
            if number < runs - 1 and any(isinstance(module, Fp8Linear) for module in model.modules()):
                forget_casts(model)  # a fake amax cannot be compared with that of the micro-batch before
        watch.segment = "step"
        optimizer.step()
    moments = size(storages(x for state in optimizer.state.values() for x in state.values()))
    copies, activations = kept
    return Held(
        parameters=size(storages(model.parameters())),
        casts=size(casts(model)) + copies,
        gradients=most_gradients,
        optimizer=moments,
        activations=activations,
        gathered=watch.most["gathered"],
        logits=watch.most["logits"],
        peaks={name: peak + (0 if name == "step" else moments) for name, peak in watch.peaks.items()},
        moved=_of_step(moved, work.micro_batches),
        messages=_of_step(messages, work.micro_batches),
    )


def _of_step(counted: Sequence[Mapping[str, Any]], micro_batches: int) -> dict[str, Any]:
    """All micro-batches but the last are as the first; gradients are shared in the last."""
    first, last = counted[0], counted[-1]
    return {name: (micro_batches - 1) * first.get(name, 0) + last.get(name, 0) for name in {*first, *last}}


def _micro_batch(model: Any, watch: Watch, work: Work, number: int) -> tuple[int, int]:
    """Forward and backward; bytes that backward keeps: copies of weights, and all else."""
    saved: WeakSet[torch.UntypedStorage] = WeakSet()

    def keep(x: Tensor) -> Tensor:
        saved.update(storages([x]))
        return x

    ids = torch.zeros(work.batch, work.window, dtype=torch.int64)
    context = nullcontext() if work.autocast is None else torch.autocast("cpu", work.autocast)
    watch.segment = f"forward {number}"
    with saved_tensors_hooks(keep, lambda x: x):
        with context:
            out = model(input_ids=ids, labels=ids, use_cache=False)
        if work.autocast is not None:
            out.logits.float()  # accelerate gives float32 to whoever reads the outputs
    loss = out.loss
    del out
    copies = set(watch.copies)
    known = watch.weights() | casts(model) | copies | storages([*model.buffers(), ids])
    sizes = size(copies), size(set(saved) - known)
    watch.segment = f"backward {number}"
    loss.backward()
    return sizes


def _name_segments(model: nn.Module, watch: Watch) -> None:
    """A segment of backward begins where a decoder layer's does: the last, the second, the first; see `DEPTHS`."""
    for stack in decoder_stacks(model) or []:
        layers = list(model.get_submodule(stack).children())
        for index, layer in enumerate(layers):
            below = index if index < 2 else None
            name = "top" if index == len(layers) - 1 else "middle" if below is None else str(below)

            def begin(_: Any, __: Any, out: Any, name: str = name) -> None:
                first = out[0] if isinstance(out, tuple) else out
                number = watch.segment.rpartition(" ")[2]
                if isinstance(first, Tensor) and first.requires_grad:
                    first.register_hook(lambda _: setattr(watch, "segment", f"backward {number} {name}"))  # type: ignore[no-untyped-call]

            layer.register_forward_hook(begin)


def _infer(work: Work) -> Held:
    fake = FakeTensorMode()
    model: Any = _made(work, fake).eval().requires_grad_(False)
    watch = Watch(model, work.vocabulary)
    watch.segment = "forward"
    layers = [module for module in model.modules() if isinstance(module, Fp8Linear)]
    unused = size(storages(layer.weight for layer in layers))
    with fake, watch:  # gradients on, though none is taken: without, layers look at values to name what is infinite
        ids = torch.zeros(work.batch, work.window, dtype=torch.int64)
        out = model(input_ids=ids, use_cache=True)
        cache = size(storages(x for layer in out.past_key_values.layers for x in (layer.keys, layer.values)))
    return Held(
        parameters=size(storages(model.parameters())) - unused,
        casts=size(casts(model)),
        logits=watch.most["logits"],
        cache=cache,
        peaks={name: peak - unused for name, peak in watch.peaks.items()},
        moved=dict(watch.moved),
        messages=dict(watch.messages),
    )
