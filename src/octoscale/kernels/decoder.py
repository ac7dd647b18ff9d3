"""New tokens through a decoder layer in one call of the C++ core (csrc/decoder/): facts about the layer go in once.

    layer = DecoderLayer(facts)                                 the addresses of weights, which are kept alive
    failed = layer.step(x, cosines, sines, keys, values, 17, out)
    failed = step_through(layers, caches, x, cosines, sines, out)

Everything is bfloat16, contiguous and on the CPU; the callers have checked it. Without the core there is none of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from octoscale.kernels import table
from octoscale.kernels.base import held_formats
from octoscale.kernels.operators import Operators
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Amax, Constant

if TYPE_CHECKING:
    from octoscale.kernels import _core

#: Loops run in steps of this many values; heads are at most this wide.
STEP, MAX_HEAD_DIM = 16, 256


@dataclass(frozen=True, kw_only=True)
class LinearFacts:
    """A linear layer: codes [out, in] of a format, its scale_bias, and the cast of its input, or None: bfloat16."""

    codes: Tensor
    format: str
    scale_bias: int
    input: Operand | None


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
        """Codes and weights: all that the core reads."""
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
        linears = [_numbers(row) for row in facts.linears]
        self._alive = [x.detach() for x in facts.tensors]  # the core knows addresses only
        self.native = _core.DecoderLayer(heads, facts.attention_scale, norm1, norm2, linears)

    @property
    def serves_rows(self) -> bool:
        """Whether a step takes many tokens, the first of their sequence."""
        from octoscale.kernels import _core

        return _core.serves_rows(self._isa)

    def step(
        self, x: Tensor, cosines: Tensor, sines: Tensor, keys: Tensor, values: Tensor, length: int, out: Tensor
    ) -> int:
        """Fill `out`, and the positions from `length` on of keys and values [1, kv_heads, capacity, head_dim].

        x [..., hidden], cosines and sines [..., head_dim]: a row for each token. The number of the first linear layer
        whose input holds infinity or NaN; -1 if none does.
        """
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


def _numbers(facts: LinearFacts) -> tuple[int, ...]:
    """As csrc/bindings/decoder.cpp wants it."""
    num_out, num_in = facts.codes.shape
    weight = (facts.codes.data_ptr(), _number_of(facts.format), facts.scale_bias, num_in, num_out)
    if facts.input is None:
        return (*weight, 0, 0, 0)
    rule, number = facts.input.rule, _number_of(facts.input.format)
    if isinstance(rule, Constant):
        return (*weight, 1, number, rule.bias)
    assert isinstance(rule, Amax)
    return (*weight, 2, number, rule.margin)


def _number_of(fmt: str) -> int:
    return [held.name for held in held_formats().values()].index(fmt)
