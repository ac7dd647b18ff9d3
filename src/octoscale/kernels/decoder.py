"""New tokens through a decoder layer in one call of the C++ core (csrc/decoder/): facts about the layer go in once.

    layer = DecoderLayer(facts)                                 the addresses of weights, which are kept alive
    failed = layer.step(x, cosines, sines, keys, values, 17, out)
    failed = step_through(layers, caches, x, cosines, sines, out)

Everything is bfloat16, contiguous and on the CPU; the callers have checked it. Without the core there is none of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from octoscale.kernels import table
from octoscale.kernels.base import held_formats
from octoscale.kernels.operators import Operators
from octoscale.numerics.granularity import BLOCK, ROW, SQUARE, TENSOR, Granularity
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Amax, Amount, Constant

if TYPE_CHECKING:
    from octoscale.kernels import _core

#: Loops run in steps of this many values; heads are at most this wide.
STEP, MAX_HEAD_DIM = 16, 256

#: What a step answers, unless it is the number of a linear layer: as `done` and `refused` of csrc/decoder/layer.h.
DONE, REFUSED = -1, -2

#: How far the scales of an input may reach, and the core's numbers for it.
_AMAX_OF = {TENSOR.name: 2, BLOCK.name: 3, ROW.name: 4}
INPUT_REACHES = tuple(_AMAX_OF)


@dataclass(frozen=True, kw_only=True)
class LinearFacts:
    """A linear layer: codes [out, in] of a format, its scales 2**-scale_bias * factor, and the cast of its input.

    scale_bias, factor: int32 and float32 in the shape of the scales: none, [out, 1], or a number for each block of
    128 x 128; factor may be one number for all. input: None, it stays bfloat16. input_factor: what it is divided by.
    """

    codes: Tensor
    format: str
    scale_bias: Tensor
    factor: Amount = 1.0
    input: Operand | None
    input_factor: float = 1.0

    def __post_init__(self) -> None:
        """ValueError for scales of other shapes, or in another place, than the core would read."""
        shape = self.scale_bias.shape
        fits = not shape or tuple(shape) in (self._shape(ROW), self._shape(SQUARE))
        if not fits or any(scales.shape != shape or scales.device.type != "cpu" for scales in self.scales):
            raise ValueError("the scales of a decoder layer's weight do not fit it")

    @property
    def scales(self) -> list[Tensor]:
        """All that the core reads of the scales."""
        found = [self.scale_bias, *([self.factor] if isinstance(self.factor, Tensor) else [])]
        return [scales.detach().contiguous() for scales in found]

    @property
    def serves_rows(self) -> bool:
        """Whether scales that change along a sum are powers of two: then many tokens are multiplied at once."""
        return self.reach < 2 or not isinstance(self.factor, Tensor)

    @property
    def reach(self) -> int:
        """How far a scale of the weight reaches, by the core's number: a tensor, a row, a block."""
        return 0 if self.scale_bias.ndim == 0 else 1 if tuple(self.scale_bias.shape) == self._shape(ROW) else 2

    def _shape(self, granularity: Granularity) -> tuple[int, ...]:
        return granularity.scale_shape(self.codes.shape)


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """A decoder layer of the Llama family. norms: weight and epsilon of each. linears: q, k, v, o, gate, up, down."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    attention_scale: float
    norms: tuple[tuple[Tensor, float], tuple[Tensor, float]]
    linears: tuple[LinearFacts, ...]

    def __post_init__(self) -> None:
        """The core trusts what it is told: ValueError for anything that would make it read out of bounds."""
        hidden, inner = self.linears[0].codes.shape[1], self.linears[4].codes.shape[0]
        heads, kv_heads = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        shapes = [(heads, hidden), *[(kv_heads, hidden)] * 2, (hidden, heads), *[(inner, hidden)] * 2, (hidden, inner)]
        found = [tuple(x.shape) for x in self.tensors]
        if found != [*shapes, (hidden,), (hidden,)] or self.num_heads % self.num_kv_heads:
            raise ValueError("the shapes of a decoder layer's weights do not fit together")
        if not all(x.is_contiguous() and x.device.type == "cpu" for x in self.tensors):
            raise ValueError("the weights of a fused decoder layer are contiguous, and on the CPU")

    @property
    def tensors(self) -> list[Tensor]:
        """Codes and weights of norms: all that the core reads but scales."""
        return [*(row.codes for row in self.linears), *(weight for weight, _ in self.norms)]


def why_not() -> str | None:
    """Why this machine has no fast single token, or None."""
    choice = table.choose("cpu")
    return None if choice.name == "native" else f"the backend is {choice.name}: {choice.reason}"


class DecoderLayer:
    """The core's picture of a decoder layer."""

    def __init__(self, facts: LayerFacts) -> None:
        from octoscale.kernels import _core

        self._isa = _isa()
        heads = (facts.num_heads, facts.num_kv_heads, facts.head_dim)
        norm1, norm2 = ((weight.data_ptr(), epsilon) for weight, epsilon in facts.norms)
        scales = [row.scales for row in facts.linears]
        linears = [_numbers(row, *of_row) for row, of_row in zip(facts.linears, scales, strict=True)]
        self._alive = [*(x.detach() for x in facts.tensors), *chain(*scales)]  # the core knows addresses only
        self._serves_rows = all(row.serves_rows for row in facts.linears)
        self.native = _core.DecoderLayer(heads, facts.attention_scale, norm1, norm2, linears)

    @property
    def serves_rows(self) -> bool:
        """Whether a step takes many tokens, the first of their sequence."""
        from octoscale.kernels import _core

        return self._serves_rows and _core.serves_rows(self._isa)

    def step(
        self, x: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: int, out: Tensor
    ) -> int:
        """Fill `out`, and the positions from `length` on of keys and values [1, kv_heads, capacity, head_dim].

        x [..., hidden], cosines and sines [..., head_dim]: a row for each token. DONE; REFUSED, if this token has to
        go another way; or the number of the first linear layer whose input holds infinity or NaN.
        """
        if x.numel() > x.shape[-1] and not self.serves_rows:
            return REFUSED
        caches = (keys.data_ptr(), values.data_ptr(), keys.stride(1), length)
        turns = (cosines.data_ptr(), sines.data_ptr())
        to = (out.data_ptr(), torch.get_num_threads())
        return self.native.step(self._isa, x.data_ptr(), x.numel() // x.shape[-1], *turns, *caches, *to)


def step_through(
    layers: Sequence["_core.DecoderLayer"],
    caches: Sequence[tuple[int, int, int, int]],
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    out: Tensor,
) -> int:
    """One token through all layers. caches: of each, the addresses of keys and values, their stride, and the length.

    layers: `native` of each DecoderLayer; these stay alive. As `DecoderLayer.step`, but that linear layers are counted
    through all layers, seven in each.
    """
    from octoscale.kernels import _core

    addresses = (x.data_ptr(), cosines.data_ptr(), sines.data_ptr(), out.data_ptr())
    return _core.step_through(_isa(), layers, caches, *addresses, torch.get_num_threads())


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, out: Tensor) -> None:
    """Fill `out` with x [..., n] / sqrt(mean(x**2) + epsilon) * weight [n], all bfloat16 and contiguous."""
    from octoscale.kernels import _core

    n = weight.numel()
    _core.rms_norm(_isa(), x.data_ptr(), x.numel() // n, n, weight.data_ptr(), epsilon, out.data_ptr())


def linear_bf16(x_MK: Tensor, weight_NK: Tensor, out_MN: Tensor) -> bool:
    """Fill `out` with x @ weight^T, all bfloat16 and contiguous, for few rows. False if no kernel here does it."""
    from octoscale.kernels import _core

    (m, k), n = x_MK.shape, weight_NK.shape[0]
    operands = (x_MK.data_ptr(), -1, k, 1, weight_NK.data_ptr(), -1, 1, k, m, k, n)
    return _core.matmul(_isa(), *operands, 0, 0, 0, out_MN.data_ptr(), 1, torch.get_num_threads())


def _isa() -> int:
    operators = table.choose("cpu").backend
    assert isinstance(operators, Operators)
    return operators.native.number


def _numbers(facts: LinearFacts, biases: Tensor, factors: Tensor | None = None) -> "_core.LinearFacts":
    """As csrc/bindings/decoder.cpp wants it."""
    num_out, num_in = facts.codes.shape
    bias, of_each = (int(biases), 0) if facts.reach == 0 else (0, biases.data_ptr())
    factor = facts.input_factor if isinstance(facts.factor, Tensor) else facts.factor * facts.input_factor
    scales = (facts.reach, bias, factor, of_each, 0 if factors is None else factors.data_ptr())
    return (facts.codes.data_ptr(), _number_of(facts.format), scales, num_in, num_out, _rule(facts))


def _rule(facts: LinearFacts) -> tuple[int, int, int, float]:
    """How the input is cast, as `InputRule` of csrc/decoder/layer.h numbers it."""
    if facts.input is None:
        return (0, 0, 0, 1.0)
    rule, number = facts.input.rule, _number_of(facts.input.format)
    if isinstance(rule, Constant):
        return (1, number, rule.bias, facts.input_factor)
    assert isinstance(rule, Amax)
    return (_AMAX_OF[rule.granularity], number, rule.margin, facts.input_factor)


def _number_of(fmt: str) -> int:
    return [held.name for held in held_formats().values()].index(fmt)
