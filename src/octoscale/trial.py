"""One call of a converted model on a few tokens: did each layer that the report calls FP8 take part?

    report = convert(model, Recipe.amax())
    layers_not_run(model, report)                [] if all ran

A model's code may read a layer's weight instead of calling it, or leave a layer out; then its FP8 is on paper only.
Layers for pictures and sounds do not run on a text, and are named too.
"""

from typing import Any

import torch
from torch import Tensor, nn

from octoscale.convert import ConversionReport

_TOKENS = 8


def layers_not_run(model: nn.Module, report: ConversionReport) -> list[str]:
    """The converted layers that one forward pass on a few tokens, or on a gray picture, does not call.

    ValueError for a model that takes neither; whatever the model raises.
    """
    ran: set[str] = set()
    hooks = [
        model.get_submodule(row.module).register_forward_hook(lambda *_, name=row.module: ran.add(name))
        for row in report.converted
    ]
    try:
        with torch.no_grad():
            model(**_inputs(model))
    finally:
        for hook in hooks:
            hook.remove()
    return [row.module for row in report.converted if row.module not in ran]


def _inputs(model: Any) -> dict[str, Tensor]:
    """A few tokens, for the decoder too where there is one; or a picture."""
    config = getattr(model, "config", None)
    main = getattr(model, "main_input_name", "")
    if main == "pixel_values":
        size = getattr(config, "image_size", 224)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        return {main: torch.zeros(1, getattr(config, "num_channels", 3), *sides, dtype=model.dtype)}
    embeddings = model.get_input_embeddings() if main == "input_ids" else None
    if embeddings is None:
        raise ValueError(f"a {type(model).__name__} takes {main or 'no text'}: it cannot be run on a few tokens")
    ids = torch.arange(_TOKENS)[None] % embeddings.num_embeddings
    is_pair = getattr(config, "is_encoder_decoder", False)
    return {main: ids, **({"decoder_input_ids": ids} if is_pair else {})}
