"""What makes a linear layer FP8: its name, its recipe, and how it casts weight, input and gradient.

A weight's cast is reused until the weight changes or an optimizer steps; siblings that take the same tensor share its
cast. Each cast of a step leaves one row with the recorder, if there is one. Infinity and NaN raise in inference.
"""

import math
import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from octoscale.kernels import ops
from octoscale.kernels.ops import Quantized
from octoscale.layers.compiled import SEPARATOR
from octoscale.layers.gathered import Gathered
from octoscale.layers.origin import is_conv1d_class
from octoscale.layers.ranks import Ranks
from octoscale.layers.reuse import Seen, last_cast, optimizer_steps
from octoscale.numerics.formats import ROLES, Role
from octoscale.numerics.granularity import Granularity, along
from octoscale.numerics.recipe import Recipe
from octoscale.numerics.scaling import Delayed, History
from octoscale.runs.scales import LayerName, Recorder

#: So many values of a weight, each of another row and column, are looked at where its cast is reused: a write to all of
#: it changes some. Of one with fewer rows or columns, so many of each; a small weight is looked at as a whole.
_SAMPLE, _SMALL = 32, 4096

_INTS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class NonFiniteError(FloatingPointError):
    """An operand of an FP8 layer holds infinity or NaN during inference."""


@dataclass(kw_only=True)
class LayerState:
    """What makes a linear layer FP8: its name and kind, its recipe, its ranks, and the casts it can reuse."""

    name: LayerName
    recipe: Recipe
    original_type: type[nn.Module]
    ranks: Ranks = field(default_factory=Ranks, repr=False)
    runtime: "Runtime" = field(default_factory=lambda: Runtime(), repr=False)

    def __post_init__(self) -> None:
        if not self.ranks.is_alone:
            self.recipe.check_whole("a model on many ranks")
        operands = [self.recipe.operand(role) for role in ROLES]
        self.is_delayed = any(isinstance(operand.rule, Delayed) for operand in operands)
        self.is_whole = self.recipe.is_whole  # once: a graph would guard each rule that is looked at
        self.terms = SEPARATOR.join(map(str, operands))
        self._granularities = {role: self._granularity(role) for role in ROLES}

    def _granularity(self, role: Role) -> Granularity:
        """Of a role's cast for the sum in `output`, and of a gradient's for that in `grad_input`."""
        name = self.recipe.operand(role).rule.granularity
        return along(name, role, sum_first=role == "weight" and self.is_conv1d)

    @property
    def weight_granularity(self) -> Granularity:
        """That of the weight, as it lies."""
        return self._granularities["weight"]

    @property
    def is_conv1d(self) -> bool:
        """Whether the weight is [in, out]."""
        return is_conv1d_class(self.original_type)

    @property
    def is_stateless(self) -> bool:
        """Whether torch.compile's operators do all that a call does: no row, no history, no word to others."""
        has_operators = not (self.is_delayed or self.recipe.accumulate) and self.is_whole
        return self.runtime.recorder is None and has_operators and self.ranks.is_alone

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # or each layer would be a graph of its own
    def why_no_graph(self, gathered: bool = False) -> str:
        """Why a layer that is not stateless, or whose weight is `gathered`, cannot be in a graph, and what to do."""
        accumulate = self.recipe.accumulate
        reasons = [
            (self.runtime.recorder is not None, "it is being recorded: compile where octoscale.record has ended"),
            (self.is_delayed, f"its scaling is {self.recipe.name}, which each call adds to: take amax or cscale"),
            (not self.is_whole, f"its scaling is {self.recipe.name}, finer than a tensor: take amax or cscale"),
            (accumulate, f"its sums imitate {accumulate}: take accumulate={accumulate} out of the scaling"),
            (gathered, "its weight comes from other ranks as FP8 codes (FSDP): compile without fullgraph=True"),
            (not self.ranks.is_alone, "it is one rank's part (tensor parallel): compile without fullgraph=True"),
        ]
        said = "; ".join(text for holds, text in reasons if holds)
        return f"octoscale: {self.name.module} cannot be in a graph: {said}"

    def cast_weight(self, weight: Tensor, inference: bool, *, owner: Tensor | None = None) -> Quantized:
        """The weight's cast, made anew only if the weight changed, or an optimizer stepped, since the last one.

        owner: the parameter that is written to, of which `weight` is this rank's part.
        """
        if isinstance(weight, Gathered):
            return weight.cast  # each rank has looked at its part, cast it, and recorded that
        with self.runtime.lock:
            w8 = self._reused_weight(weight, weight if owner is None else owner, inference)
        if inference:
            self._check_finite("weight", w8)
        return w8

    def _reused_weight(self, weight: Tensor, owner: Tensor, inference: bool) -> Quantized:
        """The weight's cast, old or new."""
        seen, w8 = self.runtime.weight
        changed, left_out = seen is None or not seen.is_still(owner), self.is_left_out(inference)
        if self.weight_is_due(changed=changed, left_out=left_out) or w8 is None:
            w8 = self._cast(weight, "weight", self.step)
            self.keep_weight(weight, Seen(owner), w8, left_out=left_out)
        elif not left_out:
            self._note_reuse(weight)
        if not (left_out or weight.requires_grad):
            self._note_frozen()
        return w8

    def weight_is_due(self, *, changed: bool, left_out: bool) -> bool:
        """Whether the weight has to be cast. Closes the histories' step if it `changed`, or an optimizer stepped."""
        if changed or self.runtime.optimizer_step != optimizer_steps.count:
            self.runtime.advance_histories()
            self.runtime.optimizer_step = optimizer_steps.count
        return changed or self.runtime.weight[1] is None or (self.runtime.weight_left_out and not left_out)

    def keep_weight(self, weight: Tensor, seen: Seen, w8: Quantized, *, left_out: bool) -> None:
        """Reuse this cast from now on; it has a row, unless it is `left_out` of the record."""
        self.runtime.weight, self.runtime.weight_left_out = (seen, w8), left_out
        self.runtime.columns = None
        if not left_out:
            self._record("weight", w8, self.step)
            self._note_fresh(weight)

    def weight_in_columns(self, w_KN: Quantized) -> Quantized:
        """The cast of the weight as the backend wants a second operand to lie; a copy serves until the next cast."""
        kept = self.runtime.columns
        if kept is not None and kept.is_of(w_KN):
            return kept.copy
        copy, own = ops.in_columns(w_KN), self.runtime.weight[1]
        if own is None or own.observed is None:  # stored codes can be written to, without a trace
            return copy
        if copy is not w_KN and _memory(own) == _memory(w_KN):
            self.runtime.columns = Columns(w_KN, copy)
        return copy

    def cast_input(self, x: Tensor, inference: bool) -> Quantized:
        """The input's cast, shared with a sibling layer that has just cast the same tensor."""
        x8 = last_cast.get(x, self.recipe.input, self.runtime.recorder)
        if x8 is None:
            x8 = self._cast(x, "input", self.step)
            last_cast.put(x, self.recipe.input, self.runtime.recorder, x8)
        has_row = _in_backward()  # the forward that a checkpoint recomputes
        if not (has_row or self.is_left_out(inference)):
            self._record("input", x8, self.step)
        if inference:
            self.runtime.advance_histories("input")
            self._check_finite("input", x8)
        return x8

    def cast_grad_output(self, grad: Tensor, step: int) -> Quantized:
        """The cast of the output's gradient; `step` is that of its forward."""
        g8 = self._cast(grad, "grad_output", step)
        self._record("grad_output", g8, step)
        return g8

    def turned(self, role: Role, cast: Quantized) -> Quantized:
        """A matrix of this role for the sum along its other dimension; it leaves no row."""
        return ops.turned(cast, self.recipe.operand(role).rule)

    def turned_grad_output(self, grad: Tensor, g_BN: Quantized) -> Quantized:
        """The same of the gradient whose cast is g_BN: cast anew from itself, as it is still here; it leaves no row."""
        granularity = g_BN.granularity.t()
        if granularity == g_BN.granularity:
            return g_BN
        operand = self.recipe.grad_output
        rows = grad.reshape(g_BN.codes.shape)
        return ops.quantize(rows, operand.format, operand.rule, granularity=granularity)

    @property
    def step(self) -> int:
        """The step that is being recorded: in backward, where a checkpoint recomputes it, the last one. Else 0."""
        recorder = self.runtime.recorder
        if recorder is None:
            return 0
        return recorder.last_step if _in_backward() else recorder.step

    def _cast(self, x: Tensor, role: Role, step: int) -> Quantized:
        operand, recorder, history = self.recipe.operand(role), self.runtime.recorder, self.history_of(role)
        with torch.inference_mode(mode=False):  # training may use what an evaluation cast
            cast = ops.quantize(
                x,
                operand.format,
                operand.rule,
                history=history,
                counts=recorder is not None,
                exponents=recorder is not None and recorder.wants_exponents(step),
                everywhere=self.ranks.amax.get(role),
                granularity=self._granularities[role],
            )
        if history is not None and cast.observed is not None:
            history.observe(cast.observed.amax)
        return cast

    def history_of(self, role: Role) -> History | None:
        """The amax history of a role, if its rule has one."""
        rule = self.recipe.operand(role).rule
        return self.runtime.history(role, rule.history) if isinstance(rule, Delayed) else None

    def is_left_out(self, inference: bool) -> bool:
        """Whether a cast belongs to an evaluation amid a training that records only itself."""
        recorder = self.runtime.recorder
        return inference and recorder is not None and recorder.only_training

    def _record(self, role: Role, cast: Quantized, step: int) -> None:
        if self.runtime.recorder is not None:
            self.runtime.recorder.add(self.name, role, cast, step)

    def _note_fresh(self, weight: Tensor) -> None:
        """Keep some values of a weight that was cast just now, if it is being recorded."""
        if self.runtime.recorder is not None:
            self.runtime.sample = _some_of(weight)
            self.runtime.recorder.notes.fresh_weight(self.name.module)

    def _note_reuse(self, weight: Tensor) -> None:
        """Note whether a weight whose cast is used again still has the values that were cast: once a step."""
        recorder, before, step = self.runtime.recorder, self.runtime.sample, self.step
        if recorder is None or before is None or before.device != weight.device or self.runtime.compared_at == step:
            return
        self.runtime.compared_at = step
        before, now = _bits_of(before), _bits_of(_some_of(weight))
        if weight.device.type != "cpu" or not torch.equal(now, before):  # which a device would wait for
            recorder.notes.reused_weight(self.name.module, step, (now != before).any())

    def _note_frozen(self) -> None:
        """Note that a weight takes no gradient, where gradients are taken, if it is being recorded."""
        if self.runtime.recorder is not None and torch.is_grad_enabled():
            self.runtime.recorder.notes.frozen_weight(self.name.module, self.step)

    def _check_finite(self, role: Role, cast: Quantized) -> None:
        assert cast.observed is not None
        if not math.isfinite(cast.observed.amax.item()):  # many times faster than a tensor's isfinite
            raise nonfinite_error(self.name.module, role)


def nonfinite_error(module: str, role: Role) -> NonFiniteError:
    """What to raise when an operand of this module is not finite."""
    return NonFiniteError(
        f"layer {module}: the {role} holds infinity or NaN; look at the layers before it, "
        "or keep it out of FP8 with skip"
    )


class Columns:
    """A copy of a weight's codes that lies as the backend wants it, and of what it is one."""

    def __init__(self, weight: Quantized, copy: Quantized) -> None:
        self._held, self._of, self.copy = weight, self._where(weight), copy  # what is held keeps its address

    def is_of(self, weight: Quantized) -> bool:
        """Whether these are the same values in the same order."""
        return self._of is not None and self._where(weight) == self._of

    @staticmethod
    def _where(weight: Quantized) -> tuple[object, ...] | None:
        """Memory, order and version; None where torch counts no versions."""
        codes = weight.codes
        if codes.is_inference():
            return None
        return _memory(weight), codes.shape, codes.stride(), codes._version


def _memory(cast: Quantized) -> tuple[int, int]:
    """Where its codes begin; a fake tensor has a storage, too, though no address."""
    return cast.codes.untyped_storage()._cdata, int(cast.codes.storage_offset())


class Runtime:
    """What a layer can lose and make again: casts, histories, the recorder. A copy or a pickle starts without."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.weight: tuple[Seen | None, Quantized | None] = (None, None)
        self.input_scale: Seen | None = None  # of a stored layer with static inputs
        self.codes: Seen | None = None  # of a stored layer, once none of them was NaN
        self.columns: Columns | None = None  # of that cast
        self.sample: Tensor | None = None  # some values of the weight, as they were when it was cast
        self.compared_at: int | None = None  # the last step in which they were compared
        self.weight_left_out = False  # that cast has no row: the next one that is to be recorded is made anew
        self.optimizer_step = 0
        self._histories: dict[Role, History] = {}
        self.lock = threading.RLock()  # two threads that find a weight changed cast it, and record it, once

    def __reduce__(self) -> tuple[type["Runtime"], tuple[()]]:
        return (Runtime, ())

    def attach(self, recorder: Recorder | None) -> None:
        """Record from now on to `recorder`, or to none; the weight is cast again, so that it is recorded too."""
        self.recorder, self.weight, self.compared_at = recorder, (self.weight[0], None), None

    def history(self, role: Role, length: int) -> History:
        """The amax history of a role, made at its first use."""
        return self._histories.setdefault(role, History(length))

    def advance_histories(self, *roles: Role) -> None:
        """Close the step in the histories of these roles, or of all."""
        for role, history in list(self._histories.items()):  # another thread may add one
            if not roles or role in roles:
                history.advance()

    def save_histories(self) -> dict[str, list[float]]:
        """The amax of the closed steps of each role, as numbers; closes the current step before."""
        self.advance_histories()
        return {role: history.save() for role, history in self._histories.items()}

    def load_histories(self, saved: dict[Role, list[float]], lengths: dict[Role, int], device: torch.device) -> None:
        """Put back what `save_histories` gave."""
        self._histories = {role: History(lengths[role], past, device) for role, past in saved.items()}


def _some_of(weight: Tensor) -> Tensor:
    """Some values of a weight, along its diagonal, as they are now."""
    if weight.numel() <= _SMALL:
        return weight.detach().clone()
    counts = [min(_SAMPLE, size) for size in weight.shape]
    steps = [size // count * stride for size, count, stride in zip(weight.shape, counts, weight.stride(), strict=True)]
    if min(counts) == _SAMPLE:
        counts, steps = [_SAMPLE], [sum(steps)]
    return torch.as_strided_copy(weight.detach(), counts, steps)


def _bits_of(x: Tensor) -> Tensor:
    """The values as ints: a NaN is then equal to itself."""
    return x.view(_INTS[x.dtype.itemsize])


def _in_backward() -> bool:
    """Whether autograd is running a backward pass: a forward then is the recomputation of a checkpointed one."""
    return bool(torch._C._current_graph_task_id() != -1)
