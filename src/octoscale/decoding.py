"""Fast decoding: while text is generated, new tokens pass a decoder layer in one call of the C++ core.

    model = AutoModelForCausalLM.from_pretrained("my-llama-fp8").eval()
    print(fuse(model))                  # 22 of 22 decoder layers fused, and the head
    model.generate(...)                 # transformers' own, with its own cache

A single token reads every weight once and computes next to nothing: what costs time besides are some thirty calls of
Python and torch for each layer. `fuse` gives each decoder layer of the Llama family a `forward` that makes one call
where it may: one sequence, its next token or its first ones (on AVX-512), bfloat16, no gradients, nothing padded,
recorded or hooked. All else goes the usual way. The fused step rounds to bfloat16 wherever the model does, and differs
from it by the order of sums only.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from octoscale.backends import token
from octoscale.backends.token import LayerFacts, LinearFacts, TokenLayer
from octoscale.linear import nonfinite_error
from octoscale.recipe import Operand
from octoscale.scaling import Delayed
from octoscale.stored import StoredLinear

#: The classes of transformers whose forward is the one of csrc/token.h.
DECODER_LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer")

_LINEARS = tuple(f"self_attn.{name}_proj" for name in "qkvo") + tuple(
    f"mlp.{name}_proj" for name in ("gate", "up", "down")
)
_NORMS = ("input_layernorm", "post_attention_layernorm")
_MOST_HEAD_ROWS = 16


@dataclass(frozen=True)
class FusionReport:
    """Which decoder layers decode fast, and why the others do not."""

    fused: list[str]
    left: dict[str, str] = field(default_factory=dict)
    head: bool = False

    def __str__(self) -> str:
        head = ", and the head" if self.head else ""
        counts = f"{len(self.fused)} of {len(self.fused) + len(self.left)} decoder layers fused{head}"
        reasons = [f"{name}: {reason}" for name, reason in self.left.items()]
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        return counts + (f"; {reasons[0]}{more}" if reasons else "")


def fuse(model: PreTrainedModel) -> FusionReport:
    """Let a model decode fast, as far as it can; the report says how far. Call `unfuse` to undo it."""
    unfuse(model)
    layers = dict(_decoder_layers(model))
    reason = token.why_not()
    left = {name: reason or _why_not(layer) for name, layer in layers.items()}
    fused = [name for name, why in left.items() if why is None]
    for name in fused:
        layers[name].forward = _FusedLayer(name, layers[name])
    head = model.get_output_embeddings()
    fused_head = bool(fused) and type(head) is nn.Linear and head.bias is None
    if fused_head:
        head.forward = _FusedHead(head)
    return FusionReport(fused, {name: why for name, why in left.items() if why is not None}, fused_head)


def unfuse(model: PreTrainedModel) -> None:
    """Take back what `fuse` did."""
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), _FusedLayer | _FusedHead):
            del module.__dict__["forward"]


def _decoder_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """What stands in the list of the model's layers, whatever its class."""
    for name, module in model.named_modules():
        if type(module).__name__.endswith(("DecoderLayer", "Block")):
            yield name, module


def _why_not(layer: nn.Module) -> str | None:
    """Why a decoder layer cannot be fused, in the user's words; None if it can."""
    if type(layer).__name__ not in DECODER_LAYERS:
        return f"{type(layer).__name__} is not one of {', '.join(DECODER_LAYERS)}"
    for name in _LINEARS:
        linear = layer.get_submodule(name)
        if not isinstance(linear, StoredLinear):
            return f"{name} is not loaded in FP8"
        if linear.bias is not None:
            return f"{name} has a bias"
        linear.quantized_weight()
        if linear.fp8.weight_factor * linear.fp8.input_factor != 1 or linear.fp8.is_delayed:
            return f"{name} has a scale that is no power of two"
    attention: Any = layer.self_attn
    if attention.config.hidden_act != "silu":
        return f"its activation is {attention.config.hidden_act}, not silu"
    sizes = [size for name in _LINEARS for size in layer.get_submodule(name).weight.shape]  # type: ignore[union-attr]
    if attention.head_dim > token.MAX_HEAD_DIM or any(n % token.STEP for n in (attention.head_dim, *sizes)):
        return f"its sizes are no multiples of {token.STEP}, or its heads wider than {token.MAX_HEAD_DIM}"
    if any(layer.get_submodule(name).weight.dtype != torch.bfloat16 for name in _NORMS):
        return "it is not bfloat16"
    return None


class _FusedLayer:
    """The forward of a decoder layer: one call of the core where it may, the usual forward where it may not."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self._name, self._layer = name, layer
        self._parts: _Parts | None = None
        self._caches: weakref.WeakKeyDictionary[DynamicLayer, _Room] = weakref.WeakKeyDictionary()
        self._seen: list[int] = []
        self._token_layer: TokenLayer | None = None

    def __getstate__(self) -> tuple[str, nn.Module]:
        """A copy finds its own tensors: addresses are not copied."""
        return self._name, self._layer

    def __setstate__(self, state: tuple[str, nn.Module]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the decoder layer's own forward."""
        past = kwargs.get("past_key_values")
        if args or not self._serves(hidden_states, kwargs):
            return type(self._layer).forward(self._layer, hidden_states, *args, **kwargs)  # type: ignore[no-any-return]
        return self._step(hidden_states, past and past.layers[self._known_parts.index], *kwargs["position_embeddings"])

    @property
    def _known_parts(self) -> "_Parts":
        self._parts = self._parts or _Parts(self._layer)
        return self._parts

    def _serves(self, x: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether the fused step may do what the usual forward would."""
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or x.shape[0] != 1 or not x.is_contiguous():
            return False
        if torch.is_grad_enabled() or self._layer.training or torch.compiler.is_compiling():
            return False
        if kwargs.get("attention_mask") is not None or any(
            turn.dtype != x.dtype for turn in kwargs["position_embeddings"]
        ):
            return False
        parts = self._known_parts
        if any(m._forward_hooks or m._forward_pre_hooks for m in parts.modules):
            return False
        if any(linear.fp8.runtime.recorder is not None for linear in parts.linears):
            return False
        length = _length_of(kwargs.get("past_key_values"), parts.index)
        if length is None:
            return False
        return x.shape[1] == 1 or (x.shape[1] > 1 and length == 0 and self._core(parts).serves_rows)

    def _step(self, x: Tensor, cache: DynamicLayer | None, cosines: Tensor, sines: Tensor) -> Tensor:
        parts, length = self._known_parts, 0 if cache is None else cache.get_seq_length()
        room = self._caches.get(cache) if cache is not None else None
        if room is None or not room.has_next(cache):
            room = _Room(parts.heads_of_cache, parts.head_dim, length + x.shape[1], cache)
            if cache is not None:
                self._caches[cache] = room
        out = torch.empty_like(x)
        failed = self._core(parts).step(
            x, cosines.contiguous(), sines.contiguous(), room.keys, room.values, length, out
        )
        if failed >= 0:
            raise nonfinite_error(parts.linears[failed].fp8.name.module, "input")
        if cache is not None:
            room.show(cache, length + x.shape[1])
        return out

    def _core(self, parts: "_Parts") -> TokenLayer:
        """The core's picture of the layer, drawn anew when a tensor has moved or a scale has changed."""
        seen = parts.state()
        if self._token_layer is None or seen != self._seen:
            why = _why_not(self._layer)
            if why is not None:
                raise ValueError(f"{self._name}: {why}, since octoscale.decoding.fuse(model): call it again")
            self._token_layer, self._seen = TokenLayer(parts.facts()), seen
        return self._token_layer


class _Parts:
    """The modules of a decoder layer, as the fused step needs them."""

    def __init__(self, layer: nn.Module) -> None:
        attention: Any = layer.self_attn
        self.index: int = attention.layer_idx
        self.modules = [module for module in layer.modules() if module is not layer]
        self.linears: list[StoredLinear] = [layer.get_submodule(name) for name in _LINEARS]  # type: ignore[misc]
        self._norms: list[Any] = [layer.get_submodule(name) for name in _NORMS]
        self._parameters = [module._parameters for module in (*self.linears, *self._norms)]
        self.head_dim, self._scale = attention.head_dim, attention.scaling
        self.heads_of_cache = self.linears[1].out_features // self.head_dim

    def state(self) -> list[int]:
        """Where all tensors are, how large, and how often they were written to."""
        tensors = [p for parameters in self._parameters for p in parameters.values() if p is not None]
        return [*map(Tensor.data_ptr, tensors), *map(Tensor.numel, tensors), *(p._version for p in tensors)]

    def facts(self) -> LayerFacts:
        """What the core has to know."""
        return LayerFacts(
            num_heads=self.linears[0].out_features // self.head_dim,
            num_kv_heads=self.heads_of_cache,
            head_dim=self.head_dim,
            attention_scale=self._scale,
            norms=tuple((norm.weight, norm.variance_epsilon) for norm in self._norms),  # type: ignore[arg-type]
            linears=tuple(map(_linear_facts, self.linears)),
        )


class _Room:
    """Room for more keys and values behind those of a cache, so that a token is written and nothing is copied."""

    def __init__(self, heads: int, dim: int, length: int, cache: DynamicLayer | None) -> None:
        self._capacity = length if cache is None else max(256, 2 * length)
        self.keys, self.values = (torch.empty(1, heads, self._capacity, dim, dtype=torch.bfloat16) for _ in "kv")
        self._shown = (self.keys, self.values)
        if cache is not None and not cache.is_initialized:
            cache.lazy_initialization(self.keys, self.values)
        elif cache is not None and (there := cache.get_seq_length()):
            self.keys[:, :, :there], self.values[:, :, :there] = cache.keys, cache.values

    def has_next(self, cache: DynamicLayer | None) -> bool:
        """Whether the cache is as we left it, and one more position fits."""
        mine = cache is not None and cache.keys is self._shown[0] and cache.values is self._shown[1]
        return mine and self._shown[0].shape[-2] < self._capacity

    def show(self, cache: DynamicLayer, length: int) -> None:
        """Let the cache see this many positions."""
        self._shown = (self.keys[:, :, :length], self.values[:, :, :length])
        cache.keys, cache.values = self._shown


def _length_of(past: Cache | None, index: int) -> int | None:
    """How many positions a decoder layer's cache holds, 0 if there is no cache; None if it is not one we can extend."""
    if past is None:
        return 0
    layer: Any = past.layers[index] if len(past.layers) > index else None
    if type(layer) is not DynamicLayer:
        return None
    length: int = layer.get_seq_length()
    plain = length == 0 or (layer.keys.dtype == torch.bfloat16 and layer.keys.shape[0] == 1)
    return length if plain else None


class _FusedHead:
    """The forward of the layer that gives the logits: bfloat16, for the few rows that generation asks for."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head

    def __call__(self, x: Tensor) -> Tensor:
        """As nn.Linear's own forward."""
        weight = self._head.weight
        rows = x.numel() // x.shape[-1]
        plain = x.dtype == weight.dtype == torch.bfloat16 and x.is_contiguous() and weight.is_contiguous()
        if plain and 0 < rows <= _MOST_HEAD_ROWS and not torch.is_grad_enabled() and x.device.type == "cpu":
            out = torch.empty(*x.shape[:-1], weight.shape[0], dtype=torch.bfloat16)
            if token.linear_bf16(x.view(rows, -1), weight, out.view(rows, -1)):
                return out
        return nn.Linear.forward(self._head, x)


def _linear_facts(linear: StoredLinear) -> LinearFacts:
    weight = linear.quantized_weight()
    operand: Operand | None = None if linear.fp8.activations == "none" else linear.fp8.recipe.input
    assert operand is None or not isinstance(operand.rule, Delayed)
    return LinearFacts(codes=weight.codes, scale_bias=int(weight.scale_bias), input=operand)
