"""Fp8Linear: a linear layer whose three products multiply FP8 codes. The whole method is in this file.

A linear layer computes three matrix products, one forward and two backward. Legend: B rows of all leading dimensions,
K input features, N output features; `q(.)` casts to FP8: codes, and an int `scale_bias` (numerics/scaling.py).

    output       y_BN  = x_BK  @ w_KN          forward       x8 = q(x) in E4,  w8 = q(w) in E4
    grad_input   dx_BK = g_BN  @ w_KN^T        backward      g8 = q(g) in E5, cast once and used by both products
    grad_weight  dw_KN = x_BK^T @ g_BN         backward      x8 and w8 are those of the forward pass

Each product sums in float32, is unscaled by 2**-(b1 + b2), and is rounded once to the output's dtype. E4 has more
mantissa bits and serves weights and activations; E5 has more range, which gradients need (Perez et al. 2023).

What is kept. Parameters stay what they were: the same objects, in their own dtype, under the same names, so that
optimizers, tied weights and state dicts go on working. The weight's cast is reused until the weight changes or an
optimizer steps. Backward keeps the FP8 codes of input and weight, one byte a value, never the high-precision input.
Layers that take the same tensor one after the other (q, k, v; gate and up) share its cast.

What is never hidden. Infinity and NaN turn the product into NaN, which a loss scaler sees; in inference (no gradients,
eval mode) they raise `NonFiniteError` with the layer's name.
"""

import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from octoscale.kernels import ops
from octoscale.kernels.ops import Quantized
from octoscale.layers.compiled import SEPARATOR, fp8_linear
from octoscale.numerics.formats import ROLES, Role
from octoscale.numerics.recipe import Operand, Recipe
from octoscale.numerics.scaling import Delayed, History
from octoscale.runs.scales import LayerName, Recorder


class NonFiniteError(FloatingPointError):
    """An operand of an FP8 layer holds infinity or NaN during inference."""


_WHY_EAGER = "octoscale records this layer, or its scaling is delayed: what it notes is not in a graph"


class Fp8Linear(nn.Linear):
    """A linear layer in FP8, made from an `nn.Linear` or a transformers `Conv1D` by `convert`.

    Input float32, bfloat16 or float16 [..., K]; output [..., N] in the input's dtype, or autocast's where that is on.
    The weight keeps the layout of its origin: [N, K], or Conv1D's [K, N]. `fp8` holds the recipe and all other state.
    After a write to `weight.data` in place, which leaves no trace, call `octoscale.forget_casts(model)`. torch.compile
    takes a layer whole (compiled.py), unless it is being recorded or its scaling is delayed: then it stays eager.
    """

    fp8: "LayerState"

    def forward(self, x: Tensor) -> Tensor:
        """`x @ w + bias` with FP8 operands; see the top of this file."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"{self.fp8.name.module}: takes inputs [..., {self.in_features}], not {list(x.shape)}")
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        if torch.compiler.is_compiling():
            if self.fp8.is_stateless:
                return fp8_linear(x, self.weight, self.bias, self.fp8.terms, self.fp8.is_conv1d, dtype)
            return self._forward_eager(x, dtype)  # type: ignore[no-any-return]
        return self._forward(x, dtype)

    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        w8 = self.fp8.cast_weight(self.weight, inference=self._is_inference())
        x8 = self.fp8.cast_input(x, inference=self._is_inference())
        return Products.apply(x, self.weight, self.bias, x8, w8, self.fp8, dtype)  # type: ignore[no-any-return,no-untyped-call]

    @torch.compiler.disable(reason=_WHY_EAGER)  # type: ignore[untyped-decorator,no-untyped-call]
    def _forward_eager(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self._forward(x, dtype)

    def original(self) -> nn.Module:
        """The module that `to_fp8` was given, with the parameters as they are now."""
        module = self.fp8.original_type.__new__(self.fp8.original_type)
        module.__dict__.update(self.__dict__)
        del module.__dict__["fp8"]
        if is_conv1d(module):
            del module.__dict__["in_features"], module.__dict__["out_features"]
        return module

    def extra_repr(self) -> str:
        """Shapes as of any linear layer, then the recipe of each role."""
        recipe = self.fp8.recipe
        layout = ", weight [in, out]" if self.fp8.is_conv1d else ""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}{layout}, "
            f"weight: {recipe.weight}, input: {recipe.input}, grad_output: {recipe.grad_output}"
        )

    def _is_inference(self) -> bool:
        return not (self.training or torch.is_grad_enabled())


def is_conv1d(module: nn.Module) -> bool:
    """Whether this is transformers' `Conv1D`, the linear layer of GPT-2 with a weight [in, out]."""
    return _is_conv1d_class(type(module))


def _is_conv1d_class(cls: type[nn.Module]) -> bool:
    return cls.__name__ == "Conv1D" and cls.__module__ == "transformers.pytorch_utils"


def is_linear(module: nn.Module) -> bool:
    """Whether this is a linear layer, of torch or of GPT-2."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def to_fp8(module: nn.Module, name: LayerName, recipe: Recipe) -> Fp8Linear:
    """An Fp8Linear with the parameters, buffers, hooks and mode of `module`, which is left as it was."""
    fp8 = Fp8Linear.__new__(Fp8Linear)
    fp8.__dict__.update(module.__dict__)
    if is_conv1d(module):
        fp8.in_features, fp8.out_features = fp8.weight.shape
    fp8.fp8 = LayerState(name=name, recipe=recipe, original_type=type(module))
    return fp8


@dataclass(kw_only=True)
class LayerState:
    """What makes a linear layer FP8: its name and kind, its recipe, and the casts it can reuse."""

    name: LayerName
    recipe: Recipe
    original_type: type[nn.Module]
    runtime: "Runtime" = field(default_factory=lambda: Runtime(), repr=False)

    def __post_init__(self) -> None:
        operands = [self.recipe.operand(role) for role in ROLES]
        self.is_delayed = any(isinstance(operand.rule, Delayed) for operand in operands)
        self.terms = SEPARATOR.join(map(str, operands))

    @property
    def is_conv1d(self) -> bool:
        """Whether the weight is [in, out]."""
        return _is_conv1d_class(self.original_type)

    @property
    def is_stateless(self) -> bool:
        """Whether nothing but the product comes out of a call: no row of a record, no history of amax."""
        return self.runtime.recorder is None and not self.is_delayed

    def cast_weight(self, weight: Tensor, inference: bool) -> Quantized:
        """The weight's cast, made anew only if the weight changed, or an optimizer stepped, since the last one."""
        with self.runtime.lock:
            w8 = self._reused_weight(weight, inference)
        if inference:
            self._check_finite("weight", w8)
        return w8

    def _reused_weight(self, weight: Tensor, inference: bool) -> Quantized:
        """The weight's cast, old or new."""
        seen, w8 = self.runtime.weight
        changed = seen is None or not seen.is_still(weight)
        if changed or self.runtime.optimizer_step != _optimizer_steps.count:
            self.runtime.advance_histories()
            self.runtime.optimizer_step = _optimizer_steps.count
        left_out = self._is_left_out(inference)
        if changed or w8 is None or (self.runtime.weight_left_out and not left_out):
            w8 = self._cast(weight, "weight", self.step)
            self.runtime.weight, self.runtime.weight_left_out = (Seen(weight), w8), left_out
            if not left_out:
                self._record("weight", w8, self.step)
        return w8

    def cast_input(self, x: Tensor, inference: bool) -> Quantized:
        """The input's cast, shared with a sibling layer that has just cast the same tensor."""
        x8 = _last_cast.get(x, self.recipe.input, self.runtime.recorder)
        if x8 is None:
            x8 = self._cast(x, "input", self.step)
            _last_cast.put(x, self.recipe.input, self.runtime.recorder, x8)
        has_row = _in_backward()  # the forward that a checkpoint recomputes
        if not (has_row or self._is_left_out(inference)):
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

    @property
    def step(self) -> int:
        """The step that is being recorded: in backward, where a checkpoint recomputes it, the last one. Else 0."""
        recorder = self.runtime.recorder
        if recorder is None:
            return 0
        return recorder.last_step if _in_backward() else recorder.step

    def _cast(self, x: Tensor, role: Role, step: int) -> Quantized:
        operand, recorder = self.recipe.operand(role), self.runtime.recorder
        history = self.runtime.history(role, operand.rule.history) if isinstance(operand.rule, Delayed) else None
        with torch.inference_mode(mode=False):  # training may use what an evaluation cast
            cast = ops.quantize(
                x,
                operand.format,
                operand.rule,
                history=history,
                counts=recorder is not None,
                exponents=recorder is not None and recorder.wants_exponents(step),
            )
        if history is not None and cast.observed is not None:
            history.observe(cast.observed.amax)
        return cast

    def _is_left_out(self, inference: bool) -> bool:
        """Whether a cast belongs to an evaluation amid a training that records only itself."""
        recorder = self.runtime.recorder
        return inference and recorder is not None and recorder.only_training

    def _record(self, role: Role, cast: Quantized, step: int) -> None:
        if self.runtime.recorder is not None:
            self.runtime.recorder.add(self.name, role, cast, step)

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


class Runtime:
    """What a layer can lose and make again: casts, histories, the recorder. A copy or a pickle starts without."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.weight: tuple[Seen | None, Quantized | None] = (None, None)
        self.weight_left_out = False  # that cast has no row: the next one that is to be recorded is made anew
        self.optimizer_step = 0
        self._histories: dict[Role, History] = {}
        self.lock = threading.RLock()  # two threads that find a weight changed cast it, and record it, once

    def __reduce__(self) -> tuple[type["Runtime"], tuple[()]]:
        return (Runtime, ())

    def attach(self, recorder: Recorder | None) -> None:
        """Record from now on to `recorder`, or to none; the weight is cast again, so that it is recorded too."""
        self.recorder, self.weight = recorder, (self.weight[0], None)

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


class Products(torch.autograd.Function):
    """The three products of the table at the top."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        x8: Quantized,
        w8: Quantized,
        layer: LayerState,
        dtype: torch.dtype,
    ) -> Tensor:
        """The product of x8 and w8, and what backward needs of them."""
        _save(ctx, x8 if ctx.needs_input_grad[1] else None, w8 if ctx.needs_input_grad[0] else None)
        ctx.layer, ctx.step = layer, layer.step
        ctx.x_shape, ctx.x_dtype, ctx.w_dtype = x.shape, x.dtype, weight.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        y_BN = ops.matmul(x8.flatten_rows(), w8 if layer.is_conv1d else w8.t(), dtype=dtype, bias=bias)
        return ops.reshaped(y_BN, (*x.shape[:-1], y_BN.shape[-1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias, as far as they are wanted."""
        x8, w8 = _saved(ctx)
        layer: LayerState = ctx.layer
        dx = dw = db = None
        if x8 is not None or w8 is not None:
            g_BN = layer.cast_grad_output(grad, ctx.step).flatten_rows()
        if w8 is not None:
            w_NK = w8.t() if layer.is_conv1d else w8
            dx = ops.reshaped(ops.matmul(g_BN, w_NK, dtype=ctx.x_dtype), ctx.x_shape)
        if x8 is not None:
            x_BK = x8.flatten_rows()
            a, b = (x_BK, g_BN) if layer.is_conv1d else (g_BN, x_BK)
            dw = ops.matmul(a.t(), b, dtype=ctx.w_dtype)
        if ctx.needs_input_grad[2]:
            db = grad.reshape(-1, grad.shape[-1]).sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return dx, dw, db, None, None, None, None


def _save(ctx: Any, *casts: Quantized | None) -> None:
    """Keep casts for backward: codes and scale_bias as saved tensors, one byte a value."""
    ctx.formats = [None if cast is None else cast.format for cast in casts]
    ctx.save_for_backward(*(t for cast in casts if cast is not None for t in (cast.codes, cast.scale_bias)))


def _saved(ctx: Any) -> list[Quantized | None]:
    """The casts that `_save` kept."""
    tensors = iter(ctx.saved_tensors)
    return [
        None if fmt is None else Quantized(codes=next(tensors), scale_bias=next(tensors), format=fmt)
        for fmt in ctx.formats
    ]


class Seen:
    """A tensor at one moment, held weakly: tells whether another look finds the same tensor, unchanged.

    Unchanged means: the same object, the same memory, no write that autograd counts, and no optimizer step in between
    (fused optimizers and writes to `.data` are not counted). A write to `.data` by hand goes unnoticed:
    `convert.forget_casts` is for that.
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
        steps = _optimizer_steps.count if x.requires_grad else 0
        return (x._version, memory, x.storage_offset(), x.shape, x.stride(), x.dtype, x.device, steps)


class _OptimizerSteps:
    """Counts the steps of all of torch's optimizers in this process."""

    def __init__(self) -> None:
        self.count = 0
        register_optimizer_step_post_hook(self._step)

    def _step(self, *_: object) -> None:
        self.count += 1


_optimizer_steps = _OptimizerSteps()


class _LastCast(threading.local):
    """The last input that was cast, so that the siblings that take the same tensor share its codes."""

    _seen: Seen | None = None
    _terms: tuple[Operand, Recorder | None] | None = None
    _cast: Quantized | None = None

    def get(self, x: Tensor, operand: Operand, recorder: Recorder | None) -> Quantized | None:
        same = self._seen is not None and self._seen.is_still(x) and self._terms == (operand, recorder)
        return self._cast if same else None

    def put(self, x: Tensor, operand: Operand, recorder: Recorder | None, cast: Quantized) -> None:
        if not isinstance(operand.rule, Delayed):  # there, each layer has its own history
            self._seen, self._terms, self._cast = Seen(x, self._forget), (operand, recorder), cast

    def _forget(self, _: object = None) -> None:
        self._seen = self._terms = self._cast = None


_last_cast = _LastCast()


def _in_backward() -> bool:
    """Whether autograd is running a backward pass: a forward then is the recomputation of a checkpointed one."""
    return bool(torch._C._current_graph_task_id() != -1)
