"""Fp8Linear: a linear layer whose three products multiply FP8 codes. The method is in this file.

A linear layer computes three matrix products, one forward and two backward. Legend: B rows of all leading dimensions,
K input features, N output features; `q(.)` casts to FP8: codes, and an int `scale_bias` (numerics/scaling.py).

    output       y_BN  = x_BK  @ w_KN          forward       x8 = q(x) in E4,  w8 = q(w) in E4
    grad_input   dx_BK = g_BN  @ w_KN^T        backward      g8 = q(g) in E5, cast once and used by both products
    grad_weight  dw_KN = x_BK^T @ g_BN         backward      x8 and w8 are those of the forward pass

Each product sums in float32, is unscaled by 2**-(b1 + b2), and is rounded once to the output's dtype. E4 has more
mantissa bits and serves weights and activations; E5 has more range, which gradients need (Perez et al. 2023).

More than one scale a tensor (numerics/granularity.py). Each of the three products sums along another dimension, K, N
or B, and a scale for a row, a block or 32 values runs along one: q(x) and q(w) along K, q(g) along N. What a backward
product lacks is *turned*: cast once more, with scales along its own sum. x8 and w8 are turned from their codes, which
is all that is kept of them; g from itself, which is at hand.

    output       x8 @ w8                      sums along K
    grad_input   g8 @ turned(w8)^T            along N; blocks of 128 x 128 serve both sums, and are not turned
    grad_weight  turned(x8)^T @ turned(g)     along B, the tokens: of a row, one scale a feature

A row's scale is a factor of its sums. The others change along the sum, whose runs of 128 or 32 products have each
their scale, as in DeepSeek-V3 and in the tensor cores that take MX (kernels/groups.py).

What is kept. Parameters stay what they were: the same objects, in their own dtype, under the same names, so that
optimizers, tied weights and state dicts go on working. The weight's cast is reused until the weight changes or an
optimizer steps. Backward keeps the FP8 codes of input and weight, one byte a value, never the high-precision input.
Layers that take the same tensor one after the other (q, k, v; gate and up) share its cast.

What is never hidden. Infinity and NaN turn the product into NaN, which a loss scaler sees; in inference (no gradients,
eval mode) they raise `NonFiniteError` with the layer's name.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from octoscale.kernels import ops
from octoscale.kernels.ops import Quantized
from octoscale.layers.compiled import fp8_linear
from octoscale.layers.gathered import Gathered
from octoscale.layers.origin import is_conv1d
from octoscale.layers.part_linear import ranks_of
from octoscale.layers.ranks import Add, here
from octoscale.layers.state import LayerState
from octoscale.numerics.recipe import Recipe
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError


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
        w_KN = layer.weight_in_columns(w8 if layer.is_conv1d else w8.t())
        sums = layer.recipe.sums("forward")
        y_BN = _product(x8.flatten_rows(), w_KN, dtype, layer.ranks.sum_output, bias, sums)
        return ops.reshaped(y_BN, (*x.shape[:-1], y_BN.shape[-1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias, as far as they are wanted."""
        x8, w8 = _saved(ctx)
        layer: LayerState = ctx.layer
        dx = dw = db = None
        sums = layer.recipe.sums("backward")
        if x8 is not None or w8 is not None:
            g_BN = layer.cast_grad_output(grad, ctx.step).flatten_rows()
        if w8 is not None:
            w_NK = layer.weight_in_columns(layer.turned("weight", w8.t() if layer.is_conv1d else w8))
            dx_BK = _product(g_BN, w_NK, ctx.x_dtype, layer.ranks.sum_grad_input, None, sums)
            dx = ops.reshaped(dx_BK, ctx.x_shape)
        if x8 is not None:
            x_BK, g_BN = layer.turned("input", x8.flatten_rows()), layer.turned_grad_output(grad, g_BN)
            a, b = (x_BK, g_BN) if layer.is_conv1d else (g_BN, x_BK)
            dw = ops.matmul(a.t(), b, dtype=ctx.w_dtype, **sums)
        if ctx.needs_input_grad[2]:
            db = grad.reshape(-1, grad.shape[-1]).sum(0, dtype=torch.float32).to(ctx.bias_dtype)
        return dx, dw, db, None, None, None, None


def _product(
    a: Quantized, b: Quantized, dtype: torch.dtype, add: Add | None, bias: Tensor | None, sums: dict[str, Any]
) -> Tensor:
    """`a @ b + bias`, rounded once; if the sum is in parts on several ranks, they `add` them up before."""
    if add is None:
        return ops.matmul(a, b, dtype=dtype, bias=bias, **sums)
    whole = add(ops.matmul(a, b, dtype=torch.float32, **sums))
    return (whole if bias is None else whole + bias).to(dtype)


class Fp8Linear(nn.Linear):
    """A linear layer in FP8, made from an `nn.Linear` or a transformers `Conv1D` by `convert`.

    Input float32, bfloat16 or float16 [..., K]; output [..., N] in the input's dtype, or autocast's where that is on.
    The weight keeps the layout of its origin: [N, K], or Conv1D's [K, N]. `fp8` holds the recipe and all other state.
    After a write to `weight.data` in place, which leaves no trace, call `octoscale.forget_casts(model)`. torch.compile
    takes a layer whole (compiled.py), unless `fp8.why_no_graph` has a reason: then it stays eager.
    """

    fp8: "LayerState"

    def forward(self, x: Tensor) -> Tensor:
        """`x @ w + bias` with FP8 operands; see the top of this file."""
        weight = here(self.weight)
        in_features = weight.shape[0 if self.fp8.is_conv1d else 1]
        if x.shape[-1:] != (in_features,):
            raise UserError(f"{self.fp8.name.module}: takes inputs [..., {in_features}], not {list(x.shape)}")
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        if torch.compiler.is_compiling():
            if self.fp8.is_stateless and not isinstance(weight, Gathered):
                return self._in_graph(x, weight, dtype)
            return self._out_of_graph(x, dtype)
        return self._forward(x, dtype)

    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        weight, bias = here(self.weight), None if self.bias is None else here(self.bias)
        w8 = self.fp8.cast_weight(weight, inference=self._is_inference(), owner=self.weight)
        x8 = self.fp8.cast_input(x, inference=self._is_inference())
        return Products.apply(x, weight, bias, x8, w8, self.fp8, dtype)  # type: ignore[no-any-return,no-untyped-call]

    def _in_graph(self, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        return fp8_linear(x, weight, self.bias, self.fp8.terms, self.fp8.recipe.fast, self.fp8.is_conv1d, dtype)

    def _out_of_graph(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Eager mode between two graphs; where only one is wanted, the error says why."""
        why = self.fp8.why_no_graph(isinstance(self.weight, Gathered))
        torch._dynamo.graph_break(msg=why)
        if torch.compiler.is_exporting():
            raise UserError(why)
        return self._forward_eager(x, dtype)  # type: ignore[no-any-return]

    @torch.compiler.disable(reason="the graph break before it says why")  # type: ignore[untyped-decorator,no-untyped-call]
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


def to_fp8(module: nn.Module, name: LayerName, recipe: Recipe) -> Fp8Linear:
    """An Fp8Linear with the parameters, buffers, hooks and mode of `module`, which is left as it was."""
    fp8 = Fp8Linear.__new__(Fp8Linear)
    fp8.__dict__.update(module.__dict__)
    if is_conv1d(module):
        fp8.in_features, fp8.out_features = fp8.weight.shape
    fp8.fp8 = LayerState(name=name, recipe=recipe, original_type=type(module), ranks=ranks_of(module))
    return fp8


def _save(ctx: Any, *casts: Quantized | None) -> None:
    """Keep casts for backward: codes and scale_bias as saved tensors, one byte a value."""
    ctx.kinds = [None if cast is None else (cast.format, cast.granularity) for cast in casts]
    ctx.save_for_backward(*(t for cast in casts if cast is not None for t in (cast.codes, cast.scale_bias)))


def _saved(ctx: Any) -> list[Quantized | None]:
    """The casts that `_save` kept."""
    tensors = iter(ctx.saved_tensors)
    return [
        None
        if kind is None
        else Quantized(codes=next(tensors), scale_bias=next(tensors), format=kind[0], granularity=kind[1])
        for kind in ctx.kinds
    ]
