"""FusedLayer: the forward of a decoder layer of the Llama family, in one call of the C++ core where it may.

It may for one sequence, its next token or (on AVX-512 and AMX) its first ones, bfloat16, no gradients, nothing padded,
recorded or hooked. All else goes the usual way. It rounds to bfloat16 wherever the layer does, and differs from it by
the order of sums only.

New keys and values are written behind those that a cache shows, in room kept for them: nothing is copied for a token.
"""

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from octoscale.inference.known_layers import are_all_modules_watched, globals_of, is_collecting, is_watched, why_unknown
from octoscale.inference.usual_path import is_intercepted, is_usual_cache
from octoscale.kernels import decoder
from octoscale.kernels.base import Scaled
from octoscale.kernels.decoder import DONE, REFUSED, DecoderLayer, LayerFacts, LinearFacts
from octoscale.kernels.groups import WIDEST
from octoscale.layers.reuse import Watch
from octoscale.layers.state import NonFiniteError, nonfinite_error
from octoscale.layers.stored import StoredLinear
from octoscale.numerics.recipe import Operand
from octoscale.numerics.scaling import Delayed

_LINEARS = tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
)
#: What a decoder layer is told that the step takes, or that changes nothing for one sequence; anything else may.
_WORDS = ("attention_mask", "position_ids", "past_key_values", "use_cache", "position_embeddings", "cache_position")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def why_not(layer: nn.Module) -> str | None:
    """Why a decoder layer cannot be fused, in the user's words; None if it can."""
    unknown = why_unknown(layer)
    if unknown is not None:
        return unknown
    for name in _LINEARS:
        unknown = _why_not_linear(name, layer.get_submodule(name))
        if unknown is not None:
            return unknown
    attention: Any = layer.self_attn
    sizes = [size for name in _LINEARS for size in layer.get_submodule(name).weight.shape]  # type: ignore[union-attr]
    if attention.head_dim > decoder.MAX_HEAD_DIM or any(n % decoder.STEP for n in (attention.head_dim, *sizes)):
        return f"its sizes are no multiples of {decoder.STEP}, or its heads wider than {decoder.MAX_HEAD_DIM}"
    if any(layer.get_submodule(name).weight.dtype != torch.bfloat16 for name in _NORMS):
        return "it is not bfloat16"
    try:
        _Parts(layer).facts()
    except ValueError as error:
        return str(error)
    return None


def _why_not_linear(name: str, linear: nn.Module) -> str | None:
    if type(linear) is not StoredLinear:
        return f"{name} is not loaded in FP8"
    if not linear.fp8.ranks.is_alone:
        return "its weights are in parts on several ranks"
    if "forward" in linear.__dict__:
        return f"the forward of {name} was replaced"
    if linear.bias is not None:
        return f"{name} has a bias"
    if _reach(linear.quantized_weight()) > WIDEST:
        return f"{name} has scales along its sums that lie more than 2**{WIDEST} apart"
    operand = linear.fp8.recipe.input
    if isinstance(operand.rule, Delayed):
        return f"{name} has scales that each call adds to"
    if linear.fp8.activations != "none" and operand.rule.granularity not in decoder.INPUT_REACHES:
        return f"{name} has inputs with scales of granularity {operand.rule.granularity}"
    return None


def _reach(weight: Scaled) -> int:
    """How far the scale_biases of one sum lie apart."""
    biases = weight.scale_bias
    return int((biases.amax(1) - biases.amin(1)).amax()) if biases.ndim else 0


class FusedLayer:
    """The forward of a decoder layer: one call of the core where it may, the usual forward where it may not."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self._name, self._layer = name, layer
        self._known_parts: _Parts | None = None
        self._caches: weakref.WeakKeyDictionary[DynamicLayer, Room] = weakref.WeakKeyDictionary()
        self._watch: Watch | None = None
        self._core: DecoderLayer | None = None
        self._globals: list[object] = []
        self._said: str | None = None

    def __getstate__(self) -> tuple[str, nn.Module]:
        """A copy finds its own tensors: addresses are not copied."""
        return self._name, self._layer

    def __setstate__(self, state: tuple[str, nn.Module]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the decoder layer's own forward; in a graph of torch.compile always that."""
        past = kwargs.get("past_key_values")
        if torch.compiler.is_compiling() or args or not self.is_known() or not self._serves(hidden_states, kwargs):
            return type(self._layer).forward(self._layer, hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
        cache = past and past.layers[self.parts.index]
        num_tokens, out = hidden_states.shape[1], torch.empty_like(hidden_states)
        room = self.room(cache, num_tokens)
        cosines, sines = kwargs["position_embeddings"]
        outcome = self.core().step(hidden_states, cosines, sines, room.keys, room.values, room.length, out)
        if outcome == REFUSED:
            return type(self._layer).forward(self._layer, hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
        if outcome != DONE:
            raise self.nonfinite(outcome)
        room.show(cache, num_tokens)
        return out

    @property
    def parts(self) -> "_Parts":
        """The modules that make up the layer."""
        self._known_parts = self._known_parts or _Parts(self._layer)
        return self._known_parts

    def is_observed(self) -> bool:
        """Whether someone wants to see what passes inside of the layer."""
        parts = self.parts
        if any(parts.hooks) and any(map(is_watched, parts.inner)):
            return True
        if are_all_modules_watched() or is_collecting():
            return True
        return any(runtime.recorder is not None for runtime in parts.runtimes)

    def is_known(self) -> bool:
        """Whether the layer is what the core computes; looked at anew when anything in it has changed."""
        if self._watch is None or self._has_changed():
            self._look()
        return self._core is not None

    def extends(self, past: Cache | None, num_tokens: int) -> bool:
        """Whether a step can add tokens to this layer's part of a cache."""
        if past is None:
            return num_tokens == 1 or self.core().serves_rows
        index = self.parts.index
        cache: Any = past.layers[index] if len(past.layers) > index else None
        if type(cache) is not DynamicLayer:
            return False
        room = self._caches.get(cache)
        if room is not None and room.has_next(cache):
            return num_tokens == 1
        if "update" in vars(cache):
            return False
        if cache.get_seq_length():
            return num_tokens == 1 and cache.keys.dtype == torch.bfloat16 and cache.keys.shape[0] == 1
        return num_tokens == 1 or self.core().serves_rows

    def turns(self, x: Tensor, *turns: Tensor) -> bool:
        """Whether these are a cosine and a sine for each token and each value of a head, as the core reads them."""
        shape = (1, x.shape[1], self.parts.head_dim)
        return len(turns) == 2 and all(y.dtype == x.dtype and y.shape == shape and y.is_contiguous() for y in turns)

    def room(self, cache: DynamicLayer | None, num_tokens: int) -> "Room":
        """Room behind the keys and values of a cache that `extends` allows."""
        room = self._caches.get(cache) if cache is not None else None
        if room is None or not room.has_next(cache):
            room = Room(self.parts.heads_of_cache, self.parts.head_dim, num_tokens, cache)
            if cache is not None:
                self._caches[cache] = room
        return room

    def core(self) -> DecoderLayer:
        """The core's picture of the layer, if it `is_known`."""
        assert self._core is not None
        return self._core

    def _has_changed(self) -> bool:
        return self._watch is None or self._watch.has_changed() or globals_of(self._layer) != self._globals

    def _look(self) -> None:
        """Draw the core's picture of the layer, or say why it cannot be had any more."""
        self._known_parts = self._core = None
        why = why_not(self._layer)
        if why is None:
            self._core = DecoderLayer(self.parts.facts())
        elif why != self._said:
            warnings.warn(f"{self._name} decodes the usual way from now on: {why}", stacklevel=2)
        self._said, self._watch, self._globals = why, Watch(self._layer.modules()), globals_of(self._layer)

    def nonfinite(self, number: int) -> NonFiniteError:
        """The error for a linear layer, by its number, whose input holds infinity or NaN."""
        return nonfinite_error(self.parts.linears[number].fp8.name.module, "input")

    def _serves(self, x: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether a step may do what the usual forward would."""
        if not is_plain(x) or self.parts.is_training() or kwargs.get("attention_mask") is not None:
            return False
        if any(value is not None for name, value in kwargs.items() if name not in _WORDS):
            return False
        if not self.turns(x, *kwargs.get("position_embeddings") or ()):
            return False
        past = kwargs.get("past_key_values")
        return not self.is_observed() and (past is None or is_usual_cache(past)) and self.extends(past, x.shape[1])


def is_plain(x: Tensor) -> bool:
    """Whether this is one sequence of tokens, [1, tokens, hidden], of the kind that the core takes, at inference."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_intercepted() or type(x) is not Tensor:
        return False
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or x.shape[0] != 1 or not x.is_contiguous():
        return False
    return x.numel() > 0


class _Parts:
    """The modules of a decoder layer, as the fused step needs them."""

    def __init__(self, layer: nn.Module) -> None:
        attention: Any = layer.self_attn
        self.index: int = attention.layer_idx
        self.modules = list(layer.modules())
        self.inner = self.modules[1:]
        self.hooks = [hooks for module in self.inner for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self.linears: list[StoredLinear] = [layer.get_submodule(name) for name in _LINEARS]  # type: ignore[misc]
        self._norms: list[Any] = [layer.get_submodule(name) for name in _NORMS]
        self.runtimes = [linear.fp8.runtime for linear in self.linears]
        self.head_dim, self._scale = attention.head_dim, attention.scaling
        self.heads_of_cache = self.linears[1].out_features // self.head_dim

    def is_training(self) -> bool:
        """Whether the layer or anything in it is in training mode."""
        return any(module.training for module in self.modules)

    def facts(self) -> LayerFacts:
        """What the core has to know."""
        return LayerFacts(
            num_heads=self.linears[0].out_features // self.head_dim,
            num_kv_heads=self.heads_of_cache,
            head_dim=self.head_dim,
            attention_scale=self._scale,
            norms=tuple((norm.weight.detach(), norm.variance_epsilon) for norm in self._norms),  # type: ignore[arg-type]
            linears=tuple(map(_linear_facts, self.linears)),
        )


class Room:
    """Room for more keys and values behind those of a cache, so that a token is written and nothing is copied."""

    def __init__(self, heads: int, dim: int, num_new: int, cache: DynamicLayer | None) -> None:
        self.length = 0 if cache is None else cache.get_seq_length()
        needed = self.length + num_new
        self._capacity = needed if cache is None else max(256, 2 * needed)
        self.keys, self.values = (torch.empty(1, heads, self._capacity, dim, dtype=torch.bfloat16) for _ in "kv")
        self._shown = (self.keys, self.values)
        self._addresses = (self.keys.data_ptr(), self.values.data_ptr(), self.keys.stride(1))
        if cache is not None and not cache.is_initialized:
            cache.lazy_initialization(self.keys, self.values)
        elif cache is not None and self.length:
            self.keys[:, :, : self.length], self.values[:, :, : self.length] = cache.keys, cache.values

    def has_next(self, cache: DynamicLayer | None) -> bool:
        """Whether the cache is as we left it, and one more position fits."""
        mine = cache is not None and cache.keys is self._shown[0] and cache.values is self._shown[1]
        return mine and self.length < self._capacity

    @property
    def facts(self) -> tuple[int, int, int, int]:
        """As the core wants it: the addresses of keys and values, their stride, and the length."""
        return (*self._addresses, self.length)

    def show(self, cache: DynamicLayer | None, num_new: int) -> None:
        """Let the cache see the new positions."""
        self.length += num_new
        if cache is not None:
            self._shown = (self.keys.narrow(2, 0, self.length), self.values.narrow(2, 0, self.length))
            cache.keys, cache.values = self._shown


def _linear_facts(linear: StoredLinear) -> LinearFacts:
    linear.check_codes()
    weight = linear.quantized_weight()
    operand: Operand | None = None if linear.fp8.activations == "none" else linear.fp8.recipe.input
    return LinearFacts(
        codes=weight.codes,
        format=weight.format.name,
        scale_bias=weight.scale_bias,
        factor=linear.fp8.weight_factor,
        input=operand,
        input_factor=linear.fp8.input_factor,
    )
