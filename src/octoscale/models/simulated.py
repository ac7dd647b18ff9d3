"""A model without weights that runs as the real one does: for a plan, whose tensors are fakes.

    model = simulated(config, num_layers, torch.float32)        where fakes are made (FakeTensorMode)

Where transformers meets a fake tensor it takes a tracer's way, with a mask of all pairs of tokens, and with keys and
values copied for each group of heads. A real causal batch without padding takes neither, nor does this model. Its
attention is the fused kernel of GPUs, which keeps no dropout mask; on a CPU, dropout there makes torch keep all pairs.
"""

import copy
from typing import Any

import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from octoscale.models.architectures import class_of, is_auto

#: transformers makes no masks for attention of a name that it does not know masks of.
_UNMASKED = "octoscale_plan"


def _attention(*tensors: Any, dropout: float = 0.0, **options: Any) -> Any:  # noqa: ARG001
    return sdpa_attention_forward(*tensors, dropout=0.0, **options)


transformers.AttentionInterface.register(_UNMASKED, _attention)


def simulated(config: Any, num_layers: int, dtype: torch.dtype) -> Any:
    """The model of a config, cut to so many decoder layers, in evaluation mode."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers = num_layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:num_layers]
    cls = class_of(config)
    make = cls.from_config if is_auto(config) else cls._from_config
    model = make(config, dtype=dtype).eval()
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(_UNMASKED)
    return model


def are_alike(config: Any) -> bool:
    """Whether all decoder layers of a config are of one kind, so that some tell of all."""
    text = config.get_text_config()
    return len(set(getattr(text, "layer_types", None) or [None])) == 1
