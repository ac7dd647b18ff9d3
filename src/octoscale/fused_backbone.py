"""FusedBackbone: the forward of a Llama's decoder for the next token, with all that is Python done at once.

A layer's step in C++ takes a tenth of a millisecond in a small model, and sweeps what Python needs out of the caches;
so looking at the modules of a layer right before its step costs half as much again. Here all layers are looked at
first, then they run one after the other. Whatever is not one token after others goes the usual way, to FusedLayer.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from octoscale.fused_layer import FusedLayer, is_plain

#: The classes of transformers whose forward is this one.
BACKBONES = ("LlamaModel", "MistralModel")


class FusedBackbone:
    """The forward of a decoder whose layers are all fused: one token in one go, all else the usual way."""

    def __init__(self, model: nn.Module) -> None:
        self._model: Any = model

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the decoder's own forward."""
        layers = None
        if all(_is_usual(name, value) for name, value in kwargs.items()):
            layers = self._layers_for(input_ids, attention_mask, past_key_values)
        if layers is not None:
            x = self._model.embed_tokens(input_ids)
            positions = torch.tensor([[past_key_values.get_seq_length()]]) if position_ids is None else position_ids
            turns = [turn.contiguous() for turn in self._model.rotary_emb(x, position_ids=positions)]
            if is_plain(x) and all(turn.dtype == x.dtype for turn in turns):
                y = _step(layers, past_key_values, x, *turns)
                return BaseModelOutputWithPast(last_hidden_state=self._model.norm(y), past_key_values=past_key_values)
        return type(self._model).forward(
            self._model,
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )

    def _layers_for(self, ids: Tensor | None, mask: Tensor | None, past: Any) -> list[FusedLayer] | None:
        """The layers, if this is one token after others of one sequence that they all can take; else None."""
        model = self._model
        if ids is None or ids.shape != (1, 1) or past is None or model.training:
            return None
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _sees_all(mask):
            return None
        config = model.config
        if config.output_hidden_states or config.output_attentions or not config.return_dict:
            return None
        if config._attn_implementation != "sdpa":
            return None
        modules = list(model.layers)[: config.num_hidden_layers]
        layers = [module.__dict__.get("forward") for module in modules]
        if any(type(layer) is not FusedLayer for layer in layers):
            return None
        if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
            return None
        if any(layer.is_observed() or not layer.extends(past, 1) for layer in layers):
            return None
        return layers


def _is_usual(name: str, value: object) -> bool:
    """Whether an argument asks for nothing but the last hidden state, in transformers' own class."""
    return value is None or name == "use_cache" or value is (name == "return_dict")


def _sees_all(mask: Tensor | None) -> bool:
    """Whether no position is masked: there is no padding."""
    return mask is None or (mask.dim() == 2 and bool(mask.all()))


def _step(layers: list[FusedLayer], past: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """One token through all layers; the cache grows when all have succeeded."""
    caches = [past.layers[layer.parts.index] for layer in layers]
    rooms = [layer.room(cache, 1) for layer, cache in zip(layers, caches, strict=True)]
    cores = [layer.core() for layer in layers]
    out, other = torch.empty_like(x), torch.empty_like(x)
    for layer, core, room in zip(layers, cores, rooms, strict=True):
        layer.step(core, room, x, cosines, sines, out)
        x, out, other = out, other, out
    for room, cache in zip(rooms, caches, strict=True):
        room.show(cache, 1)
    return x
