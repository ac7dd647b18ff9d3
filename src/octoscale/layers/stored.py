"""StoredLinear: an FP8 layer whose weight is codes already, as a checkpoint on disk holds them.

It casts inputs and multiplies as Fp8Linear does, so that a model gives the same bits before it is saved and after it is
loaded. The weight is frozen: one byte a value, and its memory may be a file's. Gradients flow through it to the input.

    values = codes * weight_scale          our files: weight_scale = 2**-scale_bias; files of others: any positive float

weight_scale is one number, or one for each output channel (row), or for each block of 128 x 128; schemes.py says in
which shape. How far a scale reaches is the granularity of the recipe's weight.

A scale that is no power of two is split: scale = factor * 2**-scale_bias, 1 <= factor < 2. The power of two goes the
usual way, and the float32 result is multiplied with the factor, then biased and rounded: with that of its channel,
where there are rows. Factors of blocks change along the sum: there, each run of 128 of it is multiplied with its own
(runs.py). An input is divided by its factor in float32 before the cast. So what others wrote is computed as they meant
it: nothing is rounded that they do not round, but once each float32 sum of a run times its factor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from octoscale.kernels import ops
from octoscale.kernels.base import codes_dtype
from octoscale.kernels.groups import amaxes, spread
from octoscale.kernels.ops import Observed, Quantized
from octoscale.layers import compiled_stored
from octoscale.layers.compiled import SEPARATOR
from octoscale.layers.compiled_stored import values_product
from octoscale.layers.factor import split_scale, split_scales
from octoscale.layers.layouts import Layout
from octoscale.layers.linear import Fp8Linear, Products
from octoscale.layers.origin import is_conv1d
from octoscale.layers.part_linear import ranks_of
from octoscale.layers.reuse import Seen
from octoscale.layers.runs import sum_of_runs
from octoscale.layers.schemes import STORED_FORMAT, Scheme
from octoscale.layers.state import LayerState, NonFiniteError
from octoscale.numerics.formats import get_format
from octoscale.numerics.granularity import BLOCK, TENSOR
from octoscale.numerics.recipe import Operand, Recipe
from octoscale.numerics.scaling import Amax, Amount, Constant, power_of_two
from octoscale.runs.scales import LayerName
from octoscale.system.errors import UserError

#: Values of codes with a smaller scale_bias are exactly bfloat16, in half of float32's memory.
_SAFE_BIAS = 100


class StoredLinear(Fp8Linear):
    """A linear layer with an FP8 weight in place of a high-precision one; made by `to_stored`.

    Parameters: `weight`, e4m3fn, [N, K] or Conv1D's [K, N]; the scales, float32, in the shape of the file, under the
    names of the layout; `bias`. ValueError, with the layer's name, for a scale that is not a positive, finite number.
    """

    fp8: "StoredState"

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype that the weight had; peft makes adapters in it, where a layer has this name."""
        return self.fp8.dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "StoredLinear":
        """What `to`, `half`, `cuda` and the like do to each parameter: codes and scales move, and keep their dtypes."""
        frozen = {id(self._parameters[name]) for name in ("weight", *self.scale_names)}

        def keep(x: Tensor) -> Tensor:
            if id(x) not in frozen:
                return fn(x)
            sample = fn(torch.empty(0, dtype=x.dtype, device=x.device))
            if sample.dtype == x.dtype:
                return fn(x)
            self.fp8.dtype = sample.dtype
            return x.to(sample.device)

        return super()._apply(keep, recurse)  # type: ignore[no-any-return,no-untyped-call]

    @property
    def scale_names(self) -> list[str]:
        """The parameters that are scales, by the names of the layout."""
        return [n for n in (self.fp8.layout.weight_scale, self.fp8.layout.input_scale) if n in self._parameters]

    def original(self) -> nn.Module:
        """A layer as the model had it, with the values of the codes in the dtype that it had."""
        module = super().original()
        module._parameters = {name: self._parameters[name] for name in ("weight", "bias") if name in self._parameters}
        module.weight = nn.Parameter(self.weight_values(self.quantized_weight()).to(self.fp8.dtype))
        return module

    def weight_values(self, w8: Quantized) -> Tensor:
        """The values of the weight as it lies, float32: exact, or rounded once where a factor is not 1."""
        factor, values = self.fp8.weight_factor, w8.dequantize(torch.float32)
        return values * (spread(factor, w8.granularity, values.shape) if isinstance(factor, Tensor) else factor)

    def quantized_weight(self) -> Quantized:
        """Codes and scale_bias of the weight.

        Its factors are `fp8.weight_factor`: 1.0 where all are 1, else a number, or a tensor in scale_bias's shape.
        """
        scale, runtime = self.get_parameter(self.fp8.layout.weight_scale), self.fp8.runtime
        seen, w8 = runtime.weight
        known = seen is not None and seen.is_still(scale) and self._has_known_input_scale()
        if w8 is None or not (known and _is_view_of(w8.codes, self.weight)):
            w8 = self._read_scales(scale)
            runtime.weight = (Seen(scale), w8)
        return w8

    def check_codes(self) -> None:
        """NonFiniteError, with the weight's name, if a code of it is NaN: looked at once, and after each write."""
        weight, runtime = self.weight.detach(), self.fp8.runtime
        seen = runtime.codes
        if weight.is_meta or (seen is not None and (self.weight.is_inference() or seen.is_still(self.weight))):
            return
        if self.fp8.recipe.weight.format == STORED_FORMAT and _holds_nan(weight):
            raise NonFiniteError(f"{self.fp8.name.module}.weight holds NaN: the checkpoint is damaged, fetch it again")
        runtime.codes = Seen(self.weight)

    def set_weight(self, values: Tensor, operand: Operand) -> None:
        """Cast a weight into this layer: this rank's part of it, if the layer has one."""
        everywhere = self.fp8.ranks.amax.get("weight")
        granularity = self.fp8.weight_granularity
        cast = ops.quantize(values, operand.format, operand.rule, everywhere=everywhere, granularity=granularity)
        assert cast.observed is not None
        check_finite_weight(f"{self.fp8.name.module}.weight", cast.observed.amax)
        self.weight = nn.Parameter(cast.codes, requires_grad=False)
        scale = scales_of(cast, self.fp8.layout, is_conv1d=self.fp8.is_conv1d)
        self._parameters[self.fp8.layout.weight_scale] = nn.Parameter(scale, requires_grad=False)

    def write_scales_as(self, layout: Layout) -> None:
        """Give the weight's scales the shape that the layout has for them, which files of others may not have.

        One scale a tensor keeps its shape: both forms of it are read by all.
        """
        scheme = Scheme(weight=self.fp8.recipe.weight.rule.granularity)
        if scheme.weight != TENSOR.name:
            shape, scale = shape_in(layout, scheme, self), self.get_parameter(layout.weight_scale)
            if tuple(scale.shape) != shape:
                self._parameters[layout.weight_scale] = nn.Parameter(scale.detach().reshape(shape), requires_grad=False)

    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        self.check_codes()
        w8 = self.quantized_weight()
        if self.fp8.activations == "none":
            return self._weight_only(x, w8, dtype)
        weight_factor, input_factor = self.fp8.weight_factor, self.fp8.input_factor
        x = x if input_factor == 1 else x.float() / input_factor
        x8 = self.fp8.cast_input(x, inference=self._is_inference())
        if not isinstance(weight_factor, Tensor) and weight_factor * input_factor == 1:
            return Products.apply(x, self.weight, self.bias, x8, w8, self.fp8, dtype)  # type: ignore[no-any-return,no-untyped-call]
        if isinstance(weight_factor, Tensor) and self.fp8.recipe.weight.rule.granularity == BLOCK.name:
            y = sum_of_runs(x, self.weight, x8, w8, weight_factor, self.fp8) * input_factor
        else:
            factor = weight_factor.flatten() if isinstance(weight_factor, Tensor) else weight_factor
            y = Products.apply(x, self.weight, None, x8, w8, self.fp8, torch.float32) * (factor * input_factor)  # type: ignore[no-untyped-call]
        return (y if self.bias is None else y + self.bias).to(dtype)

    def _in_graph(self, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        state = self.fp8
        scale = self.get_parameter(state.layout.weight_scale)
        if state.activations == "none":
            operand = state.terms.split(SEPARATOR)[0]
            return compiled_stored.weight_only(x, weight, scale, self.bias, operand, state.is_conv1d, dtype)
        input_scale = self.get_parameter(state.layout.input_scale) if state.activations == "static" else None
        terms, fast = state.terms, state.recipe.fast
        return compiled_stored.stored_linear(
            x, weight, scale, input_scale, self.bias, terms, fast, state.is_conv1d, dtype
        )

    def _weight_only(self, x: Tensor, w8: Quantized, dtype: torch.dtype) -> Tensor:
        """The input stays what it is; bfloat16 of no gradients has a kernel of its own."""
        factor, add = self.fp8.weight_factor, self.fp8.ranks.sum_output
        w_NK = w8.t() if self.fp8.is_conv1d else w8
        is_power_of_two = not isinstance(factor, Tensor) and factor == 1
        if x.dtype == torch.bfloat16 and is_power_of_two and not torch.is_grad_enabled():
            if add is None:
                return ops.linear(x, w_NK, bias=self.bias, dtype=dtype)
            y = add(ops.linear(x, w_NK, dtype=torch.float32))
        else:
            weight = self.weight_values(w8)
            weight = weight.t() if self.fp8.is_conv1d else weight
            if add is None:
                return values_product(x, weight, self.bias, dtype)
            y = add(values_product(x, weight, None, torch.float32))
        return (y if self.bias is None else y + self.bias.float()).to(dtype)

    def _has_known_input_scale(self) -> bool:
        """Whether the scale of inputs, if they are static, is the one that was read."""
        if self.fp8.activations != "static":
            return True
        seen = self.fp8.runtime.input_scale
        return seen is not None and seen.is_still(self.get_parameter(self.fp8.layout.input_scale))

    def _read_scales(self, scale: Tensor) -> Quantized:
        """Check the scales, note what they are, and record the weight."""
        state, layout = self.fp8, self.fp8.layout
        scale_bias, state.weight_factor = self._split(scale, f"{state.name.module}.{layout.weight_scale}")
        if state.activations == "static":
            values = self.get_parameter(layout.input_scale)
            state.runtime.input_scale = Seen(values)
            input_bias, state.input_factor = split_scale(values, f"{state.name.module}.{layout.input_scale}")
            rule = Operand(format=state.recipe.input.format, rule=Constant(input_bias))
            state.recipe = replace(state.recipe, input=rule)
        fmt = get_format(state.recipe.weight.format)
        w8 = Quantized(
            codes=self.weight.detach(), scale_bias=scale_bias, format=fmt, granularity=state.weight_granularity
        )
        if state.runtime.recorder is not None:
            state.runtime.recorder.add(state.name, "weight", self._observed(w8), state.step)
        return w8

    def _split(self, scale: Tensor, what: str) -> tuple[Tensor, Amount]:
        """scale_bias and factor of the weight's scales, as the weight lies."""
        scheme = Scheme(weight=self.fp8.recipe.weight.rule.granularity)
        if scheme.weight == TENSOR.name:
            bias, factor = split_scale(scale, what)
            return torch.full((), bias, dtype=torch.int32, device=self.weight.device), factor
        shape = scheme.scale_shape(self.out_features, self.in_features)
        if scale.numel() != math.prod(shape):
            raise UserError(f"{what} has shape {list(scale.shape)}: one scale a {scheme.weight} would be {list(shape)}")
        biases, factors = split_scales(scale.reshape(shape), what)
        if not self.fp8.is_conv1d:
            return biases, factors
        return biases.t(), factors.t() if isinstance(factors, Tensor) else factors

    def _observed(self, w8: Quantized) -> Quantized:
        """The weight as if it had been cast just now from the values of its codes: what was clipped once is not known.

        Values are those without a factor.
        """
        state = self.fp8
        if w8.granularity is TENSOR:
            bias = int(w8.scale_bias)
            dtype = torch.bfloat16 if abs(bias) < _SAFE_BIAS else torch.float32
            everywhere = state.ranks.amax.get("weight")
            return ops.quantize(w8.dequantize(dtype), w8.format, Constant(bias), counts=True, everywhere=everywhere)
        values = w8.dequantize(torch.float32)
        amax, none = amaxes(values, w8.granularity), torch.zeros((), dtype=torch.int64, device=values.device)
        observed = Observed(
            amax=amax.amax(), amaxes=amax, saturated=none, flushed=none, nonfinite=(~values.isfinite()).sum()
        )
        return replace(w8, observed=observed)


def _holds_nan(codes: Tensor) -> bool:
    """Whether a code of e4m3fn is one of its two NaN, 0x7f and 0xff: the largest of signed, and of unsigned bytes."""
    if not codes.numel():
        return False
    return int(codes.view(torch.int8).amax()) == 0x7F or int(codes.view(torch.uint8).amax()) == 0xFF


def _is_view_of(codes: Tensor, weight: Tensor) -> bool:
    """Whether these codes are still those of the parameter: all of it, where it is."""
    same_place = codes.data_ptr() == weight.data_ptr() and codes.device == weight.device
    return same_place and codes.shape == weight.shape and codes.stride() == weight.stride()


@dataclass(kw_only=True)
class StoredState(LayerState):
    """What a stored layer also knows: names of its scales, what becomes of its input, the dtype that its weight had."""

    layout: Layout
    activations: str
    dtype: torch.dtype
    weight_factor: Amount = 1.0
    input_factor: float = 1.0


def to_stored(
    module: nn.Module,
    name: LayerName,
    recipe: Recipe,
    layout: Layout,
    activations: str,
    scale_shape: tuple[int, ...],
    input_shape: tuple[int, ...] | None = None,
) -> StoredLinear:
    """A StoredLinear in place of `module`, with a weight and scales that are yet to be filled.

    recipe: its weight says how far a scale reaches. scale_shape, input_shape: those of the scales in the file; None for
    the layout's own shape of one number.
    """
    if activations == "static" and recipe.input.rule.granularity != TENSOR.name:  # a file's scale is a tensor's
        recipe = replace(recipe, input=replace(recipe.input, rule=Amax()))
    stored = StoredLinear.__new__(StoredLinear)
    stored.__dict__.update(module.__dict__)
    stored._parameters = dict(module._parameters)
    weight: Any = module.weight
    if is_conv1d(module):
        stored.in_features, stored.out_features = weight.shape
    dtype = codes_dtype(get_format(recipe.weight.format))
    stored.weight = nn.Parameter(torch.empty_like(weight, dtype=dtype), requires_grad=False)
    shapes = {layout.weight_scale: scale_shape} | ({layout.input_scale: input_shape} if activations == "static" else {})
    for scale, shape in shapes.items():
        stored.register_parameter(scale, scale_parameter(math.nan, layout, shape, weight.device))
    stored.fp8 = StoredState(
        name=name,
        recipe=recipe,
        original_type=type(module),
        ranks=ranks_of(module),
        layout=layout,
        activations=activations,
        dtype=weight.dtype,
    )
    return stored


def shape_in(layout: Layout, scheme: Scheme, module: Any) -> tuple[int, ...]:
    """The shape that the scales of a linear layer's weight have in a layout."""
    sizes = module.weight.shape
    is_turned = module.fp8.is_conv1d if isinstance(module, StoredLinear) else is_conv1d(module)
    return layout.shape_of(scheme, *(reversed(sizes) if is_turned else sizes))


def scale_parameter(
    value: float, layout: Layout, shape: tuple[int, ...] | None = None, device: torch.device | str = "cpu"
) -> nn.Parameter:
    """A frozen scale in the shape that the layout wants, or in another."""
    values = torch.full(layout.scale_shape if shape is None else shape, value, dtype=torch.float32, device=device)
    return nn.Parameter(values, requires_grad=False)


def scales_of(cast: Quantized, layout: Layout, *, is_conv1d: bool) -> Tensor:
    """What the codes of a weight are multiplied with, float32, as the layout holds it. is_conv1d: it lies [K, N]."""
    if cast.granularity is TENSOR:
        return torch.full(layout.scale_shape, 2.0 ** -int(cast.scale_bias), dtype=torch.float32)
    scales = power_of_two(-cast.scale_bias)
    return (scales.t() if is_conv1d else scales).contiguous()


def check_finite_weight(name: str, amax: Tensor) -> None:
    """ValueError naming a weight whose amax is not finite: its scale would flush every finite value."""
    if not math.isfinite(amax.item()):
        raise UserError(f"{name} holds infinity or NaN: no scale fits it; mend the checkpoint, or keep it with skip")
