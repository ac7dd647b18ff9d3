"""FusedBackbone: the forward of a Llama's decoder. The next token passes all layers in one call of the core.

A layer's step takes a tenth of a millisecond in a small model, and sweeps what Python needs out of the caches: looking
at a layer's modules right before its step cost half as much again. Here all layers are looked at first, and at once.
Whatever is not one token after others goes the usual way, to FusedLayer. Whether a weight was replaced is looked up
once a sequence: for each token, that alone took a tenth of a small model's time.
"""

import weakref
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from octoscale.inference.decoder_layer import FusedLayer, is_plain
from octoscale.inference.known_layers import are_all_modules_watched, is_collecting, is_watched, why_backbone_unknown
from octoscale.inference.usual_path import is_usual_cache
from octoscale.kernels.decoder import DONE, REFUSED, DecoderLayer, step_through

_RECORDER = attrgetter("recorder")


class FusedBackbone:
    """The forward of a decoder whose layers are all fused: one token in one call, all else the usual way."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model
        self._stack: _Stack | None = None
        self._past: weakref.ref[Any] | None = None
        self._is_known = False

    def __getstate__(self) -> nn.Module:
        """A copy finds its own layers."""
        return self._model  # type: ignore[no-any-return]

    def __setstate__(self, state: nn.Module) -> None:
        self.__init__(state)  # type: ignore[misc]

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the decoder's own forward."""
        stack = None
        if all(_is_usual(name, value) for name, value in kwargs.items()):
            stack = self._stack_for(input_ids, attention_mask, past_key_values)
        if stack is not None:
            x = self._model.embed_tokens(input_ids)
            positions = torch.tensor([[past_key_values.get_seq_length()]]) if position_ids is None else position_ids
            cosines, sines = (turn.contiguous() for turn in self._model.rotary_emb(x, position_ids=positions))
            if is_plain(x) and stack.layers[0].turns(x, cosines, sines):
                out = stack.step(past_key_values, x, cosines, sines)
                if out is not None:
                    y = self._model.norm(out)
                    return BaseModelOutputWithPast(last_hidden_state=y, past_key_values=past_key_values)
        self._past = None
        return type(self._model).forward(
            self._model,
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )

    def _stack_for(self, ids: Tensor | None, mask: Tensor | None, past: Any) -> "_Stack | None":
        """The layers, if this is one token after others of one sequence that they all can take; else None."""
        model = self._model
        if ids is None or ids.shape != (1, 1) or past is None or model.training:
            return None
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _sees_all(mask):
            return None
        config = model.config
        if is_collecting() or are_all_modules_watched():
            return None
        if config.output_hidden_states or config.output_attentions or not config.return_dict:
            return None
        if config._attn_implementation != "sdpa":
            return None
        modules = list(model.layers)[: config.num_hidden_layers]
        layers = [module.__dict__.get("forward") for module in modules]
        if self._stack is None or self._stack.layers != layers:
            if any(type(layer) is not FusedLayer for layer in layers):
                return None
            self._stack, self._past = _Stack(modules, layers), None
        if self._past is None or self._past() is not past:
            self._past = weakref.ref(past)
            self._is_known = self._stack.refresh() and why_backbone_unknown(model) is None and is_usual_cache(past)
        if not self._is_known:
            return None
        return None if self._stack.is_observed() or not self._stack.extends(past) else self._stack


def _is_usual(name: str, value: object) -> bool:
    """Whether an argument asks for nothing but the last hidden state, in transformers' own class."""
    return value is None or name == "use_cache" or value is (name == "return_dict")


def _sees_all(mask: Tensor | None) -> bool:
    """Whether no position is masked: there is no padding."""
    return mask is None or (mask.dim() == 2 and bool(mask.all()))


class _Stack:
    """Fused layers, one after the other, and all that has to be looked at before a token passes them."""

    _cores: list[DecoderLayer] | None = None

    def __init__(self, modules: list[nn.Module], layers: list[Any]) -> None:
        self.layers: list[FusedLayer] = layers
        self._modules = modules

    def refresh(self) -> bool:
        """Look at the layers anew if anything in them has changed: whether the core still computes them all."""
        known = [layer.is_known() for layer in self.layers]  # each says why not
        if not all(known) or any(layer.parts.is_training() for layer in self.layers):
            return False
        if self._cores != [layer.core() for layer in self.layers]:
            self._look()
        return True

    def is_observed(self) -> bool:
        """Whether someone wants to see what passes inside."""
        if any(self._hooks) and any(map(is_watched, self._inner)):
            return True
        return list(map(_RECORDER, self._runtimes)) != self._unrecorded

    def extends(self, past: Any) -> bool:
        """Whether a token can be added to all layers of a cache."""
        return all(layer.extends(past, 1) for layer in self.layers)

    def step(self, past: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor | None:
        """One token through all layers; the cache grows when all have succeeded. None if one refuses it."""
        cores, natives = self._cores, self._natives  # held, should another thread look at the layers anew
        caches = [past.layers[layer.parts.index] for layer in self.layers]
        rooms = [layer.room(cache, 1) for layer, cache in zip(self.layers, caches, strict=True)]
        out = torch.empty_like(x)
        outcome = step_through(natives, [room.facts for room in rooms], x, cosines, sines, out)
        if outcome == REFUSED:
            return None
        if outcome != DONE:
            layer, number = divmod(outcome, len(self.layers[0].parts.linears))
            raise self.layers[layer].nonfinite(number)
        for room, cache in zip(rooms, caches, strict=True):
            room.show(cache, 1)
        del cores
        return out

    def _look(self) -> None:
        layers = self.layers
        self._cores = [layer.core() for layer in layers]
        self._natives = [core.native for core in self._cores]
        self._inner = [*self._modules, *(module for layer in layers for module in layer.parts.inner)]
        self._hooks = [hooks for m in self._inner for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self._runtimes = [runtime for layer in layers for runtime in layer.parts.runtimes]
        self._unrecorded = [None] * len(self._runtimes)
